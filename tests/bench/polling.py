"""Polling against the true optimum, by dynamic programming over a distribution that is known to it and not to us."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from batcher.pacing.polling import Latencies, LatencyCdf, _normal, next_check
from tests.bench.common import Line

GRID = 700


@dataclass(frozen=True)
class Truth:
    """A distribution of service times: its curve, and draws from it."""

    name: str
    share: Callable[[float], float]
    draw: Callable[[random.Random], float]

    def curve(self) -> LatencyCdf:
        """Draw it finely; the median is 1."""
        ages, ended, area = [0.0], [0.0], [0.0]
        for point in range(GRID):
            ages.append(0.03 * 1000 ** (point / (GRID - 1)))
            ended.append(self.share(ages[-1]))
            area.append(area[-1] + (ended[-1] + ended[-2]) / 2 * (ages[-1] - ages[-2]))
        return LatencyCdf(1.0, ages, ended, area)


def log_normal(sigma: float) -> Truth:
    """Median 1."""
    return Truth(
        f"sigma {sigma}", lambda t: _normal(math.log(t) / sigma), lambda chance: chance.lognormvariate(0, sigma)
    )


def mix() -> Truth:
    """Two speeds: seven in ten around 0.8, the others around 3."""
    slow, fast = math.log(3.0), math.log(0.8)
    return Truth(
        "two speeds",
        lambda t: 0.7 * _normal((math.log(t) - fast) / 0.25) + 0.3 * _normal((math.log(t) - slow) / 0.25),
        lambda chance: chance.lognormvariate(fast if chance.random() < 0.7 else slow, 0.25),
    )


def optimum(curve: LatencyCdf, price: float) -> tuple[float, float, float]:
    """Give the least of price x requests + lag, with the requests and the lag that make it."""
    count = len(curve.ages)
    value, nexts = [0.0] * count, [count - 1] * count
    for here in range(count - 2, -1, -1):
        alive = 1.0 - curve.ended[here]
        if alive < 1e-7:
            value[here] = price
            continue
        best = math.inf
        for there in range(here + 1, count):
            lag = curve.area[there] - curve.area[here] - curve.ended[here] * (curve.ages[there] - curve.ages[here])
            if lag / alive > best:
                break
            cost = price + (lag + (1.0 - curve.ended[there]) * value[there]) / alive
            if cost < best:
                best, nexts[here] = cost, there
        value[here] = best
    times, here = [], 0
    while here < count - 1:
        here = nexts[here]
        times.append(curve.ages[here])
    return (value[0], *cost_of(times, curve))


def cost_of(times: list[float], curve: LatencyCdf) -> tuple[float, float]:
    """Give the requests and the lag of looking at these ages."""
    requests = lag = before = 0.0
    for time in times:
        alive = 1.0 - curve.at(before)[0]
        requests += alive
        lag += alive * curve.lag(before, time)
        before = time
    return requests, lag


def ours(known: Latencies, price: float, scale: float = 30.0) -> list[float]:
    """Give the ages at which a job is looked at that takes long; latencies are `scale` times those of the truth."""
    times, age = [], 0.0
    while age < 30 * scale:
        age += next_check(age, known, price)
        times.append(age / scale)
    return times


def compare(truth: Truth, price: float, known: int, rounds: int = 60) -> tuple[float, ...]:
    """Give (our cost / the optimum, our requests, our lag, the optimum's requests, its lag)."""
    curve = truth.curve()
    best, best_requests, best_lag = optimum(curve, price)
    requests = lag = 0.0
    for seed in range(rounds):
        chance, latencies = random.Random(seed), Latencies()
        for _ in range(known):
            latencies.add(30 * truth.draw(chance))
        one = cost_of(ours(latencies, price), curve)
        requests, lag = requests + one[0] / rounds, lag + one[1] / rounds
    return ((price * requests + lag) / best, requests, lag, best_requests, best_lag)


def best_fixed_interval(truth: Truth, price: float) -> float:
    """Give what looking at a fixed interval costs at the best, as a ratio to the optimum."""
    curve = truth.curve()
    least = optimum(curve, price)[0]
    costs = []
    for interval in (step / 50 for step in range(5, 60, 2)):
        requests, lag = cost_of([interval * turn for turn in range(1, int(30 / interval) + 1)], curve)
        costs.append(price * requests + lag)
    return min(costs) / least


def lines() -> list[Line]:
    """Compare with the optimum, and with the best fixed interval."""
    found = []
    for truth, known, most in (
        (log_normal(0.3), 30, 1.03),
        (log_normal(0.5), 30, 1.03),
        (log_normal(0.8), 30, 1.03),
        (mix(), 100, 1.05),
    ):
        price = 0.04
        ratio, requests, lag, least, least_lag = compare(truth, price, known)
        fixed = best_fixed_interval(truth, price)
        found.append(
            Line(
                f"polling, {truth.name}, {known} latencies known",
                f"{requests:.2f} requests, lag {lag:.1%}",
                f"optimum {least:.2f}, {least_lag:.1%}; fixed interval {fixed:.2f}",
                f"{ratio:.3f}",
                f"<= {most}",
                ratio <= most,
            )
        )
    return found
