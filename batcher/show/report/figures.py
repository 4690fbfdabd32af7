"""The charts of a run, from sums that the ledger makes: pace, time at the server, cost, failures."""

from dataclasses import dataclass
from typing import Final

from batcher.clock import rfc3339
from batcher.ledger.reader import Reader
from batcher.show.report import charts
from batcher.show.run_status import RunStatus
from batcher.show.words import duration, money

_STRETCHES: Final = 60
"""Bars or points of a chart over time, at most."""
_EACH: Final = 4
"""Jobs that a stretch of the pace should have on average."""
_SHORT: Final = 600.0
"""Seconds: a shorter run's times of day have their seconds."""
_BINS: Final = 30
"""Bars of a histogram."""
_SHARES: Final = (0.5, 0.95, 0.99)
"""Shares of the jobs whose longest time is named."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart, its heading, and what it says in a sentence. `svg` is empty where there is nothing to draw."""

    title: str
    svg: str
    says: str


def figures(reader: Reader, status: RunStatus) -> list[Figure]:
    """Draw what is known of a run's course."""
    span = reader.ask("span")[0]
    found = []
    if span["jobs"]:
        first, last = float(span["first"]), float(span["last"])
        found = [_pace(reader, span["jobs"], first, last), _latency(reader, span["jobs"]), _cost(reader, first, last)]
    return [*found, _failures(status)]


def _pace(reader: Reader, jobs: int, first: float, last: float) -> Figure:
    step = max((last - first) / min(_STRETCHES, max(3, jobs // _EACH)), 1e-3)
    rows = {row["stretch"]: row["jobs"] for row in reader.ask("finished_by", first=first, step=step)}
    per_minute = [(first + n * step, rows.get(n, 0) / step * 60) for n in range(max(rows) + 1)]
    took = last - first
    svg = charts.area(
        per_minute or [(first, 0.0)],
        label=f"Jobs finished a minute, over {duration(took)}",
        x=_clock(last - first),
        y=lambda value: f"{value:,.0f}",
    )
    return Figure(
        "Finished a minute", svg, f"{jobs:,} in {duration(took)}, {jobs / max(took, 1) * 60:,.0f} a minute on average"
    )


def _latency(reader: Reader, jobs: int) -> Figure:
    median, most, nearly_all = (_quantile(reader, jobs, share) for share in _SHARES)
    low = 0.0
    high = max(nearly_all * 1.1, 1e-3)
    width = (high - low) / _BINS
    rows = {row["bin"]: row["jobs"] for row in reader.ask("took_by", low=low, width=width, bins=_BINS)}
    svg = charts.histogram(
        [rows.get(n, 0) for n in range(_BINS)],
        low=low,
        high=high,
        label=f"Seconds from submission to completion: half within {median:.1f}, 95 % within {most:.1f}",
        x=lambda value: f"{value:,.0f} s",
    )
    return Figure("Time at the server", svg, f"half within {median:,.1f} s, 95 % within {most:,.1f} s")


def _quantile(reader: Reader, jobs: int, share: float) -> float:
    rows = reader.ask("quantile", place=min(jobs - 1, int(jobs * share)))
    return float(rows[0]["seconds"]) if rows else 0.0


_WHOLE: Final = 10.0
"""USD from which an axis shows no cents."""


def _cost(reader: Reader, first: float, last: float) -> Figure:
    step = max((last - first) / _STRETCHES, 1e-3)
    rows = {row["stretch"]: row["usd"] for row in reader.ask("spent_by", first=first, step=step)}
    total, points = 0.0, [(first, 0.0)]
    for n in range(max(rows, default=0) + 1):
        total += rows.get(n, 0.0)
        points.append((first + (n + 1) * step, total))
    svg = charts.area(
        points,
        label=f"Cost over time, {money(total)} at the end",
        x=_clock(last - first),
        y=lambda value: f"${value:,.0f}" if value >= _WHOLE else f"${value:,.4g}",
    )
    return Figure("Cost", svg, f"{money(total)} for what is done")


def _failures(status: RunStatus) -> Figure:
    errors = sorted(status.errors.items(), key=lambda item: -item[1])
    cancelled = status.states["cancelled"]
    rows = [(kind, float(count), f"{count:,}") for kind, count in errors]
    if cancelled:
        rows.append(("cancelled", float(cancelled), f"{cancelled:,}"))
    if not rows:
        return Figure("What went wrong", "", "No errors")
    svg = charts.bars(rows, label="Jobs that failed, are uncertain or were cancelled, by kind")
    return Figure("What went wrong", svg, f"{int(sum(count for _, count, _ in rows)):,} of {status.total:,}")


def _clock(span: float) -> charts.Say:
    """Return what writes a time of day, UTC, as exactly as so many seconds need."""
    end = 19 if span < _SHORT else 16
    return lambda at: f"{(rfc3339(at) or '')[11:end]} UTC"
