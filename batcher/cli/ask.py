"""Asks the user on the terminal; standard output stays clean, and Ctrl-C is a no."""

import signal
import sys

from batcher.errors import NotMeant


def sure(question: str, otherwise: NotMeant) -> None:
    """Ask whether to go on; raise `otherwise` at anything but a yes.

    Blocks. While it waits Ctrl-C is what it is everywhere: an event loop would only take note of it.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    finally:
        signal.signal(signal.SIGINT, before)
    if answer.strip().lower() not in {"y", "yes"}:
        if not answer.endswith("\n"):
            print(file=sys.stderr)
        raise otherwise
