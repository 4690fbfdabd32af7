"""How long a silent or full server is waited for, and how the waits grow. Times are loop seconds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tenacity import RetryCallState

from batcher.clock import Chance

LONGEST: Final = 60.0
"""Seconds: the longest wait between two tries."""
TELL_AFTER: Final = 20.0
"""Seconds of silence before the user is told of it."""


def growing(chance: Chance) -> Callable[[RetryCallState], float]:
    """Return how long tenacity waits before each next try."""
    return lambda state: backoff(state.attempt_number - 1, chance)


def backoff(tries: int, chance: Chance, first: float = 0.5, longest: float = LONGEST) -> float:
    """Return the wait before the next try, in seconds: doubled each time up to a minute, spread by a half."""
    return float(min(longest, first * 2.0 ** min(tries, 20)) * chance.uniform(0.75, 1.25))


@dataclass(slots=True)
class Outage:
    """Since when nothing useful came from the server."""

    limit: float
    """Seconds."""
    since: float | None = None
    why: str = ""
    told: bool = False
    """The user knows of this silence."""

    def record_trouble(self, now: float, why: str) -> None:
        """Record that the server gave nothing useful."""
        self.why = why
        if self.since is None:
            self.since = now

    def record_answer(self) -> None:
        """Record a useful answer."""
        self.since = None

    def to_tell(self, now: float) -> bool:
        """Say, once for each silence, that it has lasted long enough to be told."""
        if self.told or self.since is None or now - self.since < TELL_AFTER:
            return False
        self.told = True
        return True

    def over(self) -> bool:
        """Say, once, that a silence which was told is over."""
        ended = self.told and self.since is None
        if ended:
            self.told = False
        return ended

    def exhausted(self, now: float) -> bool:
        """Return whether it has lasted longer than the user would wait."""
        return self.since is not None and now - self.since >= self.limit

    def next_check(self, now: float) -> float | None:
        """Return the seconds until this silence is to be told, or has lasted too long; None where there is none."""
        if self.since is None:
            return None
        lasts = now - self.since
        untold = not self.told and lasts < TELL_AFTER
        return max(0.01, (min(TELL_AFTER, self.limit) if untold else self.limit) - lasts)

    def shift(self, seconds: float) -> None:
        """Leave out a time in which nothing could be heard."""
        if self.since is not None:
            self.since += seconds
