"""Leaves a request for the run at work, and sees it taken up; where that run ends first, the command does it itself."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar

from batcher.errors import LedgerInUse
from batcher.ledger import asks

T = TypeVar("T")
_LOOKS: Final = 20
_EVERY: Final = 0.25


async def do_or_leave(out: Path, ask: Mapping[str, object], do: Callable[[], Awaitable[T]]) -> T | None:
    """Do it, if no run holds the directory; else leave it to that run: None."""
    while True:
        try:
            return await do()
        except LedgerInUse:
            file = asks.leave(out, ask)
        if await _taken(out, file):
            return None


async def _taken(out: Path, file: Path) -> bool:
    """Wait a little for the run to take it up; False where the run has ended without doing so."""
    from batcher.ledger.lock import is_locked

    for _ in range(_LOOKS):
        await asyncio.sleep(_EVERY)
        if not file.exists():
            return True
        if not is_locked(out):
            file.unlink(missing_ok=True)
            return False
    return True
