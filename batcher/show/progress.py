"""Progress on standard error: a board on a terminal, a plain line now and then without one. A listener, no more."""

import io
import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TextIO

from rich.console import Console, RenderableType
from rich.live import Live

from batcher.events import Changed, Ended, Event, Held, Moved, Noted, Silence, Started, Stopping, Waiting, Warned
from batcher.job import SETTLED, State
from batcher.money import expected_end
from batcher.settings import SANDBOX
from batcher.show.board import Board, Money, drawn, line, named
from batcher.show.eta import RateMeter, left
from batcher.show.words import counts, held, money, waiting
from batcher.terminal_text import plain

EVERY: Final = 10.0
"""Seconds between plain lines."""
LONGEST: Final = 25.0
"""Seconds without a line after which one comes though nothing happened."""
_REDRAWN: Final = 4
"""Times a second."""
_NOTEBOOK_WIDTH: Final = 100
"""Characters."""

Now = Callable[[], float]


class Tally:
    """Counts what the events say of jobs. `now` in seconds of any clock that goes on evenly."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self.states: Counter[str] = Counter()
        self._started: Started | None = None
        self._billed = 0.0
        self._bills = 0
        self._kinds: Counter[str] = Counter()
        self._last = ""
        self._holds = 0
        self._window: int | None = None
        self._hold: tuple[float, str, bool] | None = None
        """Until when submissions wait, why, and whether the server has said so."""
        self._silence = ""
        self._waits: dict[str, str] = {}
        """By job: what it waits for."""
        self._stopping = ""
        self._meter = RateMeter(now(), 0)

    def take(self, event: Event) -> None:
        """Count an event."""
        match event:
            case Started():
                self._started = event
                self.states = Counter(event.states)
                self._meter = RateMeter(self._now(), self._settled)
            case Moved():
                self._take_move(event)
            case Held(why=why, seconds=seconds, window=window, reached=reached):
                self._holds += 1
                self._window = window
                self._hold = (self._now() + seconds, why, reached)
            case Silence(message=message, since=since):
                self._silence = message if since is not None else ""
            case Waiting():
                self._waits.pop(event.job_id, None)
                if event.tries:
                    self._waits[event.job_id] = f"{event.name} {event.message}"
            case Changed(concurrency=concurrency, limit_usd=limit) if self._started:
                self._started = replace(self._started, concurrency=concurrency, limit_usd=limit)
            case Stopping(message=message):
                self._stopping = f"no more is submitted: {message}"
            case _:
                pass

    def _take_move(self, event: Moved) -> None:
        self._waits.pop(event.job_id, None)
        if not self.states[event.came_from]:  # unlisted, or not selected: paid for, and brought to its end
            return
        self.states[event.came_from] -= 1
        self.states[event.to] += 1
        if event.billed_usd is not None and event.to is not State.FETCHING:
            self._billed += event.billed_usd
            self._bills += 1
        if event.kind:
            self._kinds[event.kind] += 1
            self._last = event.message or ""
        self._meter.take(self._now(), self._settled)

    @property
    def _settled(self) -> int:
        return sum(self.states[state] for state in SETTLED)

    def board(self) -> Board:
        """Return where the run stands now."""
        now, states = self._now(), dict(self.states)
        started = self._started
        settled = sum(states.get(state, 0) for state in SETTLED)
        to_come, cost = self._money(states)
        lately, whole = self._meter.lately(now, settled), self._meter.whole(now, settled)
        trouble = [self._silence] if self._silence else []
        if self._stopping:
            trouble.append(self._stopping)
            to_come = sum(states.get(state, 0) for state in (State.SUBMITTING, State.RUNNING, State.FETCHING))
            cost = replace(cost, end=None)
        elif to_come < sum(states.values()) - settled:
            trouble.append(f"the limit pays for about {to_come:,} more of {sum(states.values()) - settled:,}")
        if self._hold and now < self._hold[0]:
            until, why, reached = self._hold
            trouble.append(held(why, until - now, reached=reached))
        if self._waits:
            trouble.append(waiting(len(self._waits), next(reversed(self._waits.values()))))
        ceiling = started.concurrency if started else 0
        return Board(
            name=started.name if started else "",
            where=named(started.provider, started.vendor) if started else "",
            rehearsal=bool(started and started.provider == SANDBOX),
            states=states,
            elapsed=now - self._meter.begun,
            rate=lately.rate,
            left=left(to_come, lately, whole),
            money=cost,
            ceiling=ceiling,
            window=self._window if self._window is not None and self._window < ceiling else None,
            holds=self._holds,
            stopping=bool(self._stopping),
            trouble=tuple(trouble),
            kinds=dict(self._kinds),
            last=self._last,
        )

    def _money(self, states: dict[str, int]) -> tuple[int, Money]:
        """Return how many more jobs there is money for, and what it may cost at the end.

        What was billed here may tell more of the rest than the estimate does.
        """
        to_come = sum(states.get(state, 0) for state in State if state not in SETTLED)
        if self._started is None:
            return to_come, Money()
        spent, rest = self._started.billed_usd + self._billed, self._started.left_usd
        at_first = sum(self._started.states.get(state, 0) for state in State if state not in SETTLED)
        limit = self._started.limit_usd
        if rest is None or not at_first:
            return to_come, Money(spent, None, limit)
        estimate = rest / at_first
        each = self._billed / self._bills if self._bills else estimate
        end = expected_end(to_come, estimate, each, spent, limit)
        return end.jobs, Money(spent, (end.least, end.most), limit)


def _of_job(event: Event) -> str:
    """Return what became of a job that has settled; an empty text for any other event."""
    if not isinstance(event, Moved) or event.to not in SETTLED:
        return ""
    why = f": {event.kind}: {event.message}" if event.kind else ""
    bill = "" if event.billed_usd is None else f", {money(event.billed_usd)}"
    return plain(f"{event.name} {event.to}{bill} (job {event.job_id}, request {event.request_id or 'none'}){why}")


def _changed(settings: Mapping[str, str]) -> str:
    return "set until this run ends: " + ", ".join(f"{name} = {value}" for name, value in settings.items())


class PlainProgress:
    """Plain lines: at the start, each ten seconds, at trouble, at the end; `verbose`: for each job that settles."""

    def __init__(self, stream: TextIO, now: Now, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._stream = stream
        self._now = now
        self._tally = Tally(now)
        self._last = now()

    def __call__(self, event: Event) -> None:
        """Print progress if it is due."""
        self._tally.take(event)
        if self._verbose and (said := _of_job(event)):
            print(said, file=self._stream, flush=True)
        match event:
            case Started(name=name, provider=provider, vendor=vendor, states=states):
                self._say(f"{name} on {named(provider, vendor)}: {counts(states)}")
            case Held(why=why, seconds=seconds, reached=reached):
                self._say(held(why, seconds, reached=reached))
            case Warned(message=message) | Silence(message=message):
                self._say(f"warning: {message}")
            case Changed(settings=settings):
                self._say(_changed(settings))
            case Ended() | Noted():
                pass
            case _ if self._now() - self._last >= EVERY:
                self._say(line(self._tally.board()))

    def tick(self) -> None:
        """Print progress where nothing was printed for long: something is waited for."""
        if self._now() - self._last >= LONGEST:
            self._say(line(self._tally.board()))

    def _say(self, text: str) -> None:
        self._last = self._now()
        print(plain(text), file=self._stream, flush=True)


class LiveBoard:
    """A board that is redrawn in place, on a terminal; `verbose`: a line above it for each job that settles."""

    def __init__(self, console: Console, now: Now, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._tally = Tally(now)
        self._console = console
        self._live = Live(
            console=console,
            get_renderable=self._drawn,
            refresh_per_second=_REDRAWN,
            transient=True,
            redirect_stdout=False,
        )

    def __call__(self, event: Event) -> None:
        """Update what is drawn with an event."""
        self._tally.take(event)
        if self._verbose and (said := _of_job(event)):
            self._console.print(said, markup=False, highlight=False)
        match event:
            case Started():
                self._live.start()
            case Warned(message=message) | Silence(message=message):
                self._console.print(plain(f"warning: {message}"), markup=False, highlight=False)
            case Changed(settings=settings):
                self._console.print(plain(_changed(settings)), markup=False, highlight=False)
            case Ended():
                self._live.stop()
            case _:
                pass

    def tick(self) -> None:
        """Do nothing: it is redrawn by itself."""

    def _drawn(self) -> RenderableType:
        return drawn(self._tally.board(), self._console.width)


class Notebook:
    """A board in the cell of a notebook, drawn again in its place."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._tally = Tally(now)
        self._drawn_at = -math.inf
        self._shown: Any = None
        """The handle of what is shown, which IPython knows how to draw again."""

    def __call__(self, event: Event) -> None:
        """Process an event; draw the board if it is due."""
        self._tally.take(event)
        if isinstance(event, Started | Ended) or self._now() - self._drawn_at >= 1 / _REDRAWN:
            self._draw()

    def tick(self) -> None:
        """Draw it where nothing happened for a while."""
        self._draw()

    def _draw(self) -> None:
        from IPython.display import display

        self._drawn_at = self._now()
        text = io.StringIO()
        console = Console(file=text, width=_NOTEBOOK_WIDTH, force_jupyter=False)
        console.print(drawn(self._tally.board(), console.width))
        board = {"text/plain": text.getvalue()}
        if self._shown is None:
            self._shown = display(board, raw=True, display_id=True)
        else:
            self._shown.update(board, raw=True)


Progress = PlainProgress | LiveBoard | Notebook


def listener(now: Now, *, verbose: bool = False) -> Progress:
    """Return what suits standard error: a board on a terminal, else lines. `now` in seconds."""
    console = Console(file=getattr(sys.stderr, "untamed", sys.stderr))
    if console.is_jupyter:
        return Notebook(now)
    on_terminal = console.is_terminal and not console.is_dumb_terminal
    return LiveBoard(console, now, verbose=verbose) if on_terminal else PlainProgress(sys.stderr, now, verbose=verbose)
