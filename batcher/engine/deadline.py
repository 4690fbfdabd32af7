"""Ends submissions when the time set is over: after so long, or at a time of day on the machine's clock."""

import asyncio
from collections.abc import Callable
from typing import Final

from batcher.clock import Clock, next_at
from batcher.settings import Limits

_LOOK: Final = 15.0
"""Seconds between two looks at the machine's clock, which may be set, or go on while the machine sleeps."""


class Deadline:
    """Calls `reached(why)` once when `max_time` has passed since now, or `until` has come."""

    def __init__(self, clock: Clock, limits: Limits, reached: Callable[[str], None]) -> None:
        self._clock = clock
        self._reached = reached
        self._loop = asyncio.get_running_loop()
        self._passed: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None
        self._at: float | None = None
        self._until = limits.until
        if limits.max_time is not None:
            words = f"the time set, {limits.max_time:g} s, is over"
            self._passed = self._loop.call_later(limits.max_time, reached, words)
        if limits.until is not None:
            self._at = next_at(clock.now(), limits.until)
            self.look()

    def look(self) -> None:
        """Look whether the time of day has come; until then, look again by itself."""
        if self._at is None:
            return
        left = self._at - self._clock.now()
        if left <= 0:
            self._at = None
            self._reached(f"it is {self._until}, the time set")
            return
        if self._next:
            self._next.cancel()
        self._next = self._loop.call_later(min(left, _LOOK), self.look)

    def stop(self) -> None:
        """Look no more."""
        for timer in (self._passed, self._next):
            if timer:
                timer.cancel()
