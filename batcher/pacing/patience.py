"""How long a silent or full server is waited for, and how the waits grow. Times are loop seconds."""

from dataclasses import dataclass
from typing import Final

from batcher.clock import Chance

LONGEST: Final = 60.0


def backoff(tries: int, chance: Chance, first: float = 0.5, longest: float = LONGEST) -> float:
    """Give the wait before the next try, in seconds: doubled each time up to a minute, spread by a half."""
    return float(min(longest, first * 2.0 ** min(tries, 20)) * chance.uniform(0.75, 1.25))


@dataclass(slots=True)
class Patience:
    """Since when nothing useful came from the server."""

    limit: float
    """Seconds."""
    since: float | None = None
    why: str = ""

    def strained(self, now: float, why: str) -> None:
        """Take note that the server gave nothing useful."""
        self.why = why
        if self.since is None:
            self.since = now

    def eased(self) -> None:
        """Take note of a useful answer."""
        self.since = None

    def exhausted(self, now: float) -> bool:
        """Say whether it has lasted longer than the user would wait."""
        return self.since is not None and now - self.since >= self.limit

    def shift(self, seconds: float) -> None:
        """Leave out a time in which nothing could be heard."""
        if self.since is not None:
            self.since += seconds
