"""Progress on standard error: a bar on a terminal, a plain line now and then without one. A listener, no more."""

import sys
from collections import Counter
from collections.abc import Callable
from typing import Final, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from batcher.events import Ended, Event, Held, Moved, Noted, Started, Warned
from batcher.job import SETTLED, State
from batcher.settings import SANDBOX
from batcher.show.log import plain
from batcher.show.words import counts, duration, money

EVERY: Final = 10.0
"""Seconds between plain lines."""


class Tally:
    """Counts what the events say of jobs."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()
        self.billed = 0.0
        self.total = 0
        self.rehearsal = False

    def take(self, event: Event) -> None:
        """Count an event."""
        if isinstance(event, Started):
            self.states = Counter(event.states)
            self.total = sum(event.states.values())
            self.rehearsal = event.provider == SANDBOX
        elif isinstance(event, Moved):
            self.states[event.came_from] -= 1
            self.states[event.to] += 1
            self.billed += event.billed_usd or 0.0 if event.to is not State.FETCHING else 0.0

    @property
    def settled(self) -> int:
        """Jobs at rest."""
        return sum(self.states[state] for state in SETTLED)

    def line(self) -> str:
        """Say it in a line."""
        bill = "pretended bill" if self.rehearsal else "billed"
        return counts(self.states) + (f"; {bill} {money(self.billed)}" if self.billed else "")


class Lines:
    """Plain lines: at the start, each ten seconds, at trouble, at the end."""

    def __init__(self, stream: TextIO, now: Callable[[], float]) -> None:
        self._stream = stream
        self._now = now
        self._tally = Tally()
        self._last = now()

    def __call__(self, event: Event) -> None:
        """Say something if it is time."""
        self._tally.take(event)
        match event:
            case Started(name=name, provider=provider):
                self._say(f"{name} on {_named(provider)}: {self._tally.line()}")
            case Held(why=why, seconds=seconds):
                self._say(f"submissions wait {duration(seconds)}: {why}")
            case Warned(message=message):
                self._say(f"warning: {message}")
            case Ended() | Noted():
                pass
            case _ if self._now() - self._last >= EVERY:
                self._say(f"{self._tally.settled:,} of {self._tally.total:,} settled: {self._tally.line()}")

    def _say(self, line: str) -> None:
        self._last = self._now()
        print(plain(line), file=self._stream, flush=True)


class Bar:
    """A bar that is redrawn in place, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._tally = Tally()
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            TextColumn("{task.fields[rest]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            refresh_per_second=8,
        )
        self._task: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Redraw."""
        self._tally.take(event)
        match event:
            case Started(name=name, provider=provider):
                self._task = self._progress.add_task(f"{name} on {_named(provider)}", total=self._tally.total, rest="")
                self._progress.start()
                self._update()
            case Held(why=why, seconds=seconds):
                self._progress.console.print(plain(f"submissions wait {duration(seconds)}: {why}"), markup=False)
            case Warned(message=message):
                self._progress.console.print(plain(f"warning: {message}"), markup=False)
            case Ended():
                self._progress.stop()
            case Moved():
                self._update()

    def _update(self) -> None:
        if self._task is not None:
            states: dict[str, int] = {state: self._tally.states[state] for state in State if state is not State.DONE}
            rest = counts(states) if any(states.values()) else ""
            self._progress.update(self._task, completed=self._tally.settled, rest=rest)


def _named(provider: str) -> str:
    return "the sandbox (rehearsal)" if provider == SANDBOX else provider


def listener(now: Callable[[], float]) -> Lines | Bar:
    """Give what suits standard error: a bar on a terminal, else lines. `now` in seconds."""
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal and not console.is_dumb_terminal else Lines(sys.stderr, now)
