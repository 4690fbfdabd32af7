"""Whole nights from their seeds: every fault, kills in every state, recovery killed too. Figures at the end.

Usage: python -m tests.nights.many --count 1000 --seed 1 [--workers 2] [--minutes 10]
A finding names its seed; `--count 1 --seed THAT` plays it again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from random import Random
from typing import Any

from batcher.job import State
from batcher.sandbox.faults import FAULTS, FaultPoint
from tests.nights.play import Scenario, play, warm_up

PATIENT = {"stuck", "gone", "file_gone", "no_output", "file_500"}
"""Faults that end a job only after minutes or an hour of simulated time."""
STATES = [State.PENDING, State.SUBMITTING, State.RUNNING, State.FETCHING, State.DONE]


def scenario(seed: int) -> Scenario:
    """Draw a night: its size, what goes wrong, and when it is killed."""
    chance = Random(seed)
    jobs = chance.randint(1, 10)
    kills = [_kill(chance, jobs) for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 5]))]
    outages = []
    if chance.random() < 0.2:
        begins = chance.uniform(0, 20)
        outages.append((begins, begins + chance.choice([5, 60, 600])))
    mishaps, capped = _faults(chance), chance.random() < 0.2
    if capped:  # bills that differ within a class can pass a cap by what is in flight, as is said
        mishaps.pop("bill_high", None)
    return Scenario(
        templates=chance.random() < 0.3,
        max_cost=round(chance.uniform(0.2, 1.5), 2) if capped else None,
        estimate=chance.choice([1.0, 0.5, 0.11]) if capped else 1.0,
        jobs=jobs,
        seed=seed,
        images=chance.choice([1, 1, 2]),
        slots=chance.randint(1, 6),
        concurrency=chance.randint(1, 12),
        kills=kills,
        signals=[chance.choice([0, 0, 0, chance.uniform(0, 15)]) for _ in kills],
        mishaps=mishaps,
        outages=outages,
        max_outstanding=chance.choice([0, 0, 0, 2, 5]),
        retry={"attempts": chance.choice([1, 1, 1, 3])},
        busy=chance.choice([0.0, 0.0, 0.001, 0.05]),
        timers_first=chance.random() < 0.5,
        **_provider(chance),
    )


def _provider(chance: Random) -> dict[str, Any]:
    """Choose whose API it is; where past requests are listed, also who else asks for the same, and how late it is."""
    if chance.random() < 0.55:
        return {}
    return {
        "protocol": "fal",
        "strangers": chance.choice([0.0, 0.0, 1.0, 5.0]),
        "own_seed": chance.random() < 0.3,
        "list_lag": chance.choice([0.0, 0.0, 10.0]),
    }


def _kill(chance: Random, jobs: int) -> int:
    """Choose an act, or a suspension point: anywhere, or soon after the start, where what was left is taken up."""
    if chance.random() < 0.3:
        return chance.choice([1, -1]) * chance.randint(1, 40)
    if chance.random() < 0.4:
        return -chance.randint(1, 120 + jobs * 90)
    return chance.randint(1, 30 + jobs * 45)


def _faults(chance: Random) -> dict[str, float]:
    """Choose some faults of each kind; together they never strike always."""
    found: dict[str, float] = {}
    for strikes in FaultPoint:
        names = [name for name, fault in FAULTS.items() if fault.strikes is strikes]
        if chance.random() < 0.75:
            for name in chance.sample(names, chance.randint(1, 3)):
                found[name] = round(chance.uniform(0.02, 0.1 if name in PATIENT else 0.25), 3)
    return found


def work(seeds: range, until: float) -> dict[str, Any]:
    """Play these nights one after the other; stop when the time is over."""
    total: dict[str, Any] = {"nights": 0, "deaths": 0, "jobs": 0, "findings": [], "pairs": {}}
    pairs: Counter[str] = Counter()
    warm_up()
    for seed in seeds:
        if time.monotonic() > until:
            break
        night = scenario(seed)
        found = play(night)
        total["nights"] += 1
        total["deaths"] += found["deaths"]
        total["jobs"] += night.jobs
        total["findings"] += [f"seed {seed}: {text}" for text in found["findings"]]
        pairs.update(f"{fault} {state}" for fault in found["strikes"] for state in found["states"])
    total["pairs"] = dict(pairs)
    return total


def missing(pairs: Counter[str]) -> list[str]:
    """Give the pairs of a fault and the state of a job at a death that were not reached."""
    return [pair for fault in FAULTS for state in STATES if (pair := f"{fault} {state.value}") not in pairs]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    options.add_argument(
        "--minutes", type=float, default=10_000.0, help="stop after these minutes, and say how many it were"
    )
    options.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    said = options.parse_args()
    until = time.monotonic() + said.minutes * 60
    seeds = range(said.seed, said.seed + said.count)
    if said.worker is not None:
        print(json.dumps(work(seeds[said.worker :: said.workers], until)))
        return 0
    begun = time.monotonic()
    command = [sys.executable, "-m", "tests.nights.many", *sys.argv[1:]]
    workers = [
        subprocess.Popen([*command, "--workers", str(said.workers), "--worker", str(n)], stdout=subprocess.PIPE)
        for n in range(said.workers)
    ]
    results = [json.loads(worker.communicate()[0]) for worker in workers]
    pairs = sum((Counter(result["pairs"]) for result in results), Counter[str]())
    findings = [text for result in results for text in result["findings"]]
    nights = sum(result["nights"] for result in results)
    print(
        f"{nights:,} nights of {said.count:,} (seeds from {said.seed}), {sum(r['jobs'] for r in results):,} jobs, "
        f"{sum(r['deaths'] for r in results):,} deaths, {time.monotonic() - begun:.0f} s"
    )
    unreached = missing(pairs)
    print(f"pairs of a fault and a state: {len(FAULTS) * len(STATES) - len(unreached)} of {len(FAULTS) * len(STATES)}")
    print(f"promises broken: {len(findings)}")
    for text in findings[:40]:
        print(f"  {text}")
    short = nights >= 3000 and unreached
    if short:
        print(f"never reached: {', '.join(unreached)}")
    return 1 if findings or short or not nights else 0


if __name__ == "__main__":
    sys.exit(main())
