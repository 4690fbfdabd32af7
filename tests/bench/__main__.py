"""Measures speed, requests and memory, each beside a limit or a rival in the same run: scripts/bench [PART ...]."""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import books, expand, files, flight, gallery, makespan, million, pace, polling, shared
from tests.bench.common import Line, batcher, took

PARTS: dict[str, Callable[[argparse.Namespace], list[Line]]] = {
    "start": lambda _: start_up(),
    "polling": lambda _: polling.lines(),
    "shared": lambda _: shared.lines(),
    "makespan": lambda _: makespan.lines(),
    "books": lambda _: books.lines(),
    "files": lambda _: files.lines(200, 4),
    "expand": lambda options: expand.lines(options.rows),
    "million": lambda options: million.lines(options.rows),
    "gallery": lambda options: gallery.lines(options.outputs),
    "flight": lambda options: flight.lines(options.in_flight),
    "pace": lambda options: pace.lines(options.jobs, options.slots, options.median),
}


def start_up() -> list[Line]:
    """Give the time of `--help` beside that of importing what draws it."""
    pairs = [(batcher("--help", cwd=Path.cwd()), took([sys.executable, "-c", "import typer"])) for _ in range(9)]
    ours, other = (sorted(one.cpu for one in column)[4] for column in zip(*pairs, strict=True))
    return [
        Line(
            "`batcher --help`, CPU",
            f"{ours * 1e3:.0f} ms",
            f"import typer {other * 1e3:.0f} ms",
            f"{ours / other:.2f}",
            "<= 2.5",
            ours <= 2.5 * other,
        )
    ]


def main() -> int:
    """Measure the parts asked for, and print the table."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; by default all")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the large manifest and ledger")
    parser.add_argument("--in-flight", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=2_000, help="of the run over HTTP")
    parser.add_argument("--outputs", type=int, default=10_000, help="of the report")
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--median", type=float, default=2.0, help="seconds that a job takes at the far side")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    found: list[Line] = []
    for name, part in PARTS.items():
        if not options.parts or name in options.parts:
            begun = time.perf_counter()
            found += part(options)
            print(f"{name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
    print(
        f"\n{platform.python_implementation()} {platform.python_version()}, {platform.system()}, {os.cpu_count()} cores\n"
    )
    print("| what | measured | limit or rival | ratio | target | met |\n| --- | --- | --- | --- | --- | --- |")
    for one in found:
        met = "" if one.met is None else "yes" if one.met else "**no**"
        print(f"| {one.what} | {one.measured} | {one.beside} | {one.ratio} | {one.target} | {met} |")
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as scratch:
        os.chdir(scratch)
        sys.exit(main())
