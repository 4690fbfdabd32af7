"""A whole run in simulated time: its length beside the list schedule of the same service times, and its requests.

Here a job's CPU costs nothing and messages take 20 ms, so that what is measured is when jobs are sent and looked at.
"""

import heapq
import tempfile
from dataclasses import replace
from pathlib import Path

from batcher.sandbox.world import Request
from tests.bench.common import Line
from tests.nights.play import MEMORY, MODEL, Life, Scenario

OTHER = "google/nano-banana/pro/edit"
WARM = 100
MEDIAN, SIGMA = 30.0, 0.5


def ideal(requests: list[Request], slots: int) -> float:
    """Give how long it takes where each job takes the slot that is free first, in the order of acceptance."""
    free = [0.0] * slots
    for one in requests:
        heapq.heappush(free, heapq.heappop(free) + one.service)
    return max(free)


def measured(
    jobs: int, slots: int, window: int, latencies: dict[str, float] | None = None, warm: int = WARM
) -> tuple[float, float, float]:
    """Give (makespan / ideal, looks a job, share of slots busy while jobs waited), `warm` jobs being known.

    These are a run of their own, as in `pace`. A look is any request for a job that follows its submission.
    """
    scenario = Scenario(
        jobs=warm,
        seed=5,
        slots=slots,
        concurrency=window,
        latency=MEDIAN,
        sigma=SIGMA,
        mishaps={},
        latencies=latencies or {},
    )
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        whole = replace(scenario, jobs=warm + jobs)
        for number, one in enumerate((scenario, whole) if warm else (whole,)):
            life = Life(one, Path(folder), number, None)
            try:
                assert life.loop.run_until_complete(life._run()) == 0
                over = life.now()
            finally:
                life.loop.close()
    requests = sorted(life.world._requests.values(), key=lambda one: one.accepted_at)[warm:]
    begins, full = requests[0].accepted_at, max(one.started_at or 0.0 for one in requests)
    works = sum(
        max(0.0, min(full, one.started_at + one.service) - one.started_at) for one in requests if one.started_at
    )
    looks = sum(one.looks for one in requests) / jobs
    return (over - begins) / ideal(requests, slots), looks, works / (slots * (full - begins))


def lines() -> list[Line]:
    """Measure with the window a quarter above the slots, and equal to them, at 64 and at 512 slots; then two models."""
    found = []
    alone: dict[int, tuple[float, float, float]] = {}
    for jobs, slots in ((2_000, 64), (8_000, 512)):
        for window, most, asks, busiest, words in (
            (slots * 5 // 4, 1.02, 2.8, 0.99, "a quarter above the slots"),
            (slots, 1.08, 5.0, 0.0, "as many as slots"),
        ):
            span, each, busy = alone[window] = measured(jobs, slots, window)
            found.append(
                Line(
                    f"simulated: {jobs:,} jobs, {slots} slots, window {words}",
                    f"{span:.3f} at {each:.2f} looks, busy {busy:.3f}",
                    "list schedule 1.000",
                    f"{span:.3f}",
                    f"<= {most} at <= {asks}" + (f", >= {busiest}" if busiest else ""),
                    span <= most and each <= asks and busy >= busiest,
                )
            )
    for window, words in ((80, "a quarter above the slots"), (64, "as many as slots")):
        span, each, busy = measured(2_000, 64, window, {MODEL: MEDIAN / 2, OTHER: MEDIAN * 2})
        one, asks, _ = alone[window]
        found.append(
            Line(
                f"the same with two models, one four times as slow, in turns; window {words}",
                f"{span:.3f} at {each:.2f} looks, busy {busy:.3f}",
                f"one model {one:.3f} at {asks:.2f}",
                f"{span / one:.3f}, {each / asks:.3f}",
                "<= 1.10 both",
                span <= 1.1 * one and each <= 1.1 * asks,
            )
        )
    return found
