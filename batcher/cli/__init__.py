"""The command line: one file a command, arguments in, exit code out."""

from batcher.cli.entry import main

__all__ = ["main"]
