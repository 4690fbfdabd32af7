"""The ledger: many waiters, a stream of moves; a commit for each move beside it."""

import asyncio
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from batcher.clock import Clock
from batcher.job import Job, Move, Spec, State
from batcher.ledger.changes import apply
from batcher.ledger.database import ThreadedDatabase, Work, open_threaded
from batcher.ledger.import_jobs import Choice, import_jobs
from batcher.ledger.ledger import Ledger
from tests.bench.common import Line, took

T = TypeVar("T")
WAITERS = 512
SECONDS = 3.0
SLOW_FLUSH = 0.005


class Counted:
    """A database that counts its commits."""

    def __init__(self, database: ThreadedDatabase) -> None:
        self.database = database
        self.commits = 0

    async def transact(self, work: Work[T], *, bound: bool = True) -> T:
        """Count, and pass on."""
        self.commits += 1
        return await self.database.transact(work, bound=bound)

    async def close(self) -> None:
        """Close it."""
        await self.database.close()


def spec(number: int) -> Spec:
    """Make a job's spec."""
    return Spec(f"{number:016x}", f"job-{number}", "m", {"prompt": "p"}, (), (), {}, 1, number, None, 0.1)


async def opened(folder: Path, jobs: int) -> tuple[Ledger, Counted, list[Job]]:
    """Open a new ledger with so many jobs."""
    counted = Counted(await open_threaded(folder / "ledger.sqlite"))
    ledger = Ledger(counted, Clock())
    await ledger.open()
    specs = [(spec(n), True) for n in range(1, jobs + 1)]
    await ledger.transact(lambda connection: import_jobs(connection, specs, Choice(), 0.0, sure=True), bound=False)
    return ledger, counted, await ledger.waiting(jobs)


def there_and_back(job: Job) -> Move:
    """Give a move that can be made for ever: the intent, and taking it back."""
    return Move(State.SUBMITTING if job.state is State.PENDING else State.PENDING)


async def many(folder: Path, record: Callable[[Ledger, Job, Move], Awaitable[Job]]) -> tuple[float, float]:
    """Let all waiters move their jobs as fast as they can; give (changes a second, p99 in seconds)."""
    ledger, _, jobs = await opened(folder, WAITERS)
    took: list[float] = []
    until = time.perf_counter() + SECONDS

    async def one(job: Job) -> None:
        while (now := time.perf_counter()) < until:
            job = await record(ledger, job, there_and_back(job))
            took.append(time.perf_counter() - now)

    begun = time.perf_counter()
    await asyncio.gather(*map(one, jobs))
    rate = len(took) / (time.perf_counter() - begun)
    await ledger.close()
    (folder / "ledger.sqlite").unlink()
    return rate, statistics.quantiles(took, n=100)[98]


async def alone(ledger: Ledger, job: Job, move: Move) -> Job:
    """Commit each move by itself, as most programs do."""

    def work(connection: sqlite3.Connection) -> Job:
        landed = apply(connection, job, move, 0.0)
        assert landed
        return landed.job

    return await ledger.transact(work)


async def stream(folder: Path, each_second: int) -> tuple[float, float]:
    """Let moves come one by one, spread in time; give (commits a second, p99 in seconds)."""
    ledger, counted, jobs = await opened(folder, each_second)
    took: list[float] = []
    before, begun = counted.commits, time.perf_counter()

    async def one(job: Job) -> None:
        now = time.perf_counter()
        await ledger.record(job, there_and_back(job))
        took.append(time.perf_counter() - now)

    tasks = []
    for turn, job in enumerate(jobs):
        await asyncio.sleep(max(0.0, begun + turn / each_second - time.perf_counter()))
        tasks.append(asyncio.create_task(one(job)))
    await asyncio.gather(*tasks)
    commits = (counted.commits - before) / (time.perf_counter() - begun)
    await ledger.close()
    (folder / "ledger.sqlite").unlink()
    return commits, statistics.quantiles(took, n=100)[98]


def fsync_p99(folder: Path) -> float:
    """Give the p99 of an fsync of one page, in seconds."""
    took = []
    with (folder / "page").open("wb", buffering=0) as file:
        for _ in range(300):
            file.write(b"x" * 4096)
            now = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - now)
    return statistics.quantiles(took, n=100)[98]


def figures() -> list[float]:
    """Measure them: rate and p99 of ours, of a commit each, commits and p99 of a stream, p99 of an fsync."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        rate, p99 = asyncio.run(many(folder, lambda ledger, job, move: ledger.record(job, move)))
        other, other_p99 = asyncio.run(many(folder, alone))
        commits, spread_p99 = asyncio.run(stream(folder, 1000))
        return [rate, p99, other, other_p99, commits, spread_p99, fsync_p99(folder)]


def lines() -> list[Line]:
    """Measure as the disk is, and where strace is installed with 5 ms put upon each flush."""
    found = table(figures(), "")
    if strace := shutil.which("strace"):
        calls = "fsync,fdatasync"
        inject = f"inject={calls}:delay_exit={SLOW_FLUSH * 1e6:.0f}"
        command = [strace, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
        slow: list[float] = json.loads(took([*command, sys.executable, "-m", "tests.bench.books"]).out)
        if slow[-1] < SLOW_FLUSH:
            raise RuntimeError("strace did not slow the flushes down")
        found += table(slow, "flushes of 5 ms: ")
    return found


def table(measured: list[float], words: str) -> list[Line]:
    """Set them beside their limits."""
    rate, p99, other, other_p99, commits, spread_p99, sync = measured
    bound = 0.010 + 2 * sync
    return [
        Line(f"{words}ledger, 512 waiters, changes a second", f"{rate:,.0f}", f"a commit each {other:,.0f}", f"{rate / other:.1f}", ">= 20", rate >= 20 * other),
        Line(f"{words}their p99", f"{p99 * 1e3:.1f} ms", f"{other_p99 * 1e3:.0f} ms", f"{p99 / other_p99:.3f}", "<= 0.1", p99 <= 0.1 * other_p99),
        Line(f"{words}1,000 moves spread over a second: commits", f"{commits:.0f}", "1,000", f"{commits / 1000:.2f}", "<= 100 a second", commits <= 101),
        Line(f"{words}their p99", f"{spread_p99 * 1e3:.1f} ms", f"10 ms + 2 fsync p99 = {bound * 1e3:.1f} ms", f"{spread_p99 / bound:.2f}", "<= 1", spread_p99 <= bound),
    ]  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(figures()))
