"""Clocks that are wrong, in simulated time: the wall's is set, the server's is hours off, an earlier start's was."""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from batcher.ledger.reader import Reader
from batcher.runs.run import Run
from tests.nights.play import MEMORY, MODEL, Life, Scenario

STEADY = Scenario(jobs=400, seed=3, slots=40, concurrency=40, latency=30.0, sigma=0.3)


class Set(Life):
    """A life whose wall clock is set by so many seconds at some time of the loop's."""

    at = 0.0
    by = 0.0

    def wall(self) -> float:
        return super().wall() + (self.by if self.loop.time() >= self.at else 0.0)


def live(
    scenario: Scenario,
    folder: Path,
    number: int = 0,
    *,
    at: float = 0.0,
    by: float = 0.0,
    before: Callable[[Life, Run], object] = lambda *_: None,
) -> tuple[Life, int]:
    """Live a life; give it with its exit code."""
    life = Set(scenario, folder, number, None)
    life.at, life.by = at, by
    life.before_work = lambda run: before(life, run)
    try:
        return life, life.loop.run_until_complete(life._run())
    finally:
        life.loop.close()


def stop_after(seconds: float) -> Callable[[Life, Run], object]:
    return lambda life, run: life.loop.call_later(seconds, run.stop, 15)


@pytest.mark.parametrize("by", [-3600.0, -20.0, 3600.0])
def test_a_wall_clock_that_is_set_costs_neither_requests_nor_time(by: float) -> None:
    """Set back an hour it made each job look new-born: 26 times the looks."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as steady, tempfile.TemporaryDirectory(dir=MEMORY) as set_:
        told, code = live(STEADY, Path(steady))
        life, again = live(STEADY, Path(set_), at=100.0, by=by)
    assert (code, again) == (0, 0)
    assert len(life.calls) <= 1.1 * len(told.calls)
    assert life.loop.time() <= 1.05 * told.loop.time()


@pytest.mark.parametrize("seed", [3, 4])
def test_a_start_after_hours_learns_nothing_false_of_a_server_whose_clock_is_off(seed: int) -> None:
    """What had ended before the second start was learned as it was stamped: each look came hours late."""
    took = []
    for mishaps in ({}, {"clock_off": 1.0}):
        scenario = replace(STEADY, seed=seed, mishaps=mishaps)
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            assert live(scenario, Path(folder), before=stop_after(150.0))[1] == 143
            life, code = live(scenario, Path(folder), 1)
            assert code == 0
            took.append(life.loop.time())
            with Reader(Path(folder) / "out") as reader:
                learned = reader._connection.execute("SELECT max(took) FROM attempts").fetchone()[0]
            assert learned < 3600, "what a job took was told by nobody who saw it end"
    assert took[1] <= 1.1 * took[0]


def test_a_wait_that_a_clock_far_ahead_has_set_does_not_outlive_the_hour(tmp_path: Path) -> None:
    turned_away = Scenario(jobs=3, seed=5, mishaps={"busy": 1.0})
    assert live(turned_away, tmp_path, by=10 * 86_400.0, before=stop_after(2.0))[1] == 143
    life, code = live(replace(turned_away, mishaps={}), tmp_path, 1)
    assert code == 0
    assert life.loop.time() <= 3700


def test_jobs_at_the_server_that_are_left_out_of_the_manifest_count_when_a_run_is_stopped(tmp_path: Path) -> None:
    two_models = {"google/nano-banana/pro/edit": 600.0, MODEL: 0.5}
    first = Scenario(jobs=2, seed=5, sigma=0.1, latencies=two_models)
    assert live(first, tmp_path, before=stop_after(5.0))[1] == 143
    other = replace(first, jobs=1, seed=6)
    assert live(other, tmp_path, before=stop_after(60.0))[1] == 143, "its own job is done, one is at the server"
