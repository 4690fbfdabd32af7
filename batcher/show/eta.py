"""How fast a run goes, and how long it may still take: as a range, for it is a guess. Seconds throughout; pure."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

RECENT: Final = 60.0
"""Seconds that count as lately."""
_FEW: Final = 5
"""Jobs that must have settled lately for a range to be told."""
_BRIEF: Final = 2.0
"""Seconds: a shorter time tells no pace."""
_UNSURE: Final = 0.75
"""The largest relative error that a range is widened by."""
_NINE_IN_TEN: Final = 1.65
"""Standard deviations."""


@dataclass(frozen=True, slots=True)
class SettledCount:
    """So many jobs came to rest in so many seconds."""

    jobs: int
    seconds: float

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return max(0.0, self.jobs / self.seconds) if self.seconds > 0 else 0.0


def left(jobs: int, lately: SettledCount, whole: SettledCount) -> tuple[float, float] | None:
    """Return the least and the most time that so many jobs may take; None where it cannot be told.

    It is told by the pace of late and by that of the whole run, whichever is quicker and slower, each with the error
    that counts have by chance, of the jobs behind and of those to come. It holds in nine cases of ten.
    """
    if not jobs:
        return (0.0, 0.0)
    if lately.jobs < _FEW or lately.seconds < _BRIEF or whole.rate <= 0:
        return None
    error = min(_UNSURE, _NINE_IN_TEN * (1 / lately.jobs + 1 / jobs) ** 0.5)
    quick, slow = max(lately.rate, whole.rate), min(lately.rate, whole.rate)
    return jobs / (quick * (1 + error)), jobs / (slow * (1 - error))


@dataclass(slots=True)
class RateMeter:
    """Remembers how many jobs were at rest when, about once a second for a minute."""

    begun: float
    first: int
    """At rest already when it began."""
    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def take(self, now: float, settled: int) -> None:
        """Record how many jobs have settled by now."""
        if not self._marks or now - self._marks[-1][0] >= 1:
            self._marks.append((now, settled))
        while len(self._marks) > 1 and self._marks[1][0] <= now - RECENT:
            self._marks.popleft()

    def lately(self, now: float, settled: int) -> SettledCount:
        """Count the last minute."""
        at, then = self._marks[0] if self._marks else (self.begun, self.first)
        return SettledCount(settled - then, now - at)

    def whole(self, now: float, settled: int) -> SettledCount:
        """Count from the beginning."""
        return SettledCount(settled - self.first, now - self.begun)
