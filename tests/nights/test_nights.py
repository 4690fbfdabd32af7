"""Whole runs in simulated time: killed at every act they make, and under every mishap the world has."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
ALL_MISHAPS = {"busy": 0.1, "lose": 0.06, "reset": 0.04, "stumble": 0.1, "tear": 0.2}


def night(scenario: dict[str, Any], package: Path | None = None) -> dict[str, Any]:
    """Play in a process of its own: it forks lives, and must not share threads with the tests."""
    environ = {**os.environ, "PYTHONPATH": str(package or ROOT)}
    command = [sys.executable, "-m", "tests.nights.play", json.dumps(scenario)]
    done = subprocess.run(command, cwd=package or ROOT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_same_seed_gives_the_same_trace() -> None:
    first, again, other = (night({"jobs": 12, "seed": seed, "mishaps": ALL_MISHAPS}) for seed in (5, 5, 6))
    assert first["trace"] == again["trace"]
    assert first["trace"] != other["trace"]


@pytest.mark.long
def test_a_kill_at_one_in_five_acts_loses_nothing() -> None:
    found = night({"jobs": 3, "seed": 3, "every_act": True, "stride": 5})
    assert found["findings"] == []
    assert found["deaths"] == found["nights"] - 1 > 20
    assert set(found["states"]) >= {"pending", "submitting", "running", "fetching", "done"}


@pytest.mark.long
def test_a_kill_at_any_act_loses_nothing_and_pays_nothing_twice() -> None:
    found = night({"jobs": 3, "seed": 3, "every_act": True})
    assert found["findings"] == []
    assert found["deaths"] == found["nights"] - 1 > 100
    assert set(found["states"]) >= {"pending", "submitting", "running", "fetching", "done"}


@pytest.mark.long
def test_a_kill_at_any_suspension_point_loses_nothing_and_pays_nothing_twice() -> None:
    found = night({"jobs": 6, "seed": 3, "every_await": True})
    assert found["findings"] == []
    assert found["deaths"] == found["nights"] - 1 > 150


def test_a_kill_at_one_in_nine_suspension_points_loses_nothing() -> None:
    found = night({"jobs": 2, "seed": 4, "every_await": True, "stride": 9})
    assert found["findings"] == []
    assert found["deaths"] == found["nights"] - 1 > 8


@pytest.mark.long
def test_many_nights_of_every_fault_keep_every_promise() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.nights.many", "--count", "25", "--seed", "900000", "--workers", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_a_kill_among_mishaps_and_several_files_a_job_loses_nothing() -> None:
    found = night({"jobs": 4, "seed": 8, "images": 2, "every_act": True, "stride": 5, "mishaps": ALL_MISHAPS})
    assert found["findings"] == []


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_night_of_mishaps_and_deaths_ends_well(seed: int) -> None:
    kills = [37 * seed % 400 + 5, 91 * seed % 300 + 3, 13 * seed % 200 + 2]
    found = night({"jobs": 40, "seed": seed, "slots": 6, "concurrency": 12, "kills": kills, "mishaps": ALL_MISHAPS})
    assert found["findings"] == [], f"seed {seed}, kills {kills}"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_is_due_before_the_last_turn_was_told_loses_no_job(seed: int) -> None:
    """A busy loop whose timers go first, as uvloop's do: a job's next look is due before its task's end was told."""
    quick = {"jobs": 60, "slots": 10, "concurrency": 20, "latency": 0.5}
    found = night({**quick, "seed": seed, "busy": 0.05, "timers_first": True})
    assert found["findings"] == []
