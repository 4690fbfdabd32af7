"""When a running job is looked at next, from what earlier ones took. Times are seconds.

A look costs a request; a job that has ended and was not looked at yet waits, and that costs its lag. So a job is
looked at when the lag to be expected since the last look has grown to the price of a request. Where jobs end at a
steady rate `h` that is each sqrt(2 price / h); before the first of them can have ended, it is not at all.
"""

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist, linear_regression
from typing import Final

_SHORTEST: Final = 0.1
"""Seconds between two checks of a job, at least, where jobs take long enough."""
_OF_SHORT: Final = 0.01
"""Of the usual latency: the shortest wait of jobs that take less than ten seconds..."""
_SHORTEST_OF_ALL: Final = 0.03
"""... and of the shortest jobs."""
_LONGEST: Final = 15.0
"""But for jobs that usually take longer than this: they are looked at no more often than they take."""
_FIRST_LOOK: Final = 0.5
"""Seconds after which a job is first checked while nothing is known of latencies."""
_GROWTH: Final = 0.35
"""Of a job's age: the wait for its next check while nothing is known."""
_FEW: Final = 3
"""Latencies from which there is something to go by."""
_MANY: Final = 50
"""From so many on their own shape is believed; before, that of a log-normal."""
_KERNELS: Final = 50
"""Latencies, spread evenly over all that are known, that the shape is drawn from."""
_FAR: Final = 4.0
"""Standard deviations beyond which a normal distribution is taken for none or all."""
_ENOUGH: Final = 10
"""Latencies of a class from which it is told by its own."""
_POINTS: Final = 72
"""Points at which a distribution is kept."""
_SIGMA_OF_FEW: Final = 0.5
"""Spread of the latencies' logarithms that is assumed while few are known."""
_LATE: Final = 0.02
"""Of jobs may take far longer than any did: what is late is looked at ever more rarely, and never left alone."""
_UNHEARD: Final = 0.1
"""Jobs at work for longer than the usual latency, for each one that has ended, from which on they are reckoned with."""
_NORMAL: Final = NormalDist()
_GOLDEN: Final = 0.6180339887498949
"""The golden ratio's fraction: multiples of it fall evenly between 0 and 1."""
_HARDLY: Final = 1e-6
"""Probability below which the gap between two checks tells nothing."""
PRICE: Final = 0.018
"""Of a request, in usual latencies."""
PRICE_EMPTIED: Final = 0.035
"""Where the server's queue was seen to be empty, and had been seen full: it fills again soon."""
PRICE_QUEUED: Final = 0.11
"""While the server has others waiting: what has ended unnoticed keeps none of its slots idle."""
PRICE_DRAINING: Final = 0.2
"""While nothing waits to be submitted any more: a slot that falls free stays so, whenever that is seen."""
PRICE_LAST: Final = 0.008
"""While few are left, and nothing waits: the run ends with the last job that is seen to have ended."""
PRICE_AWAITED: Final = 0.001
"""While the server takes the next job only when one has been seen to end."""


@dataclass(frozen=True, slots=True)
class LatencyCdf:
    """How latencies are spread: the share of jobs that have ended at each of some ages, and its integral."""

    usual: float
    """The median."""
    ages: list[float]
    ended: list[float]
    area: list[float]

    def at(self, age: float) -> tuple[float, float]:
        """Return the share that has ended at this age, and the integral up to it."""
        place = bisect_right(self.ages, age) - 1
        if place >= len(self.ages) - 1:
            return self.ended[-1], self.area[-1] + self.ended[-1] * (age - self.ages[-1])
        width = self.ages[place + 1] - self.ages[place]
        far = age - self.ages[place]
        slope = (self.ended[place + 1] - self.ended[place]) / width
        share = self.ended[place] + slope * far
        return share, self.area[place] + (self.ended[place] + share) / 2 * far

    def lag(self, seen: float, age: float) -> float:
        """Return the lag to be expected of a job of this age that was last seen, unfinished, at the age `seen`."""
        ended, area = self.at(seen)
        return (self.at(age)[1] - area - ended * (age - seen)) / max(1e-9, 1.0 - ended)

    def look(self, seen: float, price: float) -> float:
        """Return the age at which a job last seen at the age `seen` has an expected lag of `price`."""
        ended, area = self.at(seen)
        wanted = price * max(1e-9, 1.0 - ended)
        low, high = seen, seen + max(self.usual, price)
        while self.at(high)[1] - area - ended * (high - seen) < wanted and high < seen + 1e6:
            low, high = high, seen + 2 * (high - seen)
        for _ in range(14):
            middle = (low + high) / 2
            if self.at(middle)[1] - area - ended * (middle - seen) < wanted:
                low = middle
            else:
                high = middle
        return high


