"""The main job against a server written from the API's page alone, over real HTTP."""

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.nights.memory import picture
from tests.real.api import TOKEN, Api, raw
from tests.real.conftest import MODEL, Batcher, Done, Until, end


def sidecars(out: Path) -> list[dict[str, object]]:
    return [json.loads(file.read_text()) for file in sorted((out / "files").rglob("*.json"))]


def test_every_output_is_byte_for_byte_what_the_server_made(batcher: Batcher, api: Api) -> None:
    prompts = [f"prompt {n}" for n in range(200)]
    done = batcher.run_csv(prompts, "-o", "out", "--yes")
    assert done.code == 0, done.err
    assert sorted(api.prompts()) == sorted(prompts)
    found = sidecars(batcher.folder / "out")
    assert len(found) == 200
    for sidecar in found:
        output = sidecar["output"]
        assert isinstance(output, dict)
        content = (batcher.folder / "out" / output["file"]).read_bytes()
        assert content == picture(f"{sidecar['request_id']} 1")
        assert output["sha256"] == hashlib.sha256(content).hexdigest()
        entry = api.find(str(sidecar["request_id"]))
        assert entry and sidecar["inputs"] == entry.body
        assert set(sidecar) == {
            *("job_id", "model", "provider", "request_id", "inputs", "source", "vars", "sample"),
            *("output", "timing", "cost_usd", "manifest", "batcher"),
        }
        assert sidecar["cost_usd"] == {"estimated": 0.15, "billed": 0.12}
        assert all(dict(sidecar["timing"]).values())  # type: ignore[call-overload]
    assert api.downloads_with_token == 0
    assert api.strangers == []
    for file in (batcher.folder / "out").rglob("*"):
        assert file.is_dir() or TOKEN.encode() not in file.read_bytes(), file
    assert TOKEN not in done.err + done.out

    sent = len(api.requests)
    begun = time.monotonic()
    again = batcher("run", "jobs.csv", "--model", MODEL, "-o", "out", RUNCOMFY_MODEL_API_BASE=api.base + "/v1/")
    assert again.code == 0, again.err
    assert len(api.requests) == sent, "a run with everything done asked for something"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -9),
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_a_run_that_was_ended_goes_on(batcher: Batcher, api: Api, until: Until, number: int, code: int) -> None:
    api.delay = 2.0  # so that it is at work still when the signal comes, also where the machine is busy
    manifest = batcher.csv([f"p{n}" for n in range(40)])
    process = batcher.start("run", manifest, "--model", MODEL, "-j", "8")
    until(lambda: len(api.journal) >= 12)
    ended, err = end(process, number)
    api.delay = 0.3
    assert ended == code, err
    done = batcher("run", manifest, "--model", MODEL)
    states = batcher.states()
    if number != signal.SIGKILL:
        assert done.code == 0, done.err
        assert states == {"done": 40}, "a signal made something uncertain"
        assert "batcher resume" in err
    assert len(set(api.prompts())) == len(api.journal), "a job was accepted twice"
    assert states["done"] + states.get("uncertain", 0) == 40


def test_a_wrong_token_costs_few_requests(batcher: Batcher, api: Api) -> None:
    manifest = batcher.csv([f"p{n}" for n in range(100)])
    done = batcher("run", manifest, "--model", MODEL, RUNCOMFY_TOKEN="wrong")
    assert done.code == 77
    assert len(api.requests) <= 3
    assert batcher("status", "runs/jobs", "--json").json()["stopped"]["reason"] == "token"
    assert "wrong" not in (batcher.folder / "runs/jobs/run.jsonl").read_text()
    assert batcher("resume", "runs/jobs").code == 0


def test_no_token_is_said_before_anything_is_made(batcher: Batcher, api: Api) -> None:
    done = batcher("run", batcher.csv(["p"]), "--model", MODEL, RUNCOMFY_TOKEN="")
    assert done.code == 77
    assert "RUNCOMFY_TOKEN" in done.err
    assert not (batcher.folder / "runs" / "jobs").exists()
    assert api.requests == []


def test_an_empty_balance_stops_and_the_run_goes_on_when_paid(batcher: Batcher, api: Api) -> None:
    api.paid = False
    done = batcher.run_csv([f"p{n}" for n in range(50)])
    assert done.code == 75
    assert "balance" in done.err
    assert len(api.requests) <= 3
    api.paid = True
    assert batcher("resume", "runs/jobs").code == 0
    assert batcher.states() == {"done": 50}


