"""Leaves a request for the run at work, and hears what came of it; where that run ends first, the command does it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.errors import CopyInUse, LedgerInUse, Refused
from batcher.ledger import asks

_EVERY: Final = 0.1


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a request. `by_run`: the run at work has done it."""

    facts: Mapping[str, Any]
    by_run: bool


async def do_or_leave(
    out: Path, ask: Mapping[str, object], do: Callable[[], Awaitable[Mapping[str, Any]]], wait: float = 30.0
) -> Said:
    """Do it, if no run holds the directory; else leave it to that run, and wait so many seconds for its answer.

    Raises Refused where the run says no, LedgerInUse where nobody answers: the request is then taken back.
    """
    while True:
        try:
            return Said(await do(), by_run=False)
        except CopyInUse:  # which reads no requests that are left here
            raise
        except LedgerInUse:
            file = asks.leave(out, ask)
        if said := await _answer(out, file, wait):
            return said


async def _answer(out: Path, file: Path, wait: float) -> Said | None:
    """Wait for the run's answer; None where the run has ended without one. Raises Refused, LedgerInUse."""
    from batcher.ledger.lock import is_locked

    for _ in range(int(wait / _EVERY)):
        await asyncio.sleep(_EVERY)
        if not file.exists():
            return _heard(out, file)
        if not is_locked(out):
            file.unlink(missing_ok=True)
            return None
    try:
        file.unlink()
    except FileNotFoundError:  # at the last moment
        return _heard(out, file)
    raise LedgerInUse(
        f"what is at work on {out} did not answer within {wait:g} s; the request was taken back",
        "a run answers once its manifest is expanded, other commands never do: try again in a while",
    )


def _heard(out: Path, file: Path) -> Said | None:
    """Give what came of it; None where whoever held the directory next took it away unread."""
    said = asks.heard(file)
    if said is None:
        return None
    if "do" in said:  # its own words
        raise LedgerInUse(
            f"what is at work on {out} has taken the request, and could not write what came of it",
            "is the disk full? `status` shows how the run stands",
        )
    if "error" in said:
        raise Refused(said["error"], said.get("hint", ""), int(said.get("exit_code", 70)))
    return Said(said, by_run=True)
