"""Where a run stands, at a glance: the same lines for the run itself and for who looks at it from elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from batcher.job import SETTLED, FailureKind, State
from batcher.provider import FIRST
from batcher.settings import SANDBOX
from batcher.show.words import counts, duration, money
from batcher.terminal_text import plain

if TYPE_CHECKING:  # drawing needs rich, which takes a start 50 ms; saying where a run stands does not
    from rich.console import RenderableType
    from rich.table import Table

_NARROW: Final = 64
"""Columns from which a stage has its bar."""
_WIDE: Final = 120
"""Columns from which the last failure's words are shown."""
_SLOW: Final = 1.0
"""Jobs a second below which the rate is told by the minute."""
_UNSURE: Final = frozenset({FailureKind.LOST, FailureKind.CRASH})
"""Kinds of what is uncertain, and has not failed."""
_KINDS: Final = 4
"""Kinds of failures that are named."""


@dataclass(frozen=True, slots=True)
class Money:
    """What is spent, and what it may come to. USD."""

    billed: float = 0.0
    end: tuple[float, float] | None = None
    """The least and the most, once all is done."""
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """What is known of a run now. `states` and `total` are of the jobs that it works on; times in seconds."""

    name: str
    where: str
    """The provider, as it is to be called."""
    rehearsal: bool
    states: Mapping[str, int]
    elapsed: float | None = None
    rate: float = 0.0
    left: tuple[float, float] | None = None
    money: Money = Money()
    ceiling: int = 0
    """Jobs that may be at the server at once."""
    window: int | None = None
    """That the server was found to take, where it is fewer."""
    holds: int = 0
    """How often the server had no room."""
    stopping: bool = False
    """Nothing more is submitted, so that what is left is not what is worked on."""
    trouble: tuple[str, ...] = ()
    """What stands in the way now: an outage, a hold."""
    kinds: Mapping[str, int] = field(default_factory=dict)
    last: str = ""
    """Of the last failure, in the server's own words."""

    @property
    def total(self) -> int:
        """All jobs."""
        return sum(self.states.values())

    @property
    def settled(self) -> int:
        """Jobs at rest."""
        return sum(self.states.get(state, 0) for state in SETTLED)


def named(provider: str, vendor: str) -> str:
    """Return what a provider is called; `vendor`: whose protocol is spoken, and whom a sandbox stands in for."""
    if provider != SANDBOX:
        return provider.removeprefix("https://")
    return f"the sandbox {f'as {vendor} ' if vendor != FIRST else ''}(REHEARSAL)"


def rate_of(jobs_a_second: float) -> str:
    """Write a rate."""
    if jobs_a_second <= 0:
        return ""
    return f"{jobs_a_second:,.1f}/s" if jobs_a_second >= _SLOW else f"{jobs_a_second * 60:,.1f}/min"


def range_of(left: tuple[float, float] | None) -> str:
    """Write how long it may still take."""
    if left is None:
        return "time left not known yet"
    low, high = map(duration, left)
    return f"{low} left" if low == high else f"{low} to {high} left"


def _range(board: Board) -> str:
    return "" if board.stopping else range_of(board.left)


def bill(board: Board) -> str:
    """Write what it costs, so far and at the end."""
    cost = board.money
    billed = money(cost.billed)
    parts = [f"simulated cost {billed} so far" if board.rehearsal else f"{billed} billed so far"]
    if cost.end and board.settled < board.total:
        low, high = map(money, cost.end)
        parts.append(f"{low} at the end" if low == high else f"{low} to {high} at the end")
    if cost.limit is not None:
        parts.append(f"limit {money(cost.limit)}")
    return ", ".join(parts)


def line(board: Board) -> str:
    """Return it as one line, for where nothing can be redrawn."""
    share = f" ({100 * board.settled // board.total} %)" if board.total else ""
    parts = [f"{board.settled:,} of {board.total:,} settled{share}: {counts(board.states)}"]
    if board.settled < board.total:
        parts += [one for one in (rate_of(board.rate), _range(board)) if one]
    if board.money.billed or board.money.end:
        parts.append(bill(board))
    return "; ".join([*parts, *board.trouble])


def drawn(board: Board, width: int) -> "RenderableType":
    """Draw it, for a terminal of that many columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(expand=True)
    head.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True)
    title = Text(plain(board.name), style="bold", overflow="ellipsis", no_wrap=True)
    title.append(f" on {board.where}", style="not bold")
    head.add_row(title, duration(board.elapsed) if board.elapsed is not None else "")
    below = [Text(f"  {one}", overflow="fold") for one in (_range(board), bill(board)) if one]
    below += [Text(f"  ! {plain(one)}", style="yellow", overflow="ellipsis", no_wrap=True) for one in board.trouble]
    return Group(head, _stages(board, width), *below)


def _stages(board: Board, width: int) -> "Table":
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    has = board.states.get
    total = board.total
    at_server = has(State.SUBMITTING, 0) + has(State.RUNNING, 0)
    fetched = has(State.FETCHING, 0) + has(State.DONE, 0)
    window = f"of {board.ceiling:,}" if board.ceiling else ""
    if board.window is not None and board.window < board.ceiling:
        window += f", the server takes {board.window:,}"
    elif board.holds:
        window += f", held {board.holds:,}x"
    unsure = {kind: count for kind, count in board.kinds.items() if kind in _UNSURE}
    kinds = _kinds({kind: count for kind, count in board.kinds.items() if kind not in _UNSURE})
    rows = [
        ("submitted", total - has(State.PENDING, 0), total, "", "cyan"),
        ("running", at_server, board.ceiling or total, window, "cyan"),
        ("fetched", fetched, total, "", "cyan"),
        ("done", has(State.DONE, 0), total, rate_of(board.rate) if has(State.DONE) else "", "green"),
        ("failed", has(State.FAILED, 0), total, _shown(kinds, board.last, width), "red"),
        ("uncertain", has(State.UNCERTAIN, 0), total, _kinds(unsure), "yellow"),
    ]
    if has(State.CANCELLED, 0):
        rows.append(("cancelled", has(State.CANCELLED, 0), total, "", "yellow"))
    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(no_wrap=True)
    if width >= _NARROW:
        table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1 if width >= _NARROW else None, no_wrap=True, overflow="ellipsis")
    for name, count, of, note, colour in rows:
        style = colour if count else "dim"
        number = f"{count:,}/{total:,}" if name in {"submitted", "fetched", "done"} else f"{count:,}"
        bar = ProgressBar(total=max(of, 1), completed=count, complete_style=colour, finished_style=colour)
        cells = [
            Text(f"  {name}", style=style if name in {"failed", "uncertain"} else ""),
            bar,
            Text(number),
            Text(note),
        ]
        table.add_row(*(cells if width >= _NARROW else (cells[0], *cells[2:])))
    return table


def _kinds(kinds: Mapping[str, int]) -> str:
    """Write the kinds of failures, the most frequent first; a single one needs no number."""
    most = sorted(kinds.items(), key=lambda one: -one[1])[:_KINDS]
    return most[0][0] if len(most) == 1 else ", ".join(f"{count:,} {kind}" for kind, count in most)


def _shown(kinds: str, last: str, width: int) -> str:
    """Return the kinds of failures, and the last one's words where there is room."""
    return f"{kinds}; last: {plain(last)}" if kinds and last and width >= _WIDE else kinds
