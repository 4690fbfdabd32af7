"""The library: what programs call, from a process of its own, as the page of examples and a notebook do."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher, Until

DOCS = Path(__file__).parent.parent.parent / "docs"
PHOTOS = Path(__file__).parent.parent.parent / "manifests" / "photos"
QUICK = {"BATCHER_SANDBOX_ARGS": "--speed 10"}
HEAD = f"""
import asyncio, json, batcher
from batcher.errors import *
MODEL = {MODEL!r}
URL = "https://images.invalid/0.png"
def rows(count): return ({{"prompt": f"p{{n}}", "image_urls": [URL]}} for n in range(count))
def said(value): print("SAID " + json.dumps(value, default=str))
"""


@pytest.fixture
def photos(batcher: Batcher) -> Batcher:
    shutil.copytree(PHOTOS, batcher.folder / "photos")
    (batcher.folder / "restyle.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: 'on {{{{ scene }}}}', image_urls: [photos/mug.jpg]}}\n"
        "matrix: {scene: [slate, oak]}\n"
    )
    return batcher


def start(batcher: Batcher, code: str, **environ: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", HEAD + code],
        cwd=batcher.folder,
        env={**batcher.environ, **QUICK, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    batcher.started.append(process)
    return process


def program(batcher: Batcher, code: str, **environ: str) -> tuple[list[Any], str]:
    """Run a program; return what it said, and what stood on standard error."""
    process = start(batcher, code, **environ)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    lines = [line.removeprefix("SAID ") for line in out.splitlines()]
    assert len(lines) == out.count("SAID "), f"it printed something of its own: {out}"
    return [json.loads(line) for line in lines], err


def test_the_page_of_examples_runs_as_it_stands(photos: Batcher) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)],
        cwd=photos.folder,
        env={**photos.environ, **QUICK},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 0.30 of 40 USD" in done.stdout
    assert done.stdout.count("is done") == 2 and "-:1: image_urls: " in done.stdout
    assert done.stderr == ""


@pytest.mark.filterwarnings("ignore")
def test_the_example_notebook_runs_as_it_stands(photos: Batcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCHER_SANDBOX_ARGS", QUICK["BATCHER_SANDBOX_ARGS"])
    monkeypatch.setenv("HOME", photos.environ["HOME"])
    notebook: Any = nbformat.read(DOCS / "library.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=90, resources={"metadata": {"path": str(photos.folder)}}).execute()
    texts = json.dumps([cell.get("outputs", []) for cell in notebook.cells])
    assert "(4, 0.6, [])" in texts
    assert "4 jobs" in texts or "done" in texts, "no board was drawn"
    assert "Outcome(exit_code=0, stopped=None)" in texts
    assert texts.count("photos/mug.jpg") == 2


def test_a_program_runs_resumes_and_looks_at_what_came_of_it(batcher: Batcher, api: Api) -> None:
    found, err = program(
        batcher,
        """
for count in (3, 5):
    outcome = batcher.run({"model": MODEL, "jobs": rows(count)}, out="runs/a", max_cost_usd=40)
    said([outcome.exit_code, outcome.stopped])
view = batcher.view("runs/a")
said(view.status()["states"]["done"])
said([[one.row, one.state, one.attempts, one.error] for one in view.jobs()])
said([[one.file.is_file(), one.inputs["prompt"], one.index, one.billed_usd] for one in view.outputs()])
""",
    )
    assert found[:3] == [[0, None], [0, None], 5]
    assert found[3] == [[row, "done", 1, None] for row in range(1, 6)]
    assert found[4] == [[True, f"p{n}", 1, 0.12] for n in range(5)]
    assert (err, api.prompts()) == ("", [f"p{n}" for n in range(5)])
    assert batcher.states("runs/a") == {"done": 5}
    assert (batcher.folder / "runs/a/run.jsonl").exists()


def test_faults_are_returned_by_plan_and_raised_by_run(batcher: Batcher, api: Api) -> None:
    found, _ = program(
        batcher,
        """