def test_one_bad_job_does_not_stop_the_others(batcher: Batcher, api: Api) -> None:
    prompts = ["a", "b FAIL", "c POLICY", "d CANCELLED", "e INVALID", "f"]
    done = batcher.run_csv(prompts)
    assert done.code == 1
    jobs = {job["name"].split("-")[0]: job for job in batcher("jobs", "runs/jobs", "--json").lines()}
    assert {key: job["state"] for key, job in jobs.items()} == {
        "a": "done",
        "b": "failed",
        "c": "failed",
        "d": "cancelled",
        "e": "failed",
        "f": "done",
    }
    assert jobs["b"]["error"] == {"kind": "failed", "message": "the model fell over"}
    assert jobs["c"]["error"]["kind"] == "refused"
    assert jobs["e"]["error"]["kind"] == "invalid"
    assert "prompt is not to our liking" in jobs["e"]["error"]["message"]
    assert len(api.journal) == 5
    assert "batcher retry" in done.err
    assert batcher.run_csv(prompts).code == 1
    assert len(api.journal) == 5, "a failed generation was bought again unasked"
    retried = batcher("retry", "runs/jobs", "--kind", "failed")
    assert (retried.code, batcher.states()["pending"]) == (0, 1)
    assert batcher("retry", "runs/jobs", "--state", "cancelled").code == 0
    assert batcher("resume", "runs/jobs").code == 1
    assert len(api.journal) == 7
    assert [job["attempts"] for job in batcher("jobs", "runs/jobs", "--json", "--kind", "failed").lines()] == [2]


