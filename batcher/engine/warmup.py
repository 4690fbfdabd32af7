"""Which jobs are checked while nothing is known of latencies: a few scouts; the others wait for what these tell."""

from typing import Final

from batcher.engine.flight import Flight

SCOUTS: Final = 64
"""Jobs. A distribution has a usable 95th percentile from some sixty samples on."""
UNTOLD: Final = 20
"""Checks a second of the other jobs while the scouts tell nothing."""


class Warmup:
    """Holds jobs back from being checked until latencies are known.

    The first of many jobs tell how long all will take. If each were checked to find out, ten thousand jobs would be
    asked about thousands of times a minute.
    """

    def __init__(self) -> None:
        self.over = False
        """Enough is known: no job has to wait any more."""
        self._scouts = 0
        self._held = 0

    def hold(self, flight: Flight) -> float | None:
        """Return the seconds a job waits if the scouts tell nothing, or None if it is checked like any other."""
        if self.over or flight.is_scout:
            return None
        if self._scouts < SCOUTS:
            self._scouts += 1
            flight.is_scout = True
            return None
        self._held += not flight.is_held
        flight.is_held = True
        return self._held / UNTOLD

    def is_due(self, flight: Flight) -> None:
        """Record that a held job waits no longer."""
        self._held = max(0, self._held - flight.is_held)
        flight.is_held = False

    def ends(self) -> bool:
        """Return whether held jobs may go on now, because enough is known; True once."""
        ended = self.over and self._held > 0
        if ended:
            self._held = 0
        return ended

    def left(self, flight: Flight) -> None:
        """Record that a job is not checked any more: another one may be a scout in its place."""
        self._scouts -= flight.is_scout
        flight.is_scout = False
        self.is_due(flight)
