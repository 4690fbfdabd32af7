"""How many jobs may be in flight. Times are loop seconds."""

from dataclasses import dataclass, field
from typing import Final

_LONE_REFUSALS: Final = 3


@dataclass(slots=True)
class Window:
    """Additive growth up to the user's ceiling, cut to what the server holds when it turns a submission away.

    A server that limits outstanding requests answers 429 until one ends: the number it has accepted at that
    moment is its limit, so the window is cut to that once per hold, and grows from there by one a window's worth.
    """

    ceiling: int
    size: float = field(init=False)
    closed_until: float = 0.0
    holds: int = 0
    """In a row, without an acceptance between them."""
    lone_refusals: int = 0
    """In a row: of one job each, without an acceptance between them."""
    answered: bool = False
    """The server has said yes or no to a submission of this start: until then they go one at a time, so that a
    wrong token or an empty balance costs one request and not a window of them."""

    def __post_init__(self) -> None:
        self.size = float(self.ceiling)

    def widen(self, ceiling: int) -> None:
        """Take another ceiling; a window that a refusal has cut stays cut."""
        self.size = float(ceiling) if self.size >= self.ceiling else min(self.size, float(ceiling))
        self.ceiling = ceiling

    def room(self, in_flight: int, submitting: int, now: float) -> int:
        """Give how many more may be submitted now; after a hold, and at first, one at a time."""
        if now < self.closed_until:
            return 0
        room = max(0, int(self.size) - in_flight)
        return min(room, max(0, 1 - submitting)) if self.holds or not self.answered else room

    def accepted(self, in_flight: int) -> None:
        """Take note of an acceptance: where the window is well filled, it grows."""
        self.answered = True
        self.holds = self.lone_refusals = 0
        if in_flight >= self.size - 1:
            self.size = min(float(self.ceiling), self.size + 1 / self.size)

    def turned_down(self) -> None:
        """Take note of a clear no to one job."""
        self.answered = True

    def refused_alone(self) -> bool:
        """Take note of a refusal that speaks of one job; say whether so many came that everyone is to wait."""
        self.lone_refusals += 1
        return self.lone_refusals >= _LONE_REFUSALS

    def refused(self, held: int, now: float, wait: float) -> bool:
        """Take note of a refusal for everyone, with `held` jobs at the server; say whether a hold began."""
        if now < self.closed_until:
            return False
        self.holds += 1
        self.size = min(self.size, float(max(1, held)))
        self.closed_until = now + wait
        return True

    def opens_in(self, now: float) -> float:
        """Give the seconds until submissions may go on."""
        return max(0.0, self.closed_until - now)


@dataclass(slots=True)
class Rate:
    """Requests a second: submissions and polls share it, and one waits its turn in order of asking."""

    per_second: float | None
    _next: float = 0.0

    def delay(self, now: float) -> float:
        """Take the next turn; give the seconds until it comes."""
        if self.per_second is None:
            return 0.0
        turn = max(self._next, now)
        self._next = turn + 1 / self.per_second
        return turn - now