def test_attempts_buy_a_failed_generation_again_as_often_as_allowed(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x FAIL, image_urls: [https://i.invalid/1.png]}}\nretry: {{attempts: 3}}\n"
    )
    assert batcher("run", "m.yaml").code == 1
    assert len(api.journal) == 3


def test_equal_rows_make_samples_and_every_input_field_arrives(batcher: Batcher, api: Api) -> None:
    row = {
        "prompt": "a",
        "image_urls": ["https://i.invalid/1.png"] * 20,
        "aspect_ratio": "21:9",
        "resolution": "4K",
        "output_format": "webp",
        "num_images": 4,
        "sync_mode": False,
    }
    (batcher.folder / "rows.jsonl").write_text((json.dumps(row) + "\n") * 2)
    plan = batcher("plan", "rows.jsonl", "--model", MODEL, "--json").json()
    assert (plan["jobs"], plan["equal_rows"], plan["fault_count"]) == (2, 1, 0)
    assert plan["cost_usd"]["estimated"] == pytest.approx(2.4)
    done = batcher("run", "rows.jsonl", "--model", MODEL)
    assert done.code == 0, done.err
    assert [entry.body for entry in api.journal] == [row, row]
    found = sidecars(batcher.folder / "runs/rows")
    assert sorted(sidecar["sample"] for sidecar in found) == [1] * 4 + [2] * 4  # type: ignore[type-var]
    assert {Path(dict(sidecar["output"])["file"]).stem[-2:] for sidecar in found} == {"-1", "-2", "-3", "-4"}  # type: ignore[call-overload]


def test_a_result_that_comes_as_a_data_uri_is_a_file_like_any_other(batcher: Batcher, api: Api) -> None:
    done = batcher.run_csv(["a"], "--set", "sync_mode=true")
    assert done.code == 0, done.err
    assert "sync_mode" in done.err
    (sidecar,) = sidecars(batcher.folder / "runs/jobs")
    assert (batcher.folder / "runs/jobs" / dict(sidecar["output"])["file"]).read_bytes() == picture("r-1 1")  # type: ignore[call-overload]


def test_a_model_of_the_catalogue_is_looked_up_once(batcher: Batcher, api: Api) -> None:
    api.catalogue["some/lab/paint"] = {
        "model_id": "some/lab/paint",
        "base_price_usd": 0.05,
        "input_schema": {
            "type": "object",
            "required": ["prompt", "image"],
            "properties": {
                "prompt": {"type": "string"},
                "image": {"type": "string", "format": "image_uri"},
                "number_of_images": {"type": "integer", "maximum": 4},
            },
        },
    }
    (batcher.folder / "m.yaml").write_text(
        "model: some/lab/paint\ninputs: {prompt: x, image: https://i.invalid/1.png, number_of_images: 2}\n"
    )
    assert batcher("run", "m.yaml").code == 0
    assert batcher("status", "runs/m", "--json").json()["cost_usd"]["estimated"] == 0.1
    asked = [path for method, path in api.requests if method == "GET" and path.startswith("/v1/models")]
    assert asked == ["/v1/models/some/lab/paint"]
    assert batcher("run", "m.yaml").code == 0
    assert len([path for _, path in api.requests if path == asked[0]]) == 2  # one look-up, one submission
    (batcher.folder / "n.yaml").write_text("model: no/such/model\ninputs: {prompt: x}\n")
    assert batcher("run", "n.yaml").code == 65


def test_a_budget_is_never_passed(batcher: Batcher, api: Api) -> None:
    done = batcher.run_csv([f"p{n}" for n in range(20)], "--max-cost", "1.00")
    assert done.code == 75
    assert len(api.journal) == 8, "7 x 0.12 billed leave room for 0.15; 8 x 0.12 do not"
    cost = batcher("status", "runs/jobs", "--json").json()["cost_usd"]
    assert cost["worst_case"] <= 1.0
    assert batcher("resume", "runs/jobs", "--max-cost", "10").code == 0


def test_a_selection_is_kept_and_widened(batcher: Batcher, api: Api) -> None:
    prompts = [f"p{n}" for n in range(12)]
    assert batcher.run_csv(prompts, "--sample", "4").code == 0
    assert batcher.states() == {"done": 4, "pending": 8}
    assert batcher("resume", "runs/jobs").code == 0
    assert len(api.journal) == 4
    assert batcher.run_csv(prompts, "--where", "prompt == 'p3'").code == 0
    assert batcher.run_csv(prompts).code == 0
    assert sorted(api.prompts()) == sorted(prompts)


def test_an_edited_manifest_runs_only_what_changed(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b", "c"]).code == 0
    assert batcher.run_csv(["a", "b", "d"]).code == 0
    assert sorted(api.prompts()) == ["a", "b", "c", "d"]
    found = batcher("status", "runs/jobs", "--json").json()
    assert (found["total"], found["unlisted"]) == (3, 1)
    assert batcher.run_csv(["x"]).code == 0, "so few are a sample that is tried again"
    many = [f"p{n}" for n in range(24)]
    assert batcher.run_csv(many).code == 0
    refused = batcher.run_csv([*many[:2], "y", "z"], "--yes")
    assert refused.code == 64
    assert "--replace-done" in refused.err
    assert len(api.journal) == 5 + 24
    said = batcher("plan", batcher.csv([*many[:2], "y", "z"]), "--model", MODEL).out
    assert "22 finished jobs are no longer named" in said and "`run` asks first (--replace-done)" in said
    assert batcher.run_csv(many[:2], "--replace-done").code == 0 and len(api.journal) == 29


def prompts_in(folder: Path) -> list[str]:
    return sorted(json.loads(file.read_text())["inputs"]["prompt"] for file in (folder / "files").glob("*.json"))


def named(batcher: Batcher, prompts: Sequence[str], *more: str) -> Done:
    """Run a manifest whose files are called by their rows, so that another prompt takes an earlier one's name."""
    rows = [
        {"sku": f"s{n}", "prompt": prompt, "image_urls": ["https://images.invalid/0.png"]}
        for n, prompt in enumerate(prompts)
    ]
    retry = {"fetch_timeout": "2s"}
    manifest = {"model": MODEL, "jobs": rows, "output": {"name": "{{ sku }}"}, "retry": retry}
    (batcher.folder / "m.yaml").write_text(json.dumps(manifest))
    return batcher("run", "m.yaml", *more)


def test_an_edit_that_is_undone_has_its_own_pictures_again(batcher: Batcher, api: Api) -> None:
    """They stayed in `replaced/`, under the names of which stood the pictures of the other prompts."""
    out = batcher.folder / "runs/m"
    for prompts in (
        ["put a", "put b"],
        ["place a", "put b"],
        ["put a", "put b"],
        ["place a", "place b"],
        ["put a", "put b"],
    ):
        assert named(batcher, prompts).code == 0
        assert prompts_in(out) == sorted(prompts)
        assert batcher("status", "runs/m", "--json").json()["files"] == 2
        assert batcher("verify", "runs/m").code == 0
    assert len(api.journal) == 4
    assert named(batcher, ["put a"], "-o", "runs/other").code == 0 and len(api.journal) == 5
    assert named(batcher, ["place a", "place b"], "-o", "runs/third", "--reuse", "runs/m").code == 0
    assert len(api.journal) == 5, "what gave way can be taken over as well"


def test_an_edit_that_is_undone_keeps_what_sidecars_tell_and_minds_a_start_that_was_cut_off(
    batcher: Batcher, api: Api
) -> None:
    """A file was moved back, and the power went before the ledger knew; and a reused file tells where it is from."""
    out = batcher.folder / "runs/m"
    assert named(batcher, ["put a", "put b"], "-o", "runs/old").code == 0
    assert named(batcher, ["put a", "put b"], "--reuse", "runs/old").code == 0
    assert named(batcher, ["place a", "place b"]).code == 0 and len(api.journal) == 4
    assert named(batcher, ["put a", "put b"]).code == 0
    with contextlib.closing(sqlite3.connect(out / "ledger.sqlite")) as connection:
        moved = "UPDATE outputs SET file = 'replaced/' || job_id || '/s0.png' WHERE file = 'files/s0.png'"
        assert connection.execute(moved).rowcount == 1
        connection.commit()
    sidecar = out / "files/s0.json"
    stayed = out / "replaced" / json.loads(sidecar.read_text())["job_id"] / "s0.json"
    stayed.parent.mkdir()
    sidecar.rename(stayed)
    assert batcher("pause", "runs/m").code == 0
    assert named(batcher, ["put a", "put b"]).code == 0, "nothing is left to do, so that a pause holds nothing up"
    assert prompts_in(out) == ["put a", "put b"]
    told = [json.loads(file.read_text()) for file in (out / "files").glob("*.json")]
    assert [one["reused"]["directory"].endswith("runs/old") for one in told] == [True, True]
    assert all((out / str(one["output"]["file"])).exists() for one in told)
    assert batcher("verify", "runs/m").code == 0 and len(api.journal) == 4


def test_an_edit_that_is_undone_fetches_again_what_the_user_threw_away(batcher: Batcher, api: Api) -> None:
    out = batcher.folder / "runs/m"
    assert named(batcher, ["put a", "put b"]).code == 0
    assert named(batcher, ["place a", "place b"]).code == 0
    shutil.rmtree(out / "replaced")
    assert named(batcher, ["put a", "put b"]).code == 0
    assert prompts_in(out) == ["put a", "put b"] and len(api.journal) == 4
    assert batcher("verify", "runs/m").code == 0
    assert named(batcher, ["place a", "place b"]).code == 0
    shutil.rmtree(out / "replaced")
    api.file_statuses = {f"{one.id}/1": 410 for one in api.journal}
    lost = named(batcher, ["put a", "put b"])
    assert lost.code == 1 and "2 failed" in lost.err and len(api.journal) == 4, "and says what cannot be had any more"


def test_an_unchanged_manifest_is_not_read_again_and_a_changed_one_is(batcher: Batcher, api: Api) -> None:
    photo, ledger = batcher.folder / "photo.png", batcher.folder / "runs/m/ledger.sqlite"
    photo.write_bytes(picture("photo"))
    (batcher.folder / "rows.csv").write_text("prompt\na\nb\n")
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: rows.csv\ninputs: {{image_urls: [photo.png]}}\n")

    def run(*options: str) -> list[int]:
        """Mark the jobs, run, and give their places: a manifest that is read puts them right."""
        if ledger.exists():
            with contextlib.closing(sqlite3.connect(ledger)) as connection:
                connection.execute("UPDATE jobs SET position = position + 100")
                connection.commit()
        done = batcher("run", "m.yaml", "--replace-done", *options)
        assert done.code == 0, done.err
        with contextlib.closing(sqlite3.connect(ledger)) as connection:
            return [row[0] for row in connection.execute("SELECT position FROM jobs WHERE listed = 1 ORDER BY 1")]

    assert run() == [1, 2]
    assert run() == [101, 102]
    assert run("--limit", "1") == [1, 2]
    assert run() == [1, 2]
    os.utime(photo)
    assert run() == [1, 2]
    assert run() == [101, 102]
    (batcher.folder / "rows.csv").write_text("prompt\na\nc\n")
    assert run() == [1, 2]
    assert sorted(api.prompts()) == ["a", "b", "c"]
    photo.unlink()
    assert batcher("run", "m.yaml").code == 65


def test_an_unlisted_jobs_files_give_way_to_the_new_owner_of_its_name(batcher: Batcher, api: Api) -> None:
    text = (
        f"model: {MODEL}\ninputs: {{prompt: PROMPT, image_urls: [https://i.invalid/1.png]}}\noutput: {{name: same}}\n"
    )
    (batcher.folder / "m.yaml").write_text(text.replace("PROMPT", "one"))
    assert batcher("run", "m.yaml").code == 0
    (batcher.folder / "m.yaml").write_text(text.replace("PROMPT", "two"))
    assert batcher("run", "m.yaml", "--yes").code == 0
    out = batcher.folder / "runs/m"
    assert (out / "files/same.png").read_bytes() == picture("r-2 1")
    (old,) = (out / "replaced").iterdir()
    assert (old / "same.png").read_bytes() == picture("r-1 1")
    assert json.loads((old / "same.json").read_text())["request_id"] == "r-1"
    assert batcher("status", "runs/m", "--json").json()["files"] == 1
    for _ in range(2):
        verified = batcher("verify", "runs/m")
        assert verified.code == 0 and "replaced" not in verified.out + verified.err, verified.out
        shutil.rmtree(old, ignore_errors=True)  # what gave way is the user's to keep or to throw away
    assert not old.exists() and len(api.journal) == 2


def test_cancel_takes_back_what_is_queued(batcher: Batcher, api: Api, until: Until) -> None:
    api.queued = True
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(10)]), "--model", MODEL, "-j", "4")
    until(lambda: len(api.journal) >= 4)
    assert batcher("cancel", "runs/jobs").code == 0
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert batcher.states() == {"cancelled": 4, "pending": 6}
    found = batcher("status", "runs/jobs", "--json").json()["stopped"]
    assert (found["reason"], found["retryable"]) == ("paused", False)
    api.queued = False
    assert batcher("resume", "runs/jobs").code == 1
    assert batcher.states() == {"cancelled": 4, "done": 6}


