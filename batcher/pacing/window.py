"""How many jobs may be in flight, and how fast they may be submitted. Times are loop seconds.

A server that turns submissions away says only that it is too many, or too fast, and not which. It is the number
of requests outstanding that is too many where the next one is taken only after one has ended; where the next one is
taken although none had ended, it was too fast.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Final

_LONE_REFUSALS: Final = 3
"""Refusals of single jobs in a row, from which they are taken for one of all."""
_FIRST_PROBE: Final = 25
"""Acceptances before a limit that was met is tried again; twice as many each time that it still holds."""
_RAREST_PROBE: Final = 400
"""Acceptances between two tries of a limit, at most."""
_STEP: Final = 1.2
"""Factor by which a speed limit is tried higher, and cut where it is refused again soon."""
_FINE_STEP: Final = 1.03
"""The same once it is known well."""
_SOON: Final = 20.0
"""Seconds within which a second refusal speaks of the same limit."""
_NEARLY: Final = 1e-6
"""Of a token: so little is missing by rounding alone."""
_GROWTH: Final = 1.1
"""Factor by which a window grows once tries of one more were accepted several times."""
_AT_ONCE: Final = 4
"""Submissions on their way at first, and one more for each ten that were accepted: an unknown limit is met by few."""
_AT_ONCE_SHARE: Final = 10
"""Acceptances for each further submission that may be on its way at once."""
_AT_ONCE_MOST: Final = 200
"""Submissions on their way need a connection and its memory each, and more at once are hardly sooner accepted."""
_BEYOND: Final = 1.5
"""Factor above a number that is in doubt, up to which acceptances are awaited to clear it."""
_SAME: Final = 1.2
"""Factor within which two numbers of jobs count as the same limit."""
_REMEMBERED: Final = 100
"""Acceptances."""
_LONG: Final = 8
"""Acceptances at a pace that show that it is kept, and that a refusal was by chance."""
_TESTS: Final = 3
"""Refusals in a row, or at the same number of jobs, after which it is their number that is too many."""


@dataclass(slots=True)
class Window:
    """The user's ceiling, cut to what the server holds when it turns a submission away for everyone.

    A cut is remembered as the server's limit, and tried ever more rarely. How many submissions may be on their way
    at once grows with each that is accepted, so that a limit far below the ceiling is met by few at a time.
    """

    ceiling: int
    size: float = field(init=False)
    closed_until: float = 0.0
    holds: int = 0
    """In a row, without an acceptance between them."""
    silences: int = 0
    """The same, because the server was not reached."""
    lone_refusals: int = 0
    """In a row: of one job each, without an acceptance between them."""
    answered: bool = False
    """The server has said yes or no to a submission of this start: until then they go one at a time, so that a
    wrong token or an empty balance costs one request and not a window of them."""
    by_speed: bool = False
    """The server counts submissions a second: a refusal is not for the number of jobs that it has."""
    _total: int = 0
    """Acceptances of this start."""
    _accepted: int = 0
    """Since the limit was met, or tried."""
    _probe_after: int = _FIRST_PROBE
    _probes_taken: int = 0
    """In a row: the server took one more than its limit was thought to be, or one had ended unnoticed."""
    _doubt: int = 0
    """Jobs that the server had when it first turned one away, while it is not known why; 0: no doubt."""

    _same: int = 0
    """Refusals at about that number of jobs, since then."""

    def __post_init__(self) -> None:
        self.size = float(self.ceiling)

    def widen(self, ceiling: int) -> None:
        """Change the ceiling; a window that a refusal has cut stays cut."""
        self.size = float(ceiling) if self.size >= self.ceiling else min(self.size, float(ceiling))
        self.ceiling = ceiling

    @property
    def limited(self) -> bool:
        """The server's own limit is what holds submissions back."""
        return self.size < self.ceiling

    def room(self, in_flight: int, submitting: int, now: float) -> int:
        """Return how many more may be submitted now; after a hold, and at first, one at a time."""
        if now < self.closed_until:
            return 0
        limit = self._enough_to_tell() if self._doubt else int(self.size) + self._probe()
        return min(max(0, limit - in_flight), max(0, self._at_once() - submitting))

    def _at_once(self) -> int:
        if self.holds or self.silences or self._doubt or not self.answered:
            return 1
        return 2 if self.limited else min(_AT_ONCE_MOST, _AT_ONCE + self._total // _AT_ONCE_SHARE)

    def _probe(self) -> int:
        return int(self.limited and self._accepted >= self._probe_after)

    def _enough_to_tell(self) -> int:
        """Return how many jobs show that it was not their number, though some may have ended unnoticed."""
        return min(self.ceiling, int(self._doubt * _BEYOND) + 2)

    def accepted(self, running: int) -> bool:
        """Record an acceptance with `running` jobs at the server; return whether it shows a limit of speed."""
        tells = bool(self._doubt) and running >= self._enough_to_tell()
        if tells:
            self.by_speed, self._doubt, self.size = True, 0, float(self.ceiling)
        elif running > self.size:
            if self._probe():
                self._probes_taken += 1
                self._accepted = 0
            grown = self.size * _GROWTH if self._probes_taken >= _TESTS else self.size + 1
            self.size = min(float(self.ceiling), max(float(running), grown))
        self.answered = True
        self.holds = self.silences = self.lone_refusals = 0
        self._accepted += 1
        self._total += 1
        return tells

    def turned_down(self) -> None:
        """Record a refusal of one job that has nothing to do with load."""
        self.answered = True

    def refused_alone(self) -> bool:
        """Record a refusal that speaks of one job; return whether there were so many that all are to wait."""
        self.lone_refusals += 1
        return self.lone_refusals >= _LONE_REFUSALS

    def unreached(self, now: float, wait: float) -> bool:
        """Record that the server was not reached, which says nothing of its limits; return whether a hold began."""
        if now < self.closed_until:
            return False
        self.silences += 1
        self.closed_until = now + wait
        return True

    def refused(self, running: int, now: float, wait: float) -> bool:
        """Record a refusal for everyone, with `running` jobs at the server; return whether a hold began."""
        running = max(1, running)
        if self._doubt:
            self._doubt = min(self._doubt, running)
        if now < self.closed_until:
            return False
        self.holds += 1
        self.closed_until = now + wait
        if self.by_speed and self.holds < _TESTS:
            return True
        if not self.limited and not self._doubt and not self.by_speed:
            self._doubt, self._same = running, 1  # before the window is cut it is found out whether it is to be
        elif self._doubt:
            self._same += running <= int(self._doubt * _SAME) + 1
            if self._same >= _TESTS or self.holds >= _TESTS:
                self.cut(running)
        else:
            self.cut(running)
        return True

    def cut(self, running: int) -> None:
        """Assume that the server holds so many jobs and no more."""
        if self._probe():  # the limit still holds
            self._probe_after = min(_RAREST_PROBE, self._probe_after * 2)
        self.size = min(self.size, float(max(1, self._doubt or running)))
        self._accepted = self._doubt = self._probes_taken = 0
        self.by_speed = False

    def opens_in(self, now: float) -> float:
        """Return the seconds until submissions may go on."""
        return max(0.0, self.closed_until - now)


@dataclass(slots=True)
class Speed:
    """How many submissions a second the server takes: no limit until it has said that they came too fast.

    A bucket that holds a second's worth. The rate at which it was too fast is remembered, kept a little below, and
    tried again ever more rarely.
    """

    per_second: float = math.inf
    _tokens: float = 1.0
    _at: float = 0.0
    _refused_at: float | None = None
    """First, while it is not known why; then of late."""
    _since_refusal: int = 0
    """Acceptances since the last refusal, whatever it was for."""
    cuts: int = 0
    """In a row, without the rate having been kept for a while between them."""
    _kept: int = 0
    """Acceptances at this rate."""
    _step: float = _STEP
    _probe_after: int = _LONG
    _forgiven: bool = False
    """A refusal came at this rate, after it had been kept for long."""
    _taken: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    """When the last acceptances came."""

    def accepted(self, now: float) -> None:
        """Record an acceptance; a limit that was kept for long enough is tried a little higher."""
        self._since_refusal += 1
        self._kept += 1
        self._taken.append(now)
        if self.per_second < 1:  # it keeps no reserve: the next must not come earlier after this one than it may
            self._tokens, self._at = min(self._tokens, 0.0), now
        if self._kept >= self._probe_after:
            self.cuts = 0
        if self._kept >= self._probe_after and math.isfinite(self.per_second):
            self.per_second *= self._step
            self._kept, self._forgiven = 0, False

    def too_fast(self, now: float, wait: float = 0.0) -> None:
        """Record that submissions came too fast, and that none is sent for `wait` seconds.

        What could have been sent in that time is not made up for: it is the reserve that the server has for
        submissions that reach it a little early.
        """
        soon = self._refused_at is not None and now - self._refused_at <= _SOON
        if not math.isfinite(self.per_second):
            self.per_second = (self._since_refusal + 1) / max(1.0, now - (self._refused_at or 0.0))
        elif soon or self._step > _FINE_STEP:  # by far, or twice in a short time
            least = self.per_second / (_STEP if soon else 2.0)
            self.per_second = max(least, min(self.per_second / _FINE_STEP, self._carried() or least))
            self._try_rarely()
        elif self._kept < _LONG or self._forgiven:
            self.per_second /= self._step
            self.cuts = 0
            self._try_rarely()
        else:  # kept for long: one came early by chance
            self._forgiven, self.cuts = True, 0
        self._refused_at, self._since_refusal = now, 0
        self.cuts += 1
        self._kept = 0
        self._tokens, self._at = float(wait > 0 and self.per_second < 1), now + wait

    def _carried(self) -> float:
        """Return the most a second that the server has shown to take, of late, beyond a second's worth at once."""
        most, last = 0.0, self._taken[-1] if self._taken else 0.0
        for count, at in enumerate(reversed(self._taken), start=1):
            if count >= _LONG:
                rate = count / (last - at + 1.0)
                most = max(most, rate if rate >= 1 else (count - 1) / max(1.0, last - at))
        return most

    def _try_rarely(self) -> None:
        self._step, self._probe_after = _FINE_STEP, min(_RAREST_PROBE, self._probe_after * 2)

    def forget(self) -> None:
        """Assume that the server's limit is not one of speed."""
        self.per_second, self.cuts, self._step, self._probe_after = math.inf, 0, _STEP, _LONG
        self._refused_at, self._forgiven = None, False

    def refused(self, now: float) -> None:
        """Record a refusal while it is not known whether the limit is one of speed."""
        if self._refused_at is None:
            self._refused_at, self._since_refusal = now, 0

    def room(self, now: float) -> int:
        """Return how many may leave now."""
        if not math.isfinite(self.per_second):
            return 1_000_000
        self._fill(now)
        return int(self._tokens + _NEARLY) if now >= self._at else 0

    def take(self, now: float, count: int) -> None:
        """Record that so many submissions leave."""
        if math.isfinite(self.per_second):
            self._fill(now)
            self._tokens -= count

    def opens_in(self, now: float) -> float:
        """Return the seconds until one more may leave."""
        if not math.isfinite(self.per_second):
            return 0.0
        self._fill(now)
        missing = 1 - self._tokens
        held = max(0.0, self._at - now)
        return held + max(0.01, missing / self.per_second) if missing > _NEARLY else held

    def _fill(self, now: float) -> None:
        if now > self._at:
            self._tokens = min(max(1.0, self.per_second), self._tokens + (now - self._at) * self.per_second)
            self._at = now


@dataclass(slots=True)
class Rate:
    """Requests a second: submissions and polls share it, and one waits its turn in order of asking."""

    per_second: float | None
    _next: float = 0.0

    def change(self, per_second: float | None) -> None:
        """Change the rate; turns that were given far ahead under a slower one do not hold up later ones."""
        if per_second != self.per_second:
            self.per_second, self._next = per_second, 0.0

    def delay(self, now: float) -> float:
        """Reserve the next turn; return the seconds until it comes."""
        if self.per_second is None:
            return 0.0
        turn = max(self._next, now)
        self._next = turn + 1 / self.per_second
        return turn - now
