"""Real processes, killed for real: at random instants, and at system calls one after the other.

Usage: python -m tests.crashes.torture --kills 100 [--seed 1] [--boundaries 40] [--errors 40] [--minutes 5]
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TypeVar

from tests.crashes.batch import ROOT, Batch, Server, broken_promises, kill, wait
from tests.nursery import Nursery

T = TypeVar("T")
JOBS = 24
TRIES = 4
"""Of each boundary: threads share the work anew each time, and the count may not be reached."""
UNDER_WAY = "clone,fork,vfork,execve,wait4,exit_group,exit"
"""System calls at which nothing of the batch is decided."""


@dataclass
class Tally:
    """What was done, and what was found."""

    batches: int = 0
    kills: int = 0
    boundaries: int = 0
    errors: int = 0
    not_reached: int = 0
    uncertain: int = 0
    findings: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.batches += other.batches
        self.kills += other.kills
        self.boundaries += other.boundaries
        self.errors += other.errors
        self.not_reached += other.not_reached
        self.uncertain += other.uncertain
        self.findings += other.findings


def at_random(kills: int, seed: int, until: float) -> Tally:
    """Kill runs at random instants, sometimes twice in a row, until each batch has settled by itself."""
    chance, tally = Random(seed), Tally()
    while tally.kills < kills and time.monotonic() < until:
        tally.batches += 1
        with Batch(JOBS, seed * 1000 + tally.batches) as batch:
            for _ in range(chance.randint(2, 9)):
                process = batch.start()
                quick = chance.random() < 0.3  # while what was left is being taken up
                wait(chance.uniform(0.3, 0.8) if quick else chance.uniform(0.5, 2.5))
                if process.poll() is None:
                    tally.kills += 1
                kill(process)
            code, said = batch.finish()
            broken = broken_promises(batch, code)
            tally.uncertain += _uncertain(batch)
            tally.findings += [f"seed {seed}, batch {tally.batches}: {text} {said[-300:]}" for text in broken]
    return tally


def _uncertain(batch: Batch) -> int:
    from batcher.ledger.reader import Reader

    with Reader(batch.out) as reader:
        return len(list(reader.jobs("uncertain")))


def boundaries() -> list[tuple[str, int]]:
    """Record an undisturbed run of two jobs; give each system call's name and number since the ledger was made."""
    with Batch(2, 1) as batch, Nursery(ROOT) as nursery:
        trace = batch.folder / "trace"
        child = batch.child(nursery)
        tracer = child.traced("strace", "-f", "-qq", "-o", str(trace))
        child.ended(120)
        tracer.wait(30)
        seen: dict[str, Counter[str]] = {}
        found: dict[tuple[str, int], None] = {}
        begun = False
        for line in trace.read_text("utf-8", "replace").splitlines():
            called = re.match(r"(\d+) +([a-z0-9_]+)\(", line)
            if not called:
                continue
            begun = begun or "ledger.lock" in line
            count = seen.setdefault(called[1], Counter())
            count[called[2]] += 1
            if begun and called[2] not in UNDER_WAY.split(","):
                found[called[2], count[called[2]]] = None
        return list(found)


def at_boundaries(chosen: list[tuple[str, int]], until: float, server: Server, nursery: Nursery) -> Tally:
    """Kill a run just as it makes a certain system call, for each of these; then let it go on."""
    tally = Tally()
    for turn, (name, number) in enumerate(chosen):
        if time.monotonic() > until:
            break
        tally.boundaries += 1
        for again in range(TRIES):
            with Batch(2, turn * TRIES + again, server=server) as batch:
                inject = f"--inject={name}:signal=SIGKILL:when={number}"
                child = batch.child(nursery)
                tracer = child.traced("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", inject)
                died = child.ended(60)[0] == -signal.SIGKILL
                tracer.wait(30)
                code, said = batch.child(nursery).ended(60)
                broken = broken_promises(batch, code)
            tally.findings += [f"killed at {name} number {number}: {text} {said[-300:]}" for text in broken]
            if died:
                break
        else:
            tally.not_reached += 1
    return tally


def written() -> list[tuple[str, int]]:
    """Record an undisturbed run of two jobs; give each file that it writes, and how often."""
    with Batch(2, 1) as batch, Nursery(ROOT) as nursery:
        trace = batch.folder / "trace"
        child = batch.child(nursery)
        tracer = child.traced("strace", "-f", "-qq", "-y", "-e", "trace=write", "-o", str(trace))
        child.ended(120)
        tracer.wait(30)
        place = re.escape(str(batch.folder))
        paths = re.findall(rf"write\(\d+<{place}/([^>]+)>", trace.read_text("utf-8", "replace"))
        return list(Counter(paths).items())


def errors(found: list[tuple[str, int]], files: list[tuple[str, int]]) -> list[tuple[str, int, str, str]]:
    """Give every write-like call with every error that a disk can answer it with: name, number, error, file.

    `write` is also how threads wake each other: it fails only where it is about a file.
    """
    answers = {
        **dict.fromkeys(("pwrite64", "ftruncate", "fallocate"), ("ENOSPC", "EIO", "EDQUOT")),
        **dict.fromkeys(("fsync", "fdatasync"), ("EIO", "ENOSPC")),
        **dict.fromkeys(("rename", "renameat", "mkdir", "mkdirat", "unlink"), ("ENOSPC", "EROFS", "EIO", "EDQUOT")),
        "openat": ("EMFILE", "ENOSPC", "EROFS", "EDQUOT"),
    }
    others = [(name, number, error, "") for name, number in found for error in answers.get(name, ())]
    writes = [
        ("write", number, error, file)
        for file, count in files
        for number in range(1, count + 1)
        for error in ("ENOSPC", "EIO", "EDQUOT")
    ]
    return writes + others