def test_cancel_without_a_run_at_work(batcher: Batcher, api: Api, until: Until) -> None:
    api.queued = True
    process = batcher.start("run", batcher.csv(["a", "b"]), "--model", MODEL)
    until(lambda: len(api.journal) == 2)
    assert end(process, signal.SIGINT)[0] == 130
    assert batcher("cancel", "runs/jobs", "--json").json() == {"cancelled": 2, "running": 0}
    assert batcher.states() == {"cancelled": 2}


def test_retry_reaches_a_run_that_is_at_work(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 0.3
    process = batcher.start("run", batcher.csv(["a FAIL", "b QUEUED"]), "--model", MODEL)
    until(lambda: batcher("jobs", "runs/jobs", "--json", "--state", "failed").out != "")
    left = batcher("retry", "runs/jobs", "--json")
    assert left.json() == {"jobs": 1, "left_to_run_at_work": True}
    until(lambda: api.prompts().count("a FAIL") == 2)
    code, err = end(process, signal.SIGINT)
    assert code == 130, err
    assert not (batcher.folder / "runs/jobs/.asks").exists()


@pytest.mark.long
def test_a_second_signal_ends_at_once(batcher: Batcher, api: Api, until: Until) -> None:
    api.stalls = True
    process = batcher.start("run", batcher.csv(["a"]), "--model", MODEL)
    until(lambda: len(api.journal) == 1)
    os.kill(process.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    assert end(process, signal.SIGINT)[0] == 130
    api.stalls = False
    assert batcher("resume", "runs/jobs").code == 1
    assert batcher.states() == {"uncertain": 1}
    assert len(api.journal) == 1


def test_a_second_run_on_the_same_directory_is_refused(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 30
    manifest = batcher.csv(["a"])
    process = batcher.start("run", manifest, "--model", MODEL)
    until(lambda: len(api.journal) == 1)
    second = batcher("run", manifest, "--model", MODEL)
    assert second.code == 75
    assert "another run" in second.err
    assert batcher.states() == {"running": 1}
    end(process)
    api.delay = 0
    assert batcher("run", manifest, "--model", MODEL).code == 0, "the lock outlived its process"


@pytest.mark.long
def test_a_pipe_that_goes_away_ends_the_printing_not_the_run(batcher: Batcher, api: Api, until: Until) -> None:
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(10)]), "--model", MODEL, "--json")
    assert process.stdout and process.stderr
    process.stdout.close()
    process.stderr.close()
    assert process.wait(60) == 0
    assert batcher.states() == {"done": 10}