bad = {"name": "m", "model": MODEL, "jobs": [{"prompt": "a"}, {"resolution": "9K", "image_urls": [URL]}]}
plan = batcher.plan(bad)
said([plan.jobs, [str(one) for one in plan.faults]])
try: batcher.run(bad)
except ManifestFaulty as faulty: said([faulty.exit_code, str(faulty)])
plan = batcher.plan({"name": "m", "model": MODEL, "jobs": rows(4)}, max_cost_usd=40, limit=3)
said([plan.jobs, plan.cost_usd.estimated, plan.cost_usd.limit, plan.faults, plan.whole.to_buy])
""",
    )
    assert sorted(one.rpartition(": ")[0] for one in found[0][1]) == [
        "-:1: image_urls",
        "-:2: prompt",
        "-:2: resolution",
    ]
    assert found[1][0] == 65 and all(one in found[1][1] for one in found[0][1])
    assert found[2] == [4, 0.45, 40.0, [], 3]
    assert api.requests == [] and not (batcher.folder / "runs").exists()


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        ('batcher.run({"name": "m", "model": MODEL, "jobs": rows(200)})', 64, "yes=True"),
        ('batcher.run({"model": MODEL, "jobs": rows(2)})', 64, "out="),
        ('batcher.run({"name": "m", "model": MODEL, "jobs": rows(2)}, max_time="8")', 64, "has no unit"),
        ('batcher.run({"name": "m", "model": MODEL, "jobs": rows(2)}, provider="fall")', 64, "is not a provider"),
        ('batcher.plan({"name": "m", "model": MODEL, "jobs": 5})', 64, "jobs is int"),
        ('batcher.plan({"name": "m", "model": MODEL, "jobs": rows(2)}, set="a=b")', 64, "must be a mapping"),
        ('batcher.run({"name": "m", "model": MODEL, "jobs": [1]})', 64, "no mapping"),
        ('batcher.run("nothing.yaml")', 66, "does not exist"),
        ('batcher.view("nothing")', 66, "not a run directory"),
    ],
)
def test_what_would_be_a_question_or_is_wrong_is_an_error_that_says_so(
    batcher: Batcher, api: Api, call: str, code: int, words: str
) -> None:
    found, _ = program(
        batcher, f"try: {call}\nexcept BatcherError as error: said([error.exit_code, f'{{error}} {{error.hint}}'])\n"
    )
    assert found[0][0] == code and words in found[0][1], found
    assert api.journal == []


def test_a_cost_that_is_agreed_to_or_capped_is_no_question(batcher: Batcher, api: Api) -> None:
    manifest = '{"name": "m", "model": MODEL, "jobs": rows(200), "limits": {"confirm_above_usd": 1}}'
    found, _ = program(
        batcher,
        f"said(batcher.run({manifest}, limit=2, yes=True).exit_code)\nsaid(batcher.run({manifest}, limit=8, max_cost_usd=2).exit_code)",
    )
    assert found == [0, 0] and len(api.journal) == 8


def test_an_edit_that_leaves_out_most_is_an_error_that_names_its_keyword(batcher: Batcher, api: Api) -> None:
    found, _ = program(
        batcher,
        """
said(batcher.run({"model": MODEL, "jobs": rows(30)}, out="o").exit_code)
try: batcher.run({"model": MODEL, "jobs": [{"prompt": "x", "image_urls": [URL]}]}, out="o")
except BatcherError as error: said([error.exit_code, error.hint])
said(batcher.run({"model": MODEL, "jobs": [{"prompt": "x", "image_urls": [URL]}]}, out="o", replace_done=True).exit_code)
""",
    )
    assert found[0] == 0 and found[1][0] == 64 and "replace_done=True" in found[1][1] and found[2] == 0


def test_plan_and_view_work_within_a_running_loop_and_run_names_what_does(batcher: Batcher, api: Api) -> None:
    found, _ = program(
        batcher,
        """
