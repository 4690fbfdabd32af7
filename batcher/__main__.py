"""`python -m batcher` is `batcher`."""

from batcher.cli import main

main()
