"""Runs that are stopped, in simulated time: they end, and nothing becomes uncertain for it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from batcher.runs.run import Run
from tests.nights.play import Life, Scenario, findings


def live(folder: Path, number: int, before_work: Callable[[Life, Run], object]) -> int:
    """Live a life in this process; a run that waits for ever raises Asleep."""
    life = Life(Scenario(jobs=12, seed=7), folder, number, None)
    life.before_work = lambda run: before_work(life, run)
    try:
        return life.loop.run_until_complete(life._run())
    finally:
        life.loop.close()


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 1.0, 2.5, 4.0, 6.0])
def test_a_signal_at_any_time_ends_the_run_and_makes_nothing_uncertain(tmp_path: Path, seconds: float) -> None:
    assert live(tmp_path, 0, lambda life, run: life.loop.call_later(seconds, run.stop, 2)) == 130
    assert live(tmp_path, 1, lambda _, run: run.stop(15)) == 143, "a signal while jobs are taken up"
    assert live(tmp_path, 2, lambda _life, _run: None) == 0
    assert findings(Scenario(jobs=12, seed=7), tmp_path, killed=False, code=0) == []


@pytest.mark.parametrize("seconds", [0.1, 1.0, 3.0, 6.0])
def test_a_lid_that_was_shut_for_eight_hours_makes_nothing_uncertain_and_times_nothing_out(
    tmp_path: Path, seconds: float
) -> None:
    scenario = Scenario(jobs=12, seed=7, lid_shut_at=seconds, retry={"job_timeout": 600.0, "patience": 900.0})
    life = Life(scenario, tmp_path, 0, None)
    try:
        assert life.loop.run_until_complete(life._run()) == 0
    finally:
        life.loop.close()
    assert findings(scenario, tmp_path, killed=False, code=0) == []
    asked = [call for call in life.calls if call == "GET /v1/models?include_schema=true&limit=200"]
    assert len(asked) >= 1, "the server is asked for before the run goes on"
    assert life.loop.now < 600, "and nothing waits longer for it"
