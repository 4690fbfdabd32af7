"""Drives jobs: rules say what a reply means, legs act, the engine feeds and drains."""