def _nobody() -> list[float]:
    return []


@dataclass(slots=True)
class Latencies:
    """What the last jobs took from acceptance to their end; `at_work` gives ages at which others were seen at work."""

    keep: int = 200
    at_work: Callable[[], Sequence[float]] = _nobody
    _logs: deque[float] = field(default_factory=deque)
    _curve: LatencyCdf | None = None
    _fresh: int = 0
    _put: int = 0
    _learned: int = 0
    """All, also those that are not kept any more."""

    def add(self, seconds: float) -> None:
        """Learn one more."""
        self._logs.append(math.log(max(seconds, 1e-3)))
        self._fresh += 1
        self._learned += 1
        if len(self._logs) > self.keep:
            self._logs.popleft()

    def add_between(self, before: float, seen: float) -> None:
        """Learn one that was still at work at one age, and seen to have ended at the other: when is not known.

        Taken for its end, `seen` would make the next ones be looked at later, and so on for ever. So the end is put
        between the two, spread as the others are. While there are none, an end that may have been at any time, as of
        a job that an earlier process sent, says nothing.
        """
        if len(self._logs) < _FEW and seen > max(2 * before, 2 * _FIRST_LOOK):
            return
        self._put += 1
        share = self._put * _GOLDEN % 1
        between = before + share * (seen - before)
        if len(self._logs) >= _FEW and seen > 0:
            mean = sum(self._logs) / len(self._logs)
            spread = max(0.05, math.sqrt(sum((log - mean) ** 2 for log in self._logs) / len(self._logs)))
            low = _normal((math.log(before) - mean) / spread) if before > 0 else 0.0
            high = _normal((math.log(seen) - mean) / spread)
            if high - low > _HARDLY:
                place = min(max(low + share * (high - low), _HARDLY / 2), 1 - _HARDLY / 2)
                between = math.exp(mean + spread * _NORMAL.inv_cdf(place))
        self.add(min(max(between, before), seen))

    def __len__(self) -> int:
        return len(self._logs)

    @property
    def enough(self) -> bool:
        """Enough are known to say what to expect."""
        return len(self._logs) >= _FEW

    @property
    def curve(self) -> LatencyCdf | None:
        """How they are spread; None before three are known. It is drawn anew when a tenth of them is new."""
        if not self.enough:
            return None
        if self._curve is None or self._fresh * 10 >= len(self._logs):
            logs, ages = sorted(self._logs), self.at_work()
            if self._learned < len(ages):  # later those at work are as many as ever, and those that end are a sample
                logs = with_those_at_work(logs, ages)
            self._curve, self._fresh = _drawn(logs), 0
        return self._curve


@dataclass(slots=True)
class LatencyModels:
    """What jobs of each kind take: of one model and class, once enough of them are known; before, of all."""

    all: Latencies = field(default_factory=Latencies)
    under_way: Callable[[Hashable | None], Sequence[float]] = lambda _: ()
    """Gives the ages at which jobs of a kind, or all, that are at the server were last seen not to have ended."""
    _kinds: dict[Hashable, Latencies] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.all.at_work = lambda: self.under_way(None)

    def learn(self, kind: Hashable, seconds: float, before: float | None = None) -> None:
        """Learn from what one job took; `before`: its age when last seen at work, if `seconds` is a guess."""
        if kind not in self._kinds:
            self._kinds[kind] = Latencies(at_work=lambda: self.under_way(kind))
        for known in (self.all, self._kinds[kind]):
            if before is None:
                known.add(seconds)
            else:
                known.add_between(before, seconds)

    def of(self, kind: Hashable) -> Latencies:
        """Return what is to be expected of such a job."""
        own = self._kinds.get(kind)
        return own if own is not None and len(own) >= _ENOUGH else self.all


