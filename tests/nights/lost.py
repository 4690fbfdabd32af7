"""Nights in which a tenth of all answers to submissions are lost, at each provider: what becomes of what was bought.

Usage: python -m tests.nights.lost --count 200 --seed 1   (each night is played at every provider)
At a provider that lists past requests none of them may stay uncertain that the list shows, and none may be another run's.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from batcher.job import State
from batcher.ledger.reader import Reader
from batcher.provider import PROVIDERS
from tests.nights.play import MEMORY, Scenario, entries, findings, fork_life, strangers_of, warm_up

SHARE = 0.1
"""Of answers to submissions that are lost after the job was accepted."""


def scenario(seed: int, protocol: str) -> Scenario:
    """Draw a night: the same at each provider, with another run that asks for the same, and up to two deaths."""
    chance = Random(seed)
    return Scenario(
        protocol=protocol,
        jobs=chance.randint(10, 40),
        seed=seed,
        slots=chance.randint(2, 8),
        concurrency=chance.randint(2, 16),
        kills=[chance.randint(20, 400) for _ in range(chance.choice([0, 0, 1, 2]))],
        mishaps={"lose": SHARE},
        strangers=chance.choice([0.0, 2.0]),
        list_lag=chance.choice([0.0, 10.0]),
    )


def play(night: Scenario) -> Counter[str]:
    """Play a night; count what was lost, and what became of it."""
    counts: Counter[str] = Counter(nights=1, jobs=night.jobs)
    with tempfile.TemporaryDirectory(prefix="night-", dir=MEMORY) as name:
        folder = Path(name)
        for number, kill in enumerate([*night.kills, None]):
            code, _ = fork_life(night, folder, number, kill)
        strikes = folder / "strikes"
        counts["lost answers"] = strikes.read_text().split().count("lose") if strikes.exists() else 0
        counts["promises broken"] = len(findings(night, folder, killed=bool(night.kills), code=code))
        others, bought = strangers_of(folder), Counter[str]()
        for entry in entries(folder / "journal"):
            if "inputs" in entry and entry["id"] not in others:
                bought[entry["inputs"]["prompt"]] += 1
        counts["bought twice"] = sum(count > 1 for count in bought.values())
        with Reader(folder / "out") as reader:
            for job, _ in reader.jobs():
                counts["uncertain left"] += job.state is State.UNCERTAIN and bought[str(job.spec.inputs["prompt"])] > 0
                counts["of another run"] += job.request_id in others
    return counts


def main() -> int:
    options = argparse.ArgumentParser(
        prog="scripts/lost", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--count", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    said = options.parse_args()
    warm_up()
    begun, broken = time.monotonic(), 0
    columns = ["nights", "jobs", "lost answers", "uncertain left", "bought twice", "of another run", "promises broken"]
    print(f"{'':<10}" + "".join(f"{column:>16}" for column in columns))
    for name, api in PROVIDERS.items():
        total = Counter[str]()
        for seed in range(said.seed, said.seed + said.count):
            total += play(scenario(seed, name))
        print(f"{name:<10}" + "".join(f"{total[column]:>16,}" for column in columns), flush=True)
        broken += total["promises broken"] + total["bought twice"] + total["of another run"]
        broken += total["uncertain left"] if api.history else 0
    print(f"({time.monotonic() - begun:.0f} s)")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