@pytest.mark.long
def test_a_service_that_refuses_connections_is_waited_for_no_longer_than_patience(batcher: Batcher) -> None:
    """Where a hold ended between two questions, the run slept for half a minute."""
    for _ in range(3):
        begun = time.monotonic()
        gone = batcher.run_csv(["a"], "--patience", "2s", RUNCOMFY_MODEL_API_BASE="http://127.0.0.1:9")
        assert gone.code == 69, gone.err
        assert time.monotonic() - begun < 25


@pytest.mark.parametrize(
    "closed", ["<&- >&- 2>&-", *(pytest.param(one, marks=pytest.mark.long) for one in (">&-", "2>&-", "2>/dev/full"))]
)
def test_a_standard_stream_that_was_never_there_changes_no_exit_code(batcher: Batcher, closed: str) -> None:
    manifest = batcher.csv(["a", "FAIL"])
    command = f'"$0" -m batcher run {manifest} --model {MODEL} {closed}'
    shell = ["sh", "-c", command, sys.executable]
    assert subprocess.run(shell, cwd=batcher.folder, env=batcher.environ, timeout=60, check=False).returncode == 1
    assert batcher.states() == {"done": 1, "failed": 1}
    assert batcher("verify", "runs/jobs").code == 0


def test_events_come_as_json_lines_and_nothing_else(batcher: Batcher) -> None:
    done = batcher.run_csv(["a", "b FAIL"], "--json")
    assert done.code == 1
    events = done.lines()
    assert [events[0]["event"], events[-1]["event"]] == ["started", "ended"]
    assert events[-1]["stopped"] is None
    moves = [event for event in events if event["event"] == "moved"]
    assert {event["to"] for event in moves} == {"submitting", "running", "fetching", "done", "failed"}
    assert done.err == ""


