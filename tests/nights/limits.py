"""How well a server's own limits are used: a cap of outstanding requests, and submissions a second, both unknown.

From the first 429 on, to when the last job was submitted: the share of what the server allows that was used, and the
share of submissions that it answered 429. Usage: python -m tests.nights.limits
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batcher.ledger.reader import Reader
from batcher.sandbox.world import RefusalReason, SubmissionRefused
from tests.nights.play import MEMORY, Life, Scenario


@dataclass(frozen=True)
class Used:
    share: float
    refused: float
    minutes: float
    requests_a_job: float


def measure(scenario: Scenario) -> Used:
    """Run a night, and look at it from the server's side."""
    refusals: list[float] = []
    submissions: list[float] = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        life = Life(scenario, Path(folder), 0, None)

        def watch(run: Any) -> None:
            submit = life.world.submit

            def noted(model: str, body: object, token: str, now: float, **more: Any) -> Any:
                came = submit(model, body, token, now, **more)
                submissions.append(now)
                if isinstance(came, SubmissionRefused) and came.why in {RefusalReason.OUTSTANDING, RefusalReason.RATE}:
                    refusals.append(now)
                return came

            life.world.submit = noted  # type: ignore[method-assign]

        life.before_work = watch
        try:
            code = life.loop.run_until_complete(life._run())
        finally:
            life.loop.close()
        assert code == 0, (code, _why(Path(folder)))
        begins, ends = refusals[0], submissions[-1]
        requests = [life.world.request(entry["id"]) for entry in life.world.journal]
        if scenario.rate:
            taken = sum(begins < entry["at"] <= ends for entry in life.world.journal)
            share = taken / ((ends - begins) * scenario.rate)
        else:
            held = sum(
                max(0.0, min(one.ended_at or ends, ends) - max(one.accepted_at, begins)) for one in requests if one
            )
            share = held / ((ends - begins) * scenario.max_outstanding)
        since = [one for one in submissions if one >= begins]
        return Used(share, len(refusals) / len(since), (ends - begins) / 60, life.world.calls / len(requests))


def _why(folder: Path) -> object:
    with Reader(folder / "out") as reader:
        return reader.stopped()


CASES: list[tuple[str, dict[str, Any]]] = [
    *(
        (
            f"cap of {cap} outstanding, {latency:g} s a job, concurrency {wide}",
            {"max_outstanding": cap, "latency": latency, "concurrency": wide, "slots": 64, "jobs": jobs},
        )
        for cap, latency, wide, jobs in (
            (5, 3.0, 32, 400),
            (5, 30.0, 32, 200),
            (12, 10.0, 128, 600),
            (40, 30.0, 256, 1200),
        )
    ),
    *(
        (
            f"{rate:g} submissions a second, {latency:g} s a job",
            {"rate": rate, "latency": latency, "concurrency": 256, "slots": 256, "jobs": jobs},
        )
        for rate, latency, jobs in ((2.0, 3.0, 500), (5.0, 10.0, 1200), (0.5, 20.0, 200))
    ),
]


def main() -> int:
    print(f"{'the server allows':<58} {'used':>6} {'429':>6} {'minutes':>8} {'requests a job':>15}")
    worst = True
    for name, more in CASES:
        used = measure(Scenario(seed=11, sigma=0.5, travel=0.005, **more))
        good = used.share >= 0.95 and used.refused < 0.05
        worst = worst and good
        print(
            f"{name:<58} {used.share:>6.1%} {used.refused:>6.1%} {used.minutes:>8.1f} {used.requests_a_job:>15.1f}{'' if good else '  (limit: 95 %, 5 %)'}"
        )
    return 0 if worst else 1


if __name__ == "__main__":
    sys.exit(main())