def at_errors(chosen: list[tuple[str, int, str, str]], until: float, server: Server, nursery: Nursery) -> Tally:
    """Let one system call of a run fail, for each of these; the run says so, and the next one ends it."""
    tally = Tally()
    for turn, (name, number, error, file) in enumerate(chosen):
        if time.monotonic() > until:
            break
        with Batch(2, turn, server=server) as batch:
            inject = f"--inject={name}:error={error}:when={number}"
            only = ("-P", str(batch.folder / file)) if file else ()
            where = f"{error} at {name} number {number}" + (f" of {file}" if file else "")
            child = batch.child(nursery)
            tracer = child.traced("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={name}", *only, inject)
            code, err = child.ended(60)
            tracer.wait(30)
            tally.errors += 1
            if code not in {0, 1, 69, 75, 64, 65, 66} or "a bug" in err:
                tally.findings.append(f"{where}: it ended with {code}: {err[-400:]}")
            code, said = batch.child(nursery).ended(60)
            tally.findings += [f"{where}: {text} {said[-300:]}" for text in broken_promises(batch, code)]
    return tally


def rotated(found: list[T], wanted: int, turn: int) -> list[T]:
    """Choose so many, spread evenly; another turn chooses others."""
    step = max(1, len(found) // max(1, wanted))
    return found[turn % step :: step][:wanted]


def _share(said: argparse.Namespace, worker: int) -> Iterator[Tally]:
    share: float = said.minutes * 60 / sum(bool(one) for one in (said.kills, said.boundaries, said.errors))

    def until() -> float:
        return time.monotonic() + share

    if said.kills:
        yield at_random(-(-said.kills // said.workers), said.seed + worker, until())
    if said.boundaries:
        with Server(said.seed) as server, Nursery(ROOT) as nursery:
            mine = json.loads(Path(said.list).read_text())["boundaries"][worker :: said.workers]
            yield at_boundaries(mine, until(), server, nursery)
    if said.errors:
        with Server(said.seed) as server, Nursery(ROOT) as nursery:
            mine = json.loads(Path(said.list).read_text())["errors"][worker :: said.workers]
            yield at_errors(mine, until(), server, nursery)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=0, help="at random instants")
    options.add_argument("--boundaries", type=int, default=0, help="at so many system calls; a large number: at all")
    options.add_argument("--errors", type=int, default=0, help="let so many write-like calls fail")
    options.add_argument(
        "--turn", type=int, default=int(time.time() // 86_400), help="which of them; by default the day's"
    )
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    options.add_argument("--minutes", type=float, default=10_000.0, help="at most, in equal parts")
    options.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options.add_argument("--list", default="", help=argparse.SUPPRESS)
    said = options.parse_args()
    if said.worker is not None:
        for tally in _share(said, said.worker):
            print(json.dumps(vars(tally)), flush=True)
        return 0
    command = [sys.executable, "-m", "tests.crashes.torture", *sys.argv[1:], "--workers", str(said.workers)]
    total, begun, known, failing = Tally(), time.monotonic(), 0, 0
    listed = Path(f"/tmp/boundaries-{os.getpid()}.json")
    if said.boundaries or said.errors:
        if not shutil.which("strace"):
            print("strace is not installed")
            return 1
        found = boundaries()
        failures = errors(found, written()) if said.errors else []
        known, failing = len(found), len(failures)
        chosen = {
            "boundaries": rotated(found, said.boundaries, said.turn),
            "errors": rotated(failures, said.errors, said.turn),
        }
        listed.write_text(json.dumps(chosen))
    workers = [
        subprocess.Popen([*command, "--worker", str(n), "--list", str(listed)], stdout=subprocess.PIPE)
        for n in range(said.workers)
    ]
    for worker in workers:
        for line in worker.communicate()[0].splitlines():
            total.add(Tally(**json.loads(line)))
    listed.unlink(missing_ok=True)
    if said.kills:
        print(
            f"{total.kills:,} kills at random instants in {total.batches:,} batches of {JOBS} jobs (seed {said.seed}); "
            f"{total.uncertain:,} jobs left uncertain"
        )
    if said.boundaries:
        print(
            f"{total.boundaries:,} of {known:,} system call boundaries (turn {said.turn}), "
            f"{total.boundaries - total.not_reached:,} deaths"
        )
    if said.errors:
        print(f"{total.errors:,} of {failing:,} failing calls (turn {said.turn})")
    print(f"promises broken: {len(total.findings)}  ({time.monotonic() - begun:.0f} s)")
    for text in total.findings[:40]:
        print(f"  {text}")
    too_few = said.boundaries and total.not_reached * 3 > total.boundaries
    if too_few:
        print(f"too many boundaries were not reached: {total.not_reached}")
    return 1 if total.findings or too_few or not (total.kills or total.boundaries or total.errors) else 0


if __name__ == "__main__":
    sys.exit(main())
