"""When each job at the server is gone on with: one timer for all, and a few words for each."""

import asyncio
import math
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

_STALE: Final = 64
"""Entries of jobs that are due at another time by now, beside those that count, before they are swept out."""


class Agenda:
    """Keeps jobs that wait, and calls `due(job_id)` when the time of each has come. Times are loop seconds."""

    def __init__(self, due: Callable[[str], None]) -> None:
        self._due = due
        self._when: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []
        """The same, soonest first, with entries that do not count any more."""
        self._numbers = count()
        self._timer: asyncio.Handle | None = None
        self._rings_at = math.inf

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._when

    def put(self, job_id: str, when: float) -> None:
        """Call when that time has come, and not at a time that was named before."""
        number = next(self._numbers)
        self._when[job_id] = (when, number)
        heappush(self._heap, (when, number, job_id))
        if len(self._heap) > 2 * len(self._when) + _STALE:
            self._heap = [(*entry, job_id) for job_id, entry in self._when.items()]
            heapify(self._heap)
        self._wind()

    def drop(self, job_id: str) -> None:
        """Do not call for this job."""
        self._when.pop(job_id, None)

    def close(self) -> None:
        """Call for none."""
        self._when.clear()
        self._heap.clear()
        if self._timer:
            self._timer.cancel()
        self._timer, self._rings_at = None, math.inf

    def _wind(self) -> None:
        soonest = self._heap[0][0]
        if soonest < self._rings_at:
            if self._timer:
                self._timer.cancel()
            self._rings_at = soonest
            self._timer = asyncio.get_running_loop().call_at(soonest, self._ring)

    def _ring(self) -> None:
        self._rings_at, now = math.inf, asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            when, number, job_id = heappop(self._heap)
            if self._when.get(job_id) == (when, number):
                del self._when[job_id]
                self._due(job_id)
        if self._heap:
            self._wind()
