"""Asks the user on the terminal, wherever the output goes; Ctrl-C is a no, and other signals end the command."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn, TextIO

from batcher.errors import NotMeant, Signalled
from batcher.terminal_text import plain

heard: Final[set[int]] = set()
"""Signals that ended a question: an event loop is told of them too, and has nothing more to end."""


def can_ask() -> bool:
    """Return whether somebody is there to answer: standard input is a terminal."""
    return sys.stdin.isatty()


def sure(question: str, otherwise: NotMeant) -> None:
    """Ask whether to go on; raise `otherwise` at anything but a yes. Raises Signalled.

    Blocks. While it waits signals are what they are everywhere: an event loop would only take note of them.
    """
    with _screen() as screen:
        try:
            with plain_signals():
                print(f"{plain(question)} [y/N]: ", end="", file=screen, flush=True)
                answer = sys.stdin.readline()
        except KeyboardInterrupt:
            answer = ""
        if answer.strip().lower() not in {"y", "yes"}:
            if not answer.endswith("\n"):
                print(file=screen)
            raise otherwise


@contextmanager
def _screen() -> Iterator[TextIO]:
    """Open what the user sees: standard error, or the terminal itself where that goes elsewhere."""
    if sys.stderr.isatty():
        yield sys.stderr
        return
    try:
        terminal = open(os.ttyname(sys.stdin.fileno()), "w", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123
    except OSError:
        yield sys.stderr
        return
    with terminal:
        yield terminal


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
