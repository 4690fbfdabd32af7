"""What a job costs in requests, commits and statements: counts that no slow machine can blur. A guard, not a race."""

import sqlite3
import tempfile
import tracemalloc
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from batcher.clock import Clock
from batcher.engine.flight import Flight
from batcher.engine.warmup import SCOUTS, UNTOLD, Warmup
from batcher.job import Job, Move, Output, Spec, State
from batcher.ledger.database import InlineDatabase
from batcher.ledger.import_jobs import Choice, import_jobs
from batcher.ledger.ledger import Ledger
from batcher.runs.run import Run
from tests.bench.books import spec
from tests.nights.play import MEMORY, Life, Scenario

JOBS = 300


class Counted(Life):
    """A life that counts its acts by name."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        super().__init__(scenario, folder, 0, None)
        self.by_name: Counter[str] = Counter()

    def act(self, what: str) -> None:
        self.by_name[what] += 1
        super().act(what)


def night(scenario: Scenario) -> Counted:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        life = Counted(scenario, Path(folder))
        try:
            assert life.loop.run_until_complete(life._run()) == 0
        finally:
            life.loop.close()
    return life


QUIET = Scenario(jobs=JOBS, seed=11, slots=16, concurrency=20, latency=30.0, sigma=0.5, mishaps={})


def test_a_job_takes_few_requests_and_commits_are_shared() -> None:
    life = night(QUIET)
    asked = len(life.calls) / JOBS
    assert asked <= 5.2, f"{asked:.2f} requests a job: its submission, two looks on average, its result"
    commits = life.by_name["begins a transaction"] / JOBS
    assert commits <= 6, f"{commits:.2f} transactions a job"


def test_a_window_as_large_as_the_slots_takes_little_more() -> None:
    life = night(replace(QUIET, concurrency=16))
    assert len(life.calls) / JOBS <= 7


def looks_once_three_hundred_are_known(seed: int) -> float:
    """Give the looks a job of six hundred, 20 in flight, in a second start after one of three hundred."""
    told: list[bool] = []
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        for number, jobs in enumerate((JOBS, 3 * JOBS)):
            life = Life(replace(QUIET, jobs=jobs, seed=seed), Path(folder), number, None)

            def look(run: Run) -> None:
                told.append(run.engine is not None and run.engine._pace.warmup.over)

            life.before_work = lambda run, loop=life.loop: loop.call_later(1.0, look, run)  # type: ignore[misc]
            try:
                assert life.loop.run_until_complete(life._run()) == 0
            finally:
                life.loop.close()
    assert told == [False, True], "what an earlier start has learned is known from the beginning"
    later = sorted(life.world._requests.values(), key=lambda one: one.accepted_at)[JOBS:]
    assert len(later) == 2 * JOBS
    return sum(one.looks for one in later) / len(later)


def test_a_queue_that_runs_full_is_looked_at_less_than_three_times_a_job() -> None:
    """Over three seeds: one alone is between 2.7 and 2.95, as its messages happen to travel."""
    looks = [looks_once_three_hundred_are_known(seed) for seed in (11, 12, 13)]
    assert sum(looks) / len(looks) <= 2.9, f"{looks} looks a job"


@pytest.mark.parametrize("fault", ["no_stamps", "clock_off"])
def test_a_server_that_does_not_say_when_a_job_ended_costs_no_time(fault: str) -> None:
    """Ends are known from looks alone. Taken for the ends themselves, looks came later and later: 1.045 here, and rising."""
    quiet = replace(QUIET, jobs=3 * JOBS)
    told, untold = night(quiet), night(replace(quiet, mishaps={fault: 1.0}))
    assert untold.loop.time() <= 1.02 * told.loop.time()
    assert len(untold.calls) <= 1.05 * len(told.calls)


def test_a_first_wave_of_many_is_not_looked_at_as_if_each_were_overdue() -> None:
    """All at work at once, nothing known: the first to end tell of themselves, and 64 scouts of all. Each took 49 requests."""
    life = night(replace(QUIET, slots=JOBS, concurrency=JOBS, latency=300.0))
    assert len(life.calls) / JOBS <= 15


def test_scouts_that_tell_nothing_leave_nobody_alone() -> None:
    """The others take turns, so many a second, until something is known; in the place of a scout that left goes another."""
    warmup, job = Warmup(), Job(Spec("j", "j", "m", {}))
    scouts, others = [Flight(job) for _ in range(SCOUTS)], [Flight(job) for _ in range(400)]
    assert [warmup.hold(flight) for flight in scouts] == [None] * SCOUTS
    waits = [warmup.hold(flight) or 0.0 for flight in others]
    assert all(0 < wait <= 20 for wait in waits) and waits == sorted(waits)
    assert sum(wait < 10 for wait in waits) == pytest.approx(10 * UNTOLD, abs=1)
    assert warmup.hold(scouts[0]) is None, "a scout remains one"
    assert not warmup.ends()
    warmup.left(scouts[0])
    assert warmup.hold(Flight(job)) is None
    warmup.is_due(others[6])
    warmup.over = True
    assert warmup.ends()
    assert [flight.is_held for flight in others] == [flight is not others[6] for flight in others]
    assert not warmup.ends() and warmup.hold(Flight(job)) is None


def test_a_network_that_is_down_at_the_start_costs_no_more_than_that() -> None:
    sound = replace(QUIET, slots=32, concurrency=32)
    told, down = night(sound), night(replace(sound, outages=[(0.0, 5.0)]))
    assert down.loop.time() <= told.loop.time() + 20


async def test_a_jobs_life_is_so_many_statements(tmp_path: Path) -> None:
    database = InlineDatabase(tmp_path / "ledger.sqlite")
    ledger = Ledger(database, Clock())
    await ledger.open()
    await ledger.transact(lambda c: import_jobs(c, [(spec(1), True)], Choice(), 0.0, sure=True), bound=False)
    (job,) = await ledger.waiting(1)
    statements: list[str] = []
    database._connection.set_trace_callback(statements.append)
    output = Output(1, "https://x.example/a", "files/a.png", 7, "h", "image/png", 1, 1, 0.0)
    for move in (Move(State.SUBMITTING), Move(State.RUNNING, request_id="a"), Move(State.FETCHING, outputs=(output,)),
                 Move(State.DONE, outputs=(output,), billed_usd=0.1)):  # fmt: skip
        job = await ledger.record(job, move)
    ours = [one for one in statements if not one.startswith("-- ")]  # the others are triggers, and have no text of ours
    assert len(ours) <= 26, "\n".join(ours)
    assert sum(one.startswith("COMMIT") for one in ours) == 4
    await ledger.close()


def imported(count: int, connection: sqlite3.Connection) -> None:
    import_jobs(connection, ((spec(n), True) for n in range(count)), Choice(), 0.0, sure=True)


async def test_three_times_the_jobs_take_no_more_memory_to_enrol(tmp_path: Path) -> None:
    peaks = []
    for count in (12_000, 36_000):
        database = InlineDatabase(tmp_path / f"{count}.sqlite")
        ledger = Ledger(database, Clock())
        await ledger.open()
        tracemalloc.start()
        await ledger.transact(partial(imported, count), bound=False)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        await ledger.close()
    assert peaks[1] <= 1.25 * peaks[0], peaks
