"""What earlier work tells of work to come: its pace, the size of its files, and what was billed against estimates."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from batcher.errors import BatcherError
from batcher.ledger.reader import Reader
from batcher.money import BilledRatios, billed_ratios

_FEW: Final = 5
"""Jobs that must have ended for a run to tell a pace."""
_STRETCH: Final = 10.0
"""Seconds; stretches in which nothing ended are pauses, and say nothing of the pace."""


@dataclass(frozen=True, slots=True)
class RunHistory:
    """What a run directory tells. Bytes of a file on average, jobs a second while it was at work."""

    folder: Path
    jobs: int
    rate: float
    bytes_each: float | None


def past(out: Path, provider: str) -> RunHistory | None:
    """Return what the run directory itself tells, else the youngest one beside it that has done enough."""
    beside = sorted(out.parent.glob("*/ledger.sqlite"), key=lambda file: file.stat().st_mtime, reverse=True)
    for folder in [out, *(file.parent for file in beside[:20])]:
        if found := _of(folder, provider):
            return found
    return None


def _of(folder: Path, provider: str) -> RunHistory | None:
    try:
        with Reader(folder) as reader:
            if reader.meta().get("provider") != provider:
                return None
            pace, files = reader.ask("active", stretch=_STRETCH)[0], reader.ask("files")[0]
    except BatcherError:
        return None
    if pace["jobs"] < _FEW:
        return None
    each = files["bytes"] / files["files"] if files["files"] else None
    return RunHistory(folder, pace["jobs"], pace["jobs"] / (pace["stretches"] * _STRETCH), each)


def bills(out: Path, provider: str) -> BilledRatios:
    """Return what the run directory was billed so far against estimates, in its latest 200 jobs."""
    try:
        with Reader(out) as reader:
            return billed_ratios(reader.ask("bills") if reader.meta().get("provider") == provider else [])
    except BatcherError:  # there is none yet
        return billed_ratios([])
