import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import batcher as batcher_package
from tests.nursery import Nursery
from tests.real.api import TOKEN, Api, Served

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in the background ignores it
MODEL = "google/nano-banana/pro/edit"
Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def api() -> Iterator[Api]:
    with Served(Api()) as served:
        yield served


@dataclass
class Done:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass
class Batcher:
    """The command line, as a user runs it: a process of its own in a folder of its own.

    What is called is forked from a process that has imported everything already; what is started is started anew.
    """

    folder: Path
    environ: dict[str, str]
    nursery: Nursery
    started: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def __call__(self, *arguments: str, stdin: str | None = None, **environ: str) -> Done:
        code, out, err = self.nursery.run(arguments, self.folder, {**self.environ, **environ}, stdin, 90)
        assert code is not None, f"it did not end: {out[-1000:]} {err[-1000:]}"
        return Done(code, out, err)

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "batcher", *arguments],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def csv(self, prompts: list[str], name: str = "jobs.csv") -> str:
        rows = "".join(f'"{prompt}",https://images.invalid/{n}.png\n' for n, prompt in enumerate(prompts))
        (self.folder / name).write_text("prompt,image_urls\n" + rows)
        return name

    def run_csv(self, prompts: list[str], *more: str, **environ: str) -> Done:
        return self("run", self.csv(prompts), "--model", MODEL, *more, **environ)

    def states(self, out: str = "runs/jobs") -> dict[str, int]:
        states: dict[str, int] = self("status", out, "--json").json()["states"]
        return {state: count for state, count in states.items() if count}

    def seconds_at_work(self, out: str = "runs/jobs") -> float:
        """Return the seconds from the first to the last event of a run directory: without a process's start and end."""
        lines = (self.folder / out / "run.jsonl").read_text("utf-8").splitlines()
        times = [datetime.fromisoformat(json.loads(line)["at"]) for line in (lines[0], lines[-1])]
        return (times[1] - times[0]).total_seconds()


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery(Path(batcher_package.__file__).parent.parent) as started:
        yield started


@pytest.fixture
def batcher(tmp_path: Path, api: Api, nursery: Nursery) -> Iterator[Batcher]:
    not_a_users = ("RUNCOMFY_", "BATCHER_", "PYTHONUNBUFFERED")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(not_a_users)}
    environ |= {"RUNCOMFY_TOKEN": TOKEN, "RUNCOMFY_MODEL_API_BASE": api.base, "HOME": str(tmp_path / "home")}
    folder = tmp_path / "work"
    folder.mkdir()
    ours = Batcher(folder, environ, nursery)
    yield ours
    for process in ours.started:  # what a test that failed has left
        if process.poll() is None:
            end(process)
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture
def until() -> Until:
    def wait(holds: Callable[[], bool]) -> None:
        """Wait for something that another process brings about."""
        end = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < end, "it never came"
            time.sleep(0.01)

    return wait


def end(process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> tuple[int, str]:
    """Send a signal to a whole process group; give its exit code and what it said on standard error."""
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err