def last(done: Done) -> tuple[int, str, str]:
    """Give the exit code, and the reason and command of the last event, which is the only one."""
    (event,) = done.lines()
    assert (event["event"], event["exit_code"]) == ("ended", done.code)
    return done.code, event["stopped"]["reason"], event["stopped"]["next"]


@pytest.mark.long
def test_a_start_that_cannot_begin_says_why_in_its_last_event_too(batcher: Batcher, api: Api, until: Until) -> None:
    manifest = batcher.csv(["a"])
    again = f"batcher run {manifest} --model {MODEL} --json"
    run = ("run", manifest, "--model", MODEL, "--json")
    assert last(batcher(*run, RUNCOMFY_TOKEN="")) == (77, "token", f"RUNCOMFY_TOKEN=... {again}")
    assert last(batcher("run", manifest, "--json"))[:2] == (65, "manifest")
    assert last(batcher("run", "gone.yaml", "--json"))[:2] == (66, "not_found")
    assert last(batcher("resume", "runs/gone", "--json"))[:2] == (66, "not_found")
    api.delay = 600
    process = batcher.start("run", manifest, "--model", MODEL)
    until(lambda: len(api.journal) == 1)
    assert last(batcher(*run)) == (75, "locked", again)
    end(process)


def has_a_loop(process: "subprocess.Popen[str]") -> bool:
    """Say whether a process has an event loop: its modules are imported then."""
    links = []
    for fd in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            links.append(str(fd.readlink()))
    return any("eventpoll" in link for link in links)


def test_an_interruption_before_the_work_is_said_too(batcher: Batcher, until: Until) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "batcher", "run", "-", "--json", "--model", MODEL, "-o", "out"],
        cwd=batcher.folder,
        env=batcher.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    batcher.started.append(process)
    until(lambda: has_a_loop(process))
    until(lambda: "pipe" in Path(f"/proc/{process.pid}/wchan").read_text())  # it reads its manifest, which never comes
    os.killpg(process.pid, signal.SIGINT)
    out = process.communicate(timeout=30)[0]
    assert last(Done(process.returncode, out, ""))[:2] == (130, "interrupted")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long),
    ],
)
def test_a_signal_while_a_manifest_is_read_loses_no_limit(batcher: Batcher, api: Api, number: int, code: int) -> None:
    """The jobs were taken in, the limit was not yet: `resume` bought them without one."""
    manifest = batcher.csv([f"p{n}" for n in range(30_000)])
    process = batcher.start("run", manifest, "--model", MODEL, "--max-cost", "0.45", "--json", "-o", "out")
    ledger = batcher.folder / "out/ledger.sqlite"
    begun = time.monotonic()
    while not ledger.exists() or time.monotonic() - begun < 1.2:
        time.sleep(0.01)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    *_, ended = [json.loads(line) for line in out.splitlines()]
    assert (ended["event"], ended["stopped"]["reason"]) == ("ended", "interrupted")
    resumed = batcher("resume", "out", "-q")
    assert resumed.code in {66, 75}, "there is nothing to go on with, or the limit stands"
    assert len(api.journal) <= 3


def test_the_environment_sets_inputs_a_line_each_and_an_option_wins(batcher: Batcher, api: Api) -> None:
    done = batcher.run_csv(["a"], "--set", "resolution=2K", BATCHER_SET="prompt=of the room\nresolution=4K\n")
    assert done.code == 0, done.err
    assert [(one.body["prompt"], one.body["resolution"]) for one in api.journal] == [("of the room", "2K")]


