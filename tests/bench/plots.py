"""Curves instead of points: looks against lag, and length, CPU and memory of whole runs against the number of jobs.

Usage: scripts/plots [--jobs 100 1000 10000] [--simulated 100 1000 10000 100000]

Writes docs/images/*.svg. A hundred thousand jobs take a quarter of an hour in simulated time, and longer over HTTP.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

from batcher.pacing.polling import Latencies
from tests.bench.common import ROOT, ask, batcher, environment, far_side, write_manifest
from tests.bench.makespan import measured
from tests.bench.pace import of_script
from tests.bench.polling import cost_of, log_normal, optimum, ours

mpl.use("svg")
mpl.rcParams.update({"svg.hashsalt": "batcher", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
import matplotlib.pyplot as plt  # noqa: E402 - after the choice of what it draws with

SLOTS, MEDIAN = 64, 0.5
PRICES = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16)
LatencyCdf = list[tuple[float, float]]


@dataclass(frozen=True)
class Took:
    """One whole run: its length against the ideal one, requests and CPU (ms) a job, peak memory (MB)."""

    jobs: int
    span: float
    requests: float
    cpu: float
    peak: float


def front(sigma: float, rounds: int = 40) -> dict[str, LatencyCdf]:
    """Give (requests, lag in % of the median) of ours, of the optimum and of fixed intervals."""
    truth = log_normal(sigma)
    curve = truth.curve()
    found: dict[str, LatencyCdf] = {"optimum": [], "batcher, 30 latencies known": [], "fixed interval": []}
    for price in PRICES:
        _, requests, lag = optimum(curve, price)
        found["optimum"].append((requests, lag * 100))
        total = [0.0, 0.0]
        for seed in range(rounds):
            chance, known = random.Random(seed), Latencies()
            for _ in range(30):
                known.add(30 * truth.draw(chance))
            one = cost_of(ours(known, price), curve)
            total = [total[0] + one[0] / rounds, total[1] + one[1] / rounds]
        found["batcher, 30 latencies known"].append((total[0], total[1] * 100))
    for interval in (0.08, 0.12, 0.18, 0.25, 0.35, 0.5, 0.7):
        requests, lag = cost_of([interval * turn for turn in range(1, int(30 / interval) + 1)], curve)
        found["fixed interval"].append((requests, lag * 100))
    return found


def whole(base: str, jobs: int) -> Took:
    """Run ours from nothing known to the end, start-up and manifest included."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        write_manifest(folder, jobs)
        ask(f"{base}/reset", post=True)
        one = batcher(
            *("run", "jobs.yaml", "-o", "out", "--quiet", "--yes", "-j", str(SLOTS * 5 // 4)),
            cwd=folder,
            env=environment(base),
        )
        report = ask(f"{base}/report")
    return Took(
        jobs, report["makespan"] / report["ideal"], report["requests"] / jobs, one.cpu / jobs * 1e3, one.peak_mb
    )


def script(base: str, jobs: int) -> Took:
    """Run the plain script, which looks at each job fifteen times a median, and keeps nothing."""
    report, cpu = of_script(base, jobs, SLOTS, MEDIAN * 0.067)
    return Took(jobs, report["makespan"] / report["ideal"], report["requests"] / jobs, cpu, 0.0)


def drawn(file: str, panels: Sequence[tuple[str, str, str, dict[str, LatencyCdf]]], *, logarithmic: bool) -> None:
    """Draw panels beside each other: (title, x, y, lines by name)."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.2), squeeze=False, layout="constrained")
    for axis, (title, x, y, lines) in zip(axes[0], panels, strict=True):
        for (name, points), style in zip(lines.items(), ("o-", "s--", "^:"), strict=False):
            axis.plot(*zip(*points, strict=True), style, label=name, markersize=4)
        if logarithmic:
            axis.set_xscale("log")
        axis.set(title=title, xlabel=x, ylabel=y, ylim=(0, 1.08 * axis.get_ylim()[1]))
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(ROOT / "docs" / "images" / file, metadata={"Date": None})
    plt.close(figure)


def draw_simulated(found: dict[int, tuple[float, float, float]]) -> None:
    """Draw whole runs in simulated time, from nothing known: what `measured` gives, by the number of jobs."""
    print(f"simulated: {found}", flush=True)
    drawn(
        "simulated.svg",
        [
            ("length of the run", "jobs", "makespan / ideal", {"batcher": [(n, one[0]) for n, one in found.items()]}),
            ("looks", "jobs", "a job", {"batcher": [(n, one[1]) for n, one in found.items()]}),
            ("slots at work", "jobs", "share", {"batcher": [(n, one[2]) for n, one in found.items()]}),
        ],
        logarithmic=True,
    )


def main() -> None:
    """Measure, print, and draw."""
    parser = argparse.ArgumentParser(prog="scripts/plots", description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--simulated", type=int, nargs="*", default=[100, 1_000, 10_000, 100_000])
    options = parser.parse_args()
    fronts = [front(sigma) for sigma in (0.3, 0.5, 0.8)]
    drawn(
        "polling.svg",
        [
            (f"service times of sigma {sigma}", "requests a job", "mean lag, % of the median", found)
            for sigma, found in zip((0.3, 0.5, 0.8), fronts, strict=True)
        ],
        logarithmic=False,
    )
    if options.simulated:
        draw_simulated({jobs: measured(jobs, SLOTS, SLOTS * 5 // 4, warm=0) for jobs in options.simulated})
    if not options.jobs:
        return
    runs: dict[str, list[Took]] = {"batcher": [], "plain script": []}
    with far_side(SLOTS, MEDIAN) as base:
        for jobs in options.jobs:
            for name, run in (("batcher", whole), ("plain script", script)):
                if name == "batcher" or jobs <= 10_000:
                    runs[name].append(run(base, jobs))
                    print(f"{name}: {runs[name][-1]}", flush=True)

    def lines(what: str, *, only: str = "") -> dict[str, Any]:
        return {
            name: [(one.jobs, getattr(one, what)) for one in found]
            for name, found in runs.items()
            if only in {"", name}
        }

    drawn(
        "jobs.svg",
        [
            ("length of the run", "jobs", "makespan / ideal", lines("span")),
            ("requests", "jobs", "a job", lines("requests")),
            ("CPU, start-up included", "jobs", "ms a job", lines("cpu")),
            ("memory", "jobs", "peak, MB", lines("peak", only="batcher")),
        ],
        logarithmic=True,
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        os.chdir(scratch)
        main()
