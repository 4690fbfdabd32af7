"""Prints messages to standard error: lines, faults of a manifest, why a run stopped."""

import contextlib
import sys

from batcher.cli.wrap import wrapped
from batcher.errors import ManifestFaulty, Stopped
from batcher.terminal_text import plain


def say_faults(faulty: ManifestFaulty) -> None:
    """Print the faults of a manifest to standard error, and how many there are."""
    for fault in faulty.faults:
        say(plain(str(fault)))
    if faulty.count > len(faulty.faults):
        say(f"... and {faulty.count - len(faulty.faults):,} more")
    say(f"batcher: {faulty.summary}")
    if faulty.hint:
        say(f"  {plain(faulty.hint)}")


def say(line: str) -> None:
    """Print a line, or a text of several, if anyone still reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(line if "\n" in line else wrapped(plain(line), sys.stderr), file=sys.stderr, flush=True)


def say_stopped(stopped: Stopped) -> None:
    """Print why a run stopped, and the command that goes on."""
    say(f"stopped ({stopped.reason}): {stopped.message}")
    say(f"next: {stopped.next}")