def with_those_at_work(logs: list[float], ages: Sequence[float]) -> list[float]:
    """Return as many latencies as are known, in logarithms, as they would be if those at work had ended too.

    The first of a thousand jobs to end are no sample of them: the others take longer, and would be looked at as if
    each were overdue. Each latency counts for those that were at work at that age (Kaplan and Meier, 1958); what lies
    beyond the last is drawn along a line through the known ones.
    """
    at_work = sorted(math.log(age) for age in ages if age > 0)
    count = len(logs)
    if len(at_work) - bisect_left(at_work, logs[count // 2]) <= count * _UNHEARD:
        return logs
    left, shares = 1.0, []
    for place, log in enumerate(logs):
        step = left / (count - place + len(at_work) - bisect_left(at_work, log))
        shares.append(1 - left + step / 2)
        left -= step
    scores = [_NORMAL.inv_cdf(min(share, 1 - 1e-9)) for share in shares]
    spread = _SIGMA_OF_FEW
    if count >= _ENOUGH and scores[0] < scores[-1]:
        spread = min(1.0, max(0.2, linear_regression(scores, logs).slope))
    middle = (sum(logs) - spread * sum(scores)) / count
    found: list[float] = []
    for place in range(count):
        share = (place + 0.5) / count
        after = bisect_left(shares, share)
        beyond = max(logs[-1], middle + spread * _NORMAL.inv_cdf(share))
        found.append(logs[after] if after < count else beyond)
    return found


def _drawn(logs: list[float]) -> LatencyCdf:
    """Draw the spread of latencies whose logarithms these are, in ascending order."""
    count = len(logs)
    mean = sum(logs) / count
    sigma = math.sqrt(sum((one - mean) ** 2 for one in logs) / (count - 1))
    if count < 10:  # noqa: PLR2004 - so few can lie close together by chance
        sigma = max(sigma, _SIGMA_OF_FEW * (10 - count) / 7)
    sigma = max(sigma, 0.02)
    between = min(sigma, (logs[3 * count // 4] - logs[count // 4]) / 1.34 or sigma)
    width = max(0.02, 0.9 * between * count**-0.2)
    lowest, highest = min(logs[0], mean - 3 * sigma) - 1e-3, max(logs[-1], mean + 3 * sigma) + math.log(8)
    some = logs[count % _KERNELS // 2 :: max(1, count // _KERNELS)]
    ages, ended, area = [0.0], [0.0], [0.0]
    for point in range(_POINTS):
        log = lowest + (highest - lowest) * point / (_POINTS - 1)
        share = _normal((log - mean) / sigma) if count < _MANY else _density(log, some, width)
        share = max(ended[-1], (1 - _LATE) * share + _LATE * _normal((log - mean) / max(1.2, 2 * sigma)))
        ages.append(math.exp(log))
        area.append(area[-1] + (ended[-1] + share) / 2 * (ages[-1] - ages[-2]))
        ended.append(share)
    return LatencyCdf(math.exp(logs[count // 2]), ages, ended, area)


def _density(log: float, logs: Sequence[float], width: float) -> float:
    """Return the share below, each latency being spread by `width`."""
    share = 0.0
    for one in logs:
        far = (log - one) / width
        share += 1.0 if far > _FAR else 0.0 if far < -_FAR else _normal(far)
    return share / len(logs)


def _normal(x: float) -> float:
    return 0.5 + 0.5 * math.erf(x * 0.7071067811865476)


def next_check(age: float, known: Latencies, price: float = PRICE) -> float:
    """Return the wait before a job of this age, seen just now and not finished, is checked (again).

    `price`: of a request, in usual latencies. Before anything is known of them the waits grow with the age.
    """
    curve = known.curve
    if curve is None:
        return min(_LONGEST, max(_FIRST_LOOK, age * _GROWTH))
    wait = curve.look(age, price * curve.usual) - age
    shortest = min(_SHORTEST, max(_SHORTEST_OF_ALL, curve.usual * _OF_SHORT))
    return min(max(_LONGEST, curve.usual), max(shortest, wait))