async def main():
    manifest = {"model": MODEL, "jobs": rows(3)}
    said(batcher.plan({**manifest, "name": "m", "jobs": rows(3)}).jobs)
    try: batcher.run(manifest, out="o")
    except BatcherError as error: said("open_run" in str(error))
    async with batcher.open_run(manifest, out="o") as run:
        seen = [type(event).__name__ async for event in run.events()]
        said([seen[0], seen[-1], seen.count("Moved"), run.outcome.exit_code])
    said(batcher.view("o").status()["states"]["done"])
asyncio.run(main())
""",
    )
    assert found == [3, True, ["Started", "Ended", 12, 0], 3]


def test_events_that_nobody_reads_hold_nothing_up_and_leaving_early_stops_the_run(batcher: Batcher, api: Api) -> None:
    found, _ = program(
        batcher,
        """
async def main():
    async with batcher.open_run({"model": MODEL, "jobs": rows(40)}, out="o", concurrency=8) as run:
        said((await run.wait()).exit_code)
        said(sum(type(event).__name__ == "Moved" for event in [one async for one in run.events()]))
    async with batcher.open_run({"model": MODEL, "jobs": rows(400)}, out="p", concurrency=2, yes=True) as run:
        async for event in run.events():
            if getattr(event, "to", "") == "done": break
    said([run.outcome.exit_code, run.outcome.stopped.reason])
    try:
        async with batcher.open_run({"model": MODEL, "jobs": rows(400)}, out="q", concurrency=2, yes=True) as run:
            raise KeyError("own")
    except KeyError: said(run.outcome.stopped.reason)
asyncio.run(main())
""",
    )
    assert found == [0, 160, [130, "interrupted"], "interrupted"]
    assert len(api.journal) < 100
    ids = [one.id for one in api.journal]
    assert len(set(ids)) == len(ids)
    left = batcher.states("p")
    assert left.get("uncertain", 0) == 0 and left["pending"] > 300


def test_an_interrupted_program_waits_for_what_is_on_its_way(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 30.0
    process = start(
        batcher,
        """
try: batcher.run({"model": MODEL, "jobs": rows(50)}, out="o", concurrency=4)
except KeyboardInterrupt: said("interrupted")
""",
    )
    until(lambda: len(api.journal) == 4)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (out, process.returncode) == ('SAID "interrupted"\n', 0), err
    states = batcher.states("o")
    assert states == {"running": 4, "pending": 46}, states
    assert err == ""


def test_rows_are_taken_as_programs_have_them(batcher: Batcher) -> None:
    found, _ = program(
        batcher,
        """
import datetime, pathlib
class Number:
    def item(self): return 3
row = {"prompt": "{{ day }} {{ count }} {{ path }}", "image_urls": [URL]}
given = {"day": datetime.date(2026, 1, 2), "count": Number(), "path": pathlib.Path("a/b"), "none": None}
plan = batcher.plan({"name": "m", "model": MODEL, "inputs": row, "jobs": [given]}, sandbox=True)
said([plan.faults, plan.whole.samples[0]["inputs"]["prompt"]])
try: batcher.plan({"name": "m", "model": MODEL, "jobs": [{"prompt": object()}]})
except BatcherError as error: said("JSON has no such value" in str(error))
""",
    )
    assert found == [[[], "2026-01-02 3 a/b"], True]


def test_what_is_handed_over_leaves_nothing_behind(batcher: Batcher, tmp_path: Path) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    program(
        batcher,
        """
said(batcher.plan({"name": "m", "model": MODEL, "jobs": rows(3)}).jobs)
said(batcher.run({"model": MODEL, "jobs": rows(3)}, out="o").exit_code)
try: batcher.run({"name": "m", "model": MODEL, "jobs": [{}]})
except BatcherError: said("faulty")
""",
        TMPDIR=str(temporary),
    )
    assert [*temporary.iterdir()] == []
