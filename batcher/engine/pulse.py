"""Notices that nothing could be heard for a while: the lid was shut, the process stopped, or the loop was busy."""

import asyncio
from collections.abc import Callable
from typing import Final

from batcher.clock import Clock

EVERY: Final = 1.0
GAP: Final = 5.0
"""Seconds that are noticed."""


class Pulse:
    """Beats each second. `noticed(seconds)` is told of a gap: the seconds by which the loop's clock went on in it.

    A beat is a plain timer, so that it comes before the time-outs that fell due in the gap, and can put them off.
    """

    def __init__(self, clock: Clock, noticed: Callable[[float], None]) -> None:
        self._clock = clock
        self._noticed = noticed
        self._loop = asyncio.get_running_loop()
        self._last = (self._loop.time(), clock.now())
        self._timer = self._loop.call_later(EVERY, self._beat)

    def _beat(self) -> None:
        now, wall = self._loop.time(), self._clock.now()
        passed, passed_on_the_wall = now - self._last[0], wall - self._last[1]
        self._last = (now, wall)
        self._timer = self._loop.call_later(EVERY, self._beat)
        if passed - EVERY > GAP or passed_on_the_wall - passed > GAP:
            self._noticed(max(0.0, passed - EVERY))

    def stop(self) -> None:
        """Beat no more."""
        self._timer.cancel()
