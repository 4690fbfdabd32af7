"""The few jobs that are looked at while nothing is known of latencies; the others wait for what these tell."""

import asyncio
from contextlib import suppress
from typing import Final

SCOUTS: Final = 64
UNTOLD: Final = 20
"""Of the others, looks a second while the scouts tell nothing."""


class Scouts:
    """Holds jobs back from being looked at until latencies are known.

    The first of many tell what all will take. Were each looked at to find it out, ten thousand would be asked for
    thousands of times a minute.
    """

    def __init__(self) -> None:
        self._jobs: set[str] = set()
        self._waits = 0
        self._known = asyncio.Event()

    def tell(self) -> None:
        """Let all go on: enough is known."""
        self._known.set()

    async def wait(self, job_id: str) -> None:
        """Return at once for a scout, or where enough is known; else wait for it, or for a turn to be looked at."""
        if self._known.is_set() or job_id in self._jobs:
            return
        if len(self._jobs) < SCOUTS:
            self._jobs.add(job_id)
            return
        self._waits += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._waits / UNTOLD):
                    await self._known.wait()
        finally:
            self._waits -= 1

    def ended(self, job_id: str) -> None:
        """Take note that a job is not looked at any more: another one may tell in its place."""
        self._jobs.discard(job_id)