def test_verbose_says_a_line_for_each_job(batcher: Batcher, api: Api) -> None:
    done = batcher.run_csv(["first", "second FAIL"], "-v")
    jobs = {job["state"]: job for job in batcher("jobs", "runs/jobs", "--json").lines()}
    said = [line for line in done.err.splitlines() if "request r-" in line]
    assert len(said) == 2
    for state, job in jobs.items():
        (line,) = [line for line in said if job["job_id"] in line]
        assert f"{job['name']} {state}" in line and job["request_id"] in line


@pytest.mark.parametrize("where", ["out", "manifest", "set", "folder"])
def test_a_name_that_is_no_utf_8_is_refused_and_no_bug(batcher: Batcher, where: str) -> None:
    manifest, odd = batcher.csv(["a"]), "x\udcff"
    if where == "folder":
        (batcher.folder / odd).mkdir()
        (batcher.folder / odd / manifest).write_bytes((batcher.folder / manifest).read_bytes())
        command, folder = ["run", manifest, "--model", MODEL], batcher.folder / odd
    else:
        more = {"out": ["-o", odd], "set": ["--set", f"prompt={odd}"], "manifest": []}[where]
        command, folder = ["run", odd if where == "manifest" else manifest, "--model", MODEL, *more], batcher.folder
    done = subprocess.run(
        [sys.executable, "-m", "batcher", *command], cwd=folder, env=batcher.environ, capture_output=True, check=False
    )
    assert done.returncode == 64 and b"UTF-8" in done.stderr, done.stderr


@pytest.mark.parametrize("wrong", ["--speed=0", "--fail=2", "--slots=0", "--outage=1:-2", "--port=99999", "--seed=x"])
def test_the_sandbox_refuses_what_can_be_no_number(batcher: Batcher, wrong: str) -> None:
    done = batcher("sandbox", wrong)
    assert done.code == 64 and wrong.partition("=")[0] in done.err


def test_a_limit_to_the_cost_that_comes_later_asks_for_prices_too(batcher: Batcher, api: Api, until: Until) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [https://images.invalid/a.png]}}\nprices: {{4K: 0.3}}\n"
        "repeat: 3\nlimits: {concurrency: 1}\n"
    )
    api.delay = 600
    process = batcher.start("run", "m.yaml")
    until(lambda: len(api.journal) == 1)
    refused = batcher("set", "runs/m", "max_cost=1")
    assert refused.code == 64 and "no price" in refused.err
    end(process)
    refused = batcher("resume", "runs/m", "--max-cost", "1")
    assert refused.code == 64 and "no price" in refused.err
    refused = batcher("run", "m.yaml", "--max-cost", "1", "--skip-invalid")
    assert refused.code == 65 and "no price" in refused.err
    assert not (batcher.folder / "runs/m/rejected.csv").exists(), "no row is at fault"
    assert len(api.journal) == 1


def test_sync_mode_of_a_column_is_warned_about_each_time(batcher: Batcher) -> None:
    (batcher.folder / "jobs.csv").write_text(
        "prompt,image_urls,sync_mode\na,https://i.invalid/1.png,true\nb,https://i.invalid/1.png,\n"
    )
    for _ in range(2):
        done = batcher("run", "jobs.csv", "--model", MODEL)
        assert done.code == 0 and "sync_mode is on for 1 job:" in done.err
    assert "sync_mode is on for 1 job:" in batcher("plan", "jobs.csv", "--model", MODEL).out


def test_a_job_that_timed_out_is_asked_for_again_and_not_bought_again(batcher: Batcher, api: Api) -> None:
    api.queued = True
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [https://i.invalid/1.png]}}\nretry: {{job_timeout: 1s}}\n"
    )
    assert batcher("run", "m.yaml").code == 1
    (job,) = batcher("jobs", "runs/m", "--json", "--kind", "timeout").lines()
    assert job["request_id"] == "r-1"
    api.queued = False
    assert batcher("retry", "runs/m", "--kind", "timeout").code == 0
    assert batcher("resume", "runs/m").code == 0
    assert len(api.journal) == 1


@pytest.mark.parametrize("kind", ["no_output", "unfetched", "expired", "bad_output"])
def test_a_result_without_output_is_asked_for_anew_by_retry(batcher: Batcher, api: Api, kind: str) -> None:
    api.bad_files = {"r-1/1"}
    assert batcher.run_csv(["a"]).code == 1
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        ledger.execute("UPDATE jobs SET kind = ?", [kind])
    api.bad_files = set()
    assert batcher("retry", "runs/jobs").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    assert len(api.journal) == 1
    (sidecar,) = sidecars(batcher.folder / "runs/jobs")
    assert sidecar["request_id"] == "r-1"


