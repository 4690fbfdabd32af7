"""Asks the user on the terminal; standard output stays clean, Ctrl-C is a no, and other signals end the command."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

from batcher.errors import NotMeant, Signalled

heard: Final[set[int]] = set()
"""Signals that ended a question: an event loop is told of them too, and has nothing more to end."""


def sure(question: str, otherwise: NotMeant) -> None:
    """Ask whether to go on; raise `otherwise` at anything but a yes. Raises Signalled.

    Blocks. While it waits signals are what they are everywhere: an event loop would only take note of them.
    """
    try:
        with plain_signals():
            print(f"{question} [y/N]: ", end="", file=sys.stderr, flush=True)
            answer = sys.stdin.readline()
    except KeyboardInterrupt:
        answer = ""
    if answer.strip().lower() not in {"y", "yes"}:
        if not answer.endswith("\n"):
            print(file=sys.stderr)
        raise otherwise


@contextmanager
def plain_signals() -> Iterator[None]:
    """Let signals end what blocks: Ctrl-C raises KeyboardInterrupt, others Signalled."""
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: _end, signal.SIGHUP: _end}
    before = {
        one: signal.signal(one, handler)
        for one, handler in wanted.items()
        if signal.getsignal(one) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, signal.SIG_DFL if handler is None else handler)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    heard.add(number)
    raise Signalled(number)
