"""Drives jobs: rules say what a reply means, steps act, the engine feeds and drains."""