def test_a_photo_is_sent_as_a_data_uri_and_shortened_in_the_sidecar(batcher: Batcher, api: Api) -> None:
    Image.effect_noise((300, 200), 60).convert("RGB").save(batcher.folder / "p.jpg", quality=95)
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [p.jpg]}}\n")
    assert batcher("run", "m.yaml").code == 0
    sent = api.journal[0].body["image_urls"][0]
    content = (batcher.folder / "p.jpg").read_bytes()
    assert sent == "data:image/jpeg;base64," + base64.b64encode(content).decode()
    (sidecar,) = sidecars(batcher.folder / "runs/m")
    assert sidecar["source"] == ["p.jpg"]
    assert dict(sidecar["inputs"])["image_urls"] == [f"sha256:{hashlib.sha256(content).hexdigest()}"]  # type: ignore[call-overload]
    (batcher.folder / "p.jpg").unlink()
    assert batcher("resume", "runs/m").code == 0
    api.paid = False
    (batcher.folder / "p.jpg").write_bytes(content)
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\ninputs: {{prompt: y, image_urls: [p.jpg]}}\n")
    assert batcher("run", "m.yaml", "--yes").code == 75
    (batcher.folder / "p.jpg").write_bytes(content + b"x")
    assert batcher("resume", "runs/m").code == 1
    assert batcher("status", "runs/m", "--json").json()["errors"] == {"source": 1}


@pytest.mark.long
def test_a_file_host_that_is_down_fails_its_jobs_and_costs_nothing(batcher: Batcher, api: Api) -> None:
    api.files_down = True
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: jobs.csv\nretry: {{fetch_timeout: 3s}}\n")
    batcher.csv(["a", "b"])
    assert batcher("run", "m.yaml", "--patience", "2s").code == 1, "patience is for a service that does not answer"
    assert batcher("status", "runs/m", "--json").json()["errors"] == {"unfetched": 2}
    assert batcher("retry", "runs/m").code == 0
    expired = batcher("resume", "runs/m", RUNCOMFY_TOKEN="expired")
    assert expired.code == 77, "a token that expired while files are fetched"
    assert batcher.states("runs/m") == {"fetching": 2}
    api.files_down = False
    assert batcher("resume", "runs/m").code == 0
    assert len(api.journal) == 2


def test_odd_words_of_the_server_lose_no_request_id(batcher: Batcher, api: Api) -> None:
    half = raw(422, '{"error": "bad prompt \\ud83d"}', "application/json")
    api.specials = [None, half]
    assert batcher.run_csv([f"p{n}" for n in range(8)]).code == 1
    assert batcher.states() == {"done": 7, "failed": 1}


def test_a_token_that_is_gone_is_in_the_books_of_a_run_that_is_kept(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    manifest = batcher.csv(["a", "b"])
    assert batcher("run", manifest, "--model", MODEL, RUNCOMFY_TOKEN="").code == 77
    assert json.loads((batcher.folder / "runs/jobs/summary.json").read_text())["stopped"]["reason"] == "token"
    assert batcher("resume", "runs/jobs").code == 0


def test_again_buys_whatever_did_not_get_done_and_asks_first(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b FAIL", "c CANCELLED"]).code == 1
    asked = batcher("retry", "runs/jobs", "--again")
    assert asked.code == 64
    assert "2 jobs may be billed twice" in asked.err
    assert batcher("retry", "runs/jobs", "--again", "--yes").code == 0
    assert batcher.states() == {"done": 1, "pending": 2}


def test_a_plan_counts_what_the_run_has_done_already(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b", "c"], "--limit", "2").code == 0
    planned = batcher("plan", "jobs.csv", "--model", MODEL, "--json").json()
    assert (planned["jobs"], planned["begun"], planned["cost_usd"]["estimated"]) == (3, 2, 0.15)
    assert "2 are done or under way already" in batcher("plan", "jobs.csv", "--model", MODEL).out
    assert batcher("plan", "jobs.csv", "--model", MODEL, "-o", "elsewhere", "--json").json()["begun"] == 0
    assert batcher.run_csv(["a", "FAIL"]).code == 1
    assert batcher("plan", "jobs.csv", "--model", MODEL, "--json").json()["held"] == {"failed": 1}
    said = batcher("plan", "jobs.csv", "--model", MODEL).out
    assert (
        "1 are done" in said
        and "1 failed: `run` leaves them" in said
        and "batcher retry runs/jobs --state failed" in said
    )
