"""Many jobs in flight under a budget of requests a second: our looks beside round robin, in simulated time."""

import heapq
import random
from collections import deque

from batcher.pacing.polling import Latencies, next_check
from batcher.pacing.window import Rate
from tests.bench.common import Line

IN_FLIGHT, MEDIAN, A_SECOND, SIGMA = 500, 30.0, 50.0, 0.5
ENDED, WARM = 8_000, 1_500


def ours(seed: int) -> tuple[float, float]:
    """Give the mean lag in seconds, and the requests a job, with the run's own deciders."""
    chance, rate, known = random.Random(seed), Rate(A_SECOND), Latencies()
    events: list[tuple[float, int, str, int]] = []
    begun: dict[int, tuple[float, float]] = {}
    lags: list[float] = []
    asked = turns = 0

    def then(at: float, what: str, job: int) -> None:
        nonlocal turns
        turns += 1
        heapq.heappush(events, (at, turns, what, job))

    def ask(now: float) -> float:
        nonlocal asked
        asked += 1
        return now + rate.delay(now)

    for job in range(IN_FLIGHT):
        then(ask(0.0), "accepted", job)
    while len(lags) < ENDED:
        now, _, what, job = heapq.heappop(events)
        if what == "accepted":
            begun[job] = (now, now + MEDIAN * chance.lognormvariate(0, SIGMA))
            then(now + next_check(0.0, known), "wanted", job)
        elif what == "wanted":
            then(ask(now), "looked", job)
        elif now < begun[job][1]:
            then(now + next_check(now - begun[job][0], known), "wanted", job)
        else:
            lags.append(now - begun[job][1])
            known.add(begun[job][1] - begun[job][0])
            ask(now)  # its result
            then(ask(now), "accepted", job)
    return sum(lags[WARM:]) / len(lags[WARM:]), asked / len(lags)


def round_robin(seed: int) -> tuple[float, float]:
    """Give the same for looking at each in turn as fast as the budget allows."""
    chance, turn, now, asked, waiting = random.Random(seed), deque[float](), 0.0, 0, IN_FLIGHT
    lags: list[float] = []
    while len(lags) < ENDED:
        now, asked = now + 1 / A_SECOND, asked + 1
        if waiting:
            waiting -= 1
            turn.append(now + MEDIAN * chance.lognormvariate(0, SIGMA))
        elif (ends := turn.popleft()) > now:
            turn.append(ends)
        else:
            lags.append(now - ends)
            waiting += 1
            now, asked = now + 1 / A_SECOND, asked + 1
    return sum(lags[WARM:]) / len(lags[WARM:]), asked / len(lags)


def lines() -> list[Line]:
    """Compare them."""
    (lag, requests), (theirs, their_requests) = (
        [sum(column) / 5 for column in zip(*(kind(seed) for seed in range(5)), strict=True)]
        for kind in (ours, round_robin)
    )
    return [
        Line(
            f"{IN_FLIGHT} in flight, {A_SECOND:.0f} requests a second: mean lag",
            f"{lag:.1f} s at {requests:.2f} requests",
            f"round robin {theirs:.1f} s at {their_requests:.2f}",
            f"{lag / theirs:.2f}",
            "<= 0.75",
            lag <= 0.75 * theirs,
        )
    ]
