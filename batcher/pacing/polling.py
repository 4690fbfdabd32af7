"""When a running job is looked at next, from what earlier ones took. Times are seconds."""

from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_SHORTEST: Final = 0.1
_LONGEST: Final = 15.0
_FIRST_GUESS: Final = 1.0
_AWAITED: Final = 40


@dataclass(slots=True)
class Latencies:
    """What the last jobs took from acceptance to their end, sorted."""

    keep: int = 200
    _recent: deque[float] = field(default_factory=deque)
    _sorted: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        """Learn one more."""
        self._recent.append(seconds)
        insort(self._sorted, seconds)
        if len(self._recent) > self.keep:
            self._sorted.remove(self._recent.popleft())

    def quantile(self, share: float) -> float | None:
        """Give the latency that this share of jobs came under; None before three are known."""
        if len(self._sorted) < 3:  # noqa: PLR2004
            return None
        return self._sorted[min(len(self._sorted) - 1, int(share * len(self._sorted)))]


def next_look(age: float, known: Latencies, *, awaited: bool = False) -> float:
    """Give the wait before a job of this age is looked at (again).

    `awaited`: the server takes the next job only when this one, or another, has ended: it is looked at more often.

    The first look comes when few jobs would be done; then a job that may end at any moment is looked at each
    eighth of the usual latency, and one that is late ever more rarely, by a tenth of its age.
    """
    usual, early = known.quantile(0.5), known.quantile(0.15)
    if usual is None or early is None:
        wait = max(_FIRST_GUESS / 4, age * 0.25) if age > 0 else _FIRST_GUESS / 2
    elif age < early:
        wait = early - age
    else:
        wait = max(usual / (_AWAITED if awaited else 8), (age - usual) * (0.02 if awaited else 0.1))
    return min(_LONGEST, max(_SHORTEST, wait))
