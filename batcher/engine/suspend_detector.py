"""Notices that the process was suspended for a while: the lid was shut, it was stopped, or the loop was blocked."""

import asyncio
from collections.abc import Callable
from typing import Final

from batcher.clock import Clock

EVERY: Final = 1.0
"""Seconds between two looks."""
GAP: Final = 5.0
"""Seconds that count as a suspension: a busy loop is late by less."""


class SuspendDetector:
    """Looks at both clocks each second, and calls `noticed(seconds)` after a gap, with the loop's seconds in it.

    It uses a plain timer, so that it runs before the time-outs that fell due in the gap, and can put them off.
    """

    def __init__(self, clock: Clock, noticed: Callable[[float], None]) -> None:
        self._clock = clock
        self._noticed = noticed
        self._loop = asyncio.get_running_loop()
        self._last = (self._loop.time(), clock.now())
        self._timer = self._loop.call_later(EVERY, self._look)

    def _look(self) -> None:
        now, wall = self._loop.time(), self._clock.now()
        passed, passed_on_the_wall = now - self._last[0], wall - self._last[1]
        self._last = (now, wall)
        self._timer = self._loop.call_later(EVERY, self._look)
        if passed - EVERY > GAP or passed_on_the_wall - passed > GAP:
            self._noticed(max(0.0, passed - EVERY))

    def stop(self) -> None:
        """Look no more."""
        self._timer.cancel()
