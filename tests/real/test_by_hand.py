"""What the user does by hand to a run, at work or at rest: pause, set, adopt, verify, doctor."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from batcher.control import mailbox
from batcher.control.client import Done, carry_out
from batcher.control.commands import Acknowledged, JobsRetried, Pause, RetryJobs
from batcher.errors import LedgerInUse
from batcher.ledger.reader import Reader
from batcher.ledger.retry import RetrySelection
from tests.nights.memory import picture
from tests.real.api import TOKEN, Api, accepts_and_hangs_up
from tests.real.conftest import MODEL, Batcher, Until, end


@pytest.mark.long
def test_a_pause_ends_the_run_and_stands_until_resume(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 600
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(12)]), "--model", MODEL, "-j", "2")
    until(lambda: len(api.journal) == 2)
    assert batcher("pause", "runs/jobs").code == 0
    api.delay = 0.1
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "paused" in err and "batcher resume" in err
    assert len(api.journal) == 2, "it submits no more"
    assert batcher.states() == {"done": 2, "pending": 10}, "what was in flight is finished"
    again = batcher("run", "jobs.csv", "--model", MODEL)
    assert again.code == 75
    assert "resume" in again.err
    assert batcher("status", "runs/jobs", "--json").json()["stopped"]["reason"] == "paused"
    assert len(api.journal) == 2
    assert batcher("resume", "runs/jobs").code == 0
    assert batcher.states() == {"done": 12}


def test_a_pause_without_a_run_at_work_stands_too(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b"], "--limit", "1").code == 0
    assert batcher("pause", "runs/jobs", "--json").json() == {"paused": True, "left_to_run_at_work": False}
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 75
    assert batcher("resume", "runs/jobs").code == 0
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    assert len(api.journal) == 2


def test_set_changes_a_run_at_work_and_is_forgotten(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 600
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(8)]), "--model", MODEL, "-j", "1")
    until(lambda: len(api.journal) == 1)
    said = batcher("set", "runs/jobs", "concurrency=5", "--json")
    assert said.json()["limits"]["concurrency"] == 5
    until(lambda: len(api.journal) == 5)
    assert batcher("set", "runs/jobs", "max_cost=0.75").code == 0
    api.delay = 0.1
    assert finish(process) == 75
    assert len(api.journal) <= 6, "the budget that was set holds"
    policy = json.loads((batcher.folder / "runs/jobs/summary.json").read_text())
    assert policy["stopped"]["reason"] == "budget"
    assert batcher("resume", "runs/jobs").code == 0


def test_set_says_what_cannot_be_set(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    none = batcher("set", "runs/jobs", "concurrency=3")
    assert none.code == 64 and "no run is at work" in none.err
    wrong = batcher("set", "runs/jobs", "concurency=3")
    assert wrong.code == 64 and "concurrency" in wrong.err
    assert batcher("set", "runs/jobs", "concurrency=0").code == 64
    assert batcher("set", "runs/nowhere", "concurrency=1").code == 66


def finish(process: "subprocess.Popen[str]") -> int:
    process.communicate(timeout=60)
    return process.returncode


def lost(batcher: Batcher, api: Api) -> str:
    """Let one submission of three be lost; give the job's id."""
    api.specials = [None, accepts_and_hangs_up]
    assert batcher.run_csv(["a", "b", "c"], "-j", "1").code == 1
    assert batcher.states() == {"done": 2, "uncertain": 1}
    found: str = batcher("jobs", "runs/jobs", "--state", "uncertain", "--json").lines()[0]["job_id"]
    return found


def test_an_adopted_request_is_fetched_and_not_bought_again(batcher: Batcher, api: Api) -> None:
    job = lost(batcher, api)
    unknown = batcher("adopt", "runs/jobs", "--job", job, "--request-id", "../../x")
    assert unknown.code == 64 and "does not know" in unknown.err
    taken = batcher("adopt", "runs/jobs", "--job", job, "--request-id", "r-1")
    assert taken.code == 64 and "already" in taken.err
    assert batcher("adopt", "runs/jobs", "--job", "0" * 16, "--request-id", "r-2").code == 64
    assert batcher.states() == {"done": 2, "uncertain": 1}
    assert batcher("adopt", "runs/jobs", "--job", job, "--request-id", "r-2").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    assert len(api.journal) == 3
    found = batcher("jobs", "runs/jobs", "--json").lines()
    assert sorted(one["request_id"] for one in found) == ["r-1", "r-2", "r-3"]
    assert all(one["attempts"] == 1 for one in found)


def test_an_attempts_own_request_id_outlives_an_adoption(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["FAIL", "b"], "-j", "1").code == 1
    failed = batcher("jobs", "runs/jobs", "--state", "failed", "--json").lines()[0]
    api.accept({"prompt": "found in the history"})
    assert batcher("adopt", "runs/jobs", "--job", failed["job_id"], "--request-id", "r-3").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        rows = ledger.execute(
            "SELECT number, request_id, outcome FROM attempts WHERE job_id = ? ORDER BY number", [failed["job_id"]]
        ).fetchall()
    assert rows == [(1, failed["request_id"], "failed"), (2, "r-3", "done")]


def test_a_run_at_work_adopts_too(batcher: Batcher, api: Api, until: Until) -> None:
    job = lost(batcher, api)
    api.delay = 600
    process = batcher.start("run", batcher.csv(["a", "b", "c", "d"]), "--model", MODEL)
    until(lambda: len(api.journal) == 4)
    refused = batcher("adopt", "runs/jobs", "--job", job, "--request-id", "nobody-knows")
    assert refused.code == 64 and "does not know" in refused.err
    assert batcher("adopt", "runs/jobs", "--job", job, "--request-id", "r-2").code == 0
    api.delay = 0.1
    assert finish(process) == 0
    assert batcher.states() == {"done": 4}


def test_what_an_adopted_request_costs_counts_under_the_limit(batcher: Batcher, api: Api, until: Until) -> None:
    """Beside an attempt that failed and was not billed it is a second one: both are spoken for."""
    manifest = batcher.csv(["FAIL", "b", "c", "d"])
    process = batcher.start("run", manifest, "--model", MODEL, "-j", "1", "--max-cost", "0.45")
    until(lambda: len(api.journal) == 2)
    api.delay = 600
    until(lambda: batcher.states().get("failed") == 1)
    failed = batcher("jobs", "runs/jobs", "--state", "failed", "--json").lines()[0]["job_id"]
    found = api.accept({"prompt": "found in the history"})["request_id"]
    assert batcher("adopt", "runs/jobs", "--job", failed, "--request-id", found).code == 0
    api.delay = 0.1
    assert finish(process) == 75
    ledger = sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite")
    spoken = (
        "SELECT sum(coalesce(billed_usd, estimated_usd)) FROM attempts WHERE outcome NOT IN ('refused', 'turned_away')"
    )
    assert ledger.execute(spoken).fetchone()[0] <= 0.45 + 1e-9


def test_verify_finds_and_mends_what_was_damaged(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b", "c", "d"]).code == 0
    assert batcher("verify", "runs/jobs").code == 0
    out = batcher.folder / "runs/jobs"
    first, second, third, fourth = sorted((out / "files").glob("*.png"))
    before = {file: file.read_bytes() for file in (first, second, third, fourth)}
    first.unlink()
    second.write_bytes(b"scribbled over")
    third.with_suffix(".json").unlink()
    sidecar = json.loads(second.with_suffix(".json").read_text())
    found = batcher("verify", "runs/jobs", "--json")
    assert found.code == 1
    said = found.json()
    assert {one["file"] for one in said["damaged"]} == {f"files/{one.name}" for one in (first, second, third)}
    assert sorted(said["fetched"]) == [f"files/{first.name}", f"files/{second.name}"]
    assert said["lost"] == []
    assert {file: file.read_bytes() for file in before} == before
    replaced = list((out / "replaced").rglob("*.png"))
    assert [file.read_bytes() for file in replaced] == [b"scribbled over"]
    assert replaced[0].parent.name == sidecar["job_id"]
    assert json.loads(second.with_suffix(".json").read_text())["output"]["sha256"] == sidecar["output"]["sha256"]
    assert batcher("verify", "runs/jobs").code == 0
    assert len(api.journal) == 4, "nothing is bought by it"
    assert not list(out.glob(".*"))


def test_verify_puts_aside_what_is_no_file_and_waits_for_no_pipe(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b"]).code == 0
    first, second = sorted((batcher.folder / "runs/jobs/files").glob("*.png"))
    first.unlink()
    first.mkdir()
    second.unlink()
    os.mkfifo(second)
    found = batcher("verify", "runs/jobs", "--json")
    assert found.code == 1, found.err
    assert len(found.json()["fetched"]) == 2 and first.is_file() and second.is_file()
    assert batcher("verify", "runs/jobs").code == 0 and batcher.states() == {"done": 2}


def test_verify_sees_a_sidecar_that_is_anothers(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    (sidecar,) = (batcher.folder / "runs/jobs/files").glob("*.json")
    whole = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**whole, "request_id": "another"}))
    assert batcher("verify", "runs/jobs").code == 1
    assert json.loads(sidecar.read_text()) == whole


def test_one_odd_sidecar_keeps_no_other_from_being_taken_over(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b", "c", "d", "e"]).code == 0
    edits: list[dict[str, Any]] = [
        {"request_id": "\ud800"},
        {"output": {"bytes": 10**30}},
        {"output": {"file": "files/a\0.png"}},
        {"cost_usd": {"billed": -5}},
    ]
    for file, edit in zip(sorted((batcher.folder / "runs/jobs/files").glob("*.json")), edits, strict=False):
        said = json.loads(file.read_text())
        said |= {key: {**said[key], **value} if isinstance(value, dict) else value for key, value in edit.items()}
        file.write_text(json.dumps(said))
    done = batcher("run", "jobs.csv", "--model", MODEL, "-o", "new", "--reuse", "runs/jobs")
    assert done.code == 0, done.err
    assert "1 job taken over" in done.err and len(api.journal) == 9


def test_verify_reports_what_cannot_be_had_and_leaves_it_done(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b"]).code == 0
    gone = next(iter((batcher.folder / "runs/jobs/files").glob("*.png")))
    gone.unlink()
    api.journal.clear()
    found = batcher("verify", "runs/jobs")
    assert found.code == 1
    assert f"files/{gone.name} is missing" in found.out
    assert batcher.states() == {"done": 2}
    assert api.journal == []
    without = batcher("verify", "runs/jobs", "--json", RUNCOMFY_TOKEN="", HOME=str(batcher.folder))
    assert without.code == 1
    assert "token" in without.json()["lost"][0]["message"]


def test_verify_starts_the_sandbox_again(batcher: Batcher) -> None:
    (batcher.folder / "m.yaml").write_text(
        "model: google/nano-banana/pro/text-to-image\njobs: [{prompt: a mug}]\ninputs: {output_format: jpeg}\n"
    )
    assert batcher("run", "m.yaml", "--sandbox").code == 0
    file = next(iter((batcher.folder / "runs/m.sandbox/files").glob("*.jpg")))
    content = file.read_bytes()
    file.write_bytes(b"")
    assert batcher("verify", "runs/m.sandbox").code == 1
    assert file.read_bytes() == content


def test_doctor_says_what_is_wrong_before_the_night(batcher: Batcher, api: Api, tmp_path: Path) -> None:
    balance = {"RUNCOMFY_SERVERLESS_API_BASE": api.base}
    manifest = batcher.csv(["a", "b"])
    well = batcher("doctor", "--json", **balance)
    checks = {one["check"]: one for one in well.json()}
    assert well.code == 0, well.out
    assert checks["balance"]["ok"] and "12.50" in checks["balance"]["message"]
    assert checks["token"]["ok"] and checks["api"]["ok"] and checks["clock"]["ok"] and checks["space"]["ok"]
    ill = batcher("doctor", manifest, "--model", MODEL, "--json", RUNCOMFY_TOKEN="wrong", **balance)
    checks = {one["check"]: one for one in ill.json()}
    assert ill.code == 1
    assert checks["api"]["ok"] is False and "401" in checks["api"]["message"]
    assert checks["images"]["ok"] is False, "images.invalid has no address"
    assert checks["manifest"]["message"] == "2 jobs, 2 outputs"
    config = tmp_path / "config"
    config.mkdir()
    (config / "token.json").write_text(json.dumps({"token": "x", "expires_at": "2020-01-01T00:00:00Z"}))
    old = batcher("doctor", RUNCOMFY_TOKEN="", RUNCOMFY_CONFIG_DIR=str(config), **balance)
    assert old.code == 1
    assert "expired at 2020-01-01" in old.out
    usual = Path(batcher.environ["HOME"]) / ".config/runcomfy"
    usual.mkdir(parents=True)
    (usual / "token.json").write_text(json.dumps({"token": TOKEN}))
    (config / "token.json").unlink()
    kept = batcher("doctor", RUNCOMFY_TOKEN="", RUNCOMFY_CONFIG_DIR=str(config), **balance)
    assert kept.code == 0, "one's own folder has none, the usual one has"
    assert "secret-token" not in ill.out + well.out + ill.err + well.err
    assert api.journal == []


def test_doctor_reads_a_faulty_manifest_and_an_empty_purse(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "bad.yaml").write_text(f"model: {MODEL}\njobs: [{{prompt: x, image_urls: y.png}}]\n")
    bad = batcher("doctor", "bad.yaml")
    assert bad.code == 1 and "y.png" in bad.out
    api.balance = 0.10
    poor = batcher("doctor", batcher.csv(["a", "b"]), "--model", MODEL, "--json", RUNCOMFY_SERVERLESS_API_BASE=api.base)
    checks = {one["check"]: one for one in poor.json()}
    assert checks["balance"]["ok"] is False and "$0.10" in checks["balance"]["message"]
    assert batcher("doctor", "--sandbox").code == 0


def test_a_token_that_was_renewed_meanwhile_is_read_once_more(batcher: Batcher, api: Api, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    (config / "token.json").write_text(json.dumps({"token": "an-old-token-of-some-length"}))
    api.on_stranger = lambda: (config / "token.json").write_text(json.dumps({"token": TOKEN}))
    batcher.csv([f"p{n}" for n in range(6)])
    done = batcher("run", "jobs.csv", "--model", MODEL, RUNCOMFY_TOKEN="", RUNCOMFY_CONFIG_DIR=str(config))
    assert done.code == 0, done.err
    assert len(api.journal) == 6
    assert len(api.strangers) == 1


def test_a_cancel_that_failed_is_no_success(batcher: Batcher, api: Api, until: Until) -> None:
    api.queued = True
    process = batcher.start("run", batcher.csv(["a", "b"]), "--model", MODEL)
    until(lambda: len(api.journal) == 2)
    until(lambda: batcher.states() == {"running": 2})
    end(process)
    refused = batcher("cancel", "runs/jobs", RUNCOMFY_TOKEN="wrong-token-of-some-length")
    assert refused.code == 77, refused.out
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    assert batcher("cancel", "runs/jobs", RUNCOMFY_MODEL_API_BASE=nobody).code == 64, "another provider's run"
    (batcher.folder / ".env").write_text(f"RUNCOMFY_TOKEN={TOKEN}\n")
    cancelled = batcher("cancel", "runs/jobs", RUNCOMFY_TOKEN="")
    assert cancelled.code == 0, cancelled.err
    assert batcher.states() == {"cancelled": 2}


def test_signals_end_a_run_whose_cancellations_hang(batcher: Batcher, api: Api, until: Until) -> None:
    api.queued = True
    process = batcher.start("run", batcher.csv(["a", "b", "c"]), "--model", MODEL)
    until(lambda: len(api.journal) == 3)
    api.hangs = True
    assert batcher("cancel", "runs/jobs").code == 0
    until(lambda: any(path.endswith("/cancel") for _, path in api.requests))
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGTERM)
    assert process.stderr
    assert any("stopping" in line for line in process.stderr), "it has heard of the first"
    os.killpg(process.pid, signal.SIGTERM)
    process.communicate(timeout=30)
    api.hangs = False
    assert process.returncode == 143
    assert time.monotonic() - begun < 10


def test_what_nobody_answers_is_not_said_to_be_done(batcher: Batcher) -> None:
    """Another command holds the directory, and serves no requests."""
    from batcher.ledger.lock import Lock

    assert batcher.run_csv(["a"]).code == 0
    out = batcher.folder / "runs/jobs"
    lock = Lock(out)
    lock.take()

    async def here() -> Acknowledged:
        raise LedgerInUse

    with pytest.raises(LedgerInUse, match="did not answer"):
        asyncio.run(carry_out(out, Pause(), Acknowledged, here, wait=0.5))
    assert not list((out / ".asks").glob("*.json")), "and the request is taken back"
    lock.free()
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0


def test_only_the_jobs_that_were_agreed_to_are_bought_again(batcher: Batcher, api: Api) -> None:
    from batcher.ledger.retry import RetrySelection
    from batcher.runs.opening import open_ledger

    api.specials = [None, accepts_and_hangs_up, accepts_and_hangs_up]
    assert batcher.run_csv(["a", "b", "c"], "-j", "1").code == 1
    first, second = (one["job_id"] for one in batcher("jobs", "runs/jobs", "--state", "uncertain", "--json").lines())

    async def retry() -> list[str]:
        taken: list[str] = []
        async with open_ledger(batcher.folder / "runs/jobs") as ledger:
            assert (
                await ledger.retry(RetrySelection("uncertain", only={first: 1}), lambda job: taken.append(job.id)) == 1
            )
        return taken

    assert asyncio.run(retry()) == [first]
    states = {one["job_id"]: one["state"] for one in batcher("jobs", "runs/jobs", "--json").lines()}
    assert (states[first], states[second]) == ("pending", "uncertain")


def test_a_retry_that_is_carried_out_twice_buys_once(batcher: Batcher, api: Api) -> None:
    """As when the run that did it died before it could say so, and the command then does it itself."""
    from batcher.ledger.retry import RetrySelection
    from batcher.runs.opening import open_ledger

    assert batcher.run_csv(["FAIL"]).code == 1
    job = batcher("jobs", "runs/jobs", "--json").lines()[0]["job_id"]

    async def retry() -> int:
        async with open_ledger(batcher.folder / "runs/jobs") as ledger:
            return await ledger.retry(which)

    which = RetrySelection("failed", only={job: 1})
    assert asyncio.run(retry()) == 1
    assert batcher("resume", "runs/jobs").code == 1
    assert asyncio.run(retry()) == 0
    assert len(api.journal) == 2
    with Reader(batcher.folder / "runs/jobs") as reader:  # as of many, which are not named one by one
        which = RetrySelection("failed", told_at=reader.ask("last_event")[0][0])
    assert asyncio.run(retry()) == 1
    assert batcher("resume", "runs/jobs").code == 1
    assert asyncio.run(retry()) == 0
    assert len(api.journal) == 3


def test_no_two_requests_have_one_name(tmp_path: Path) -> None:
    """Where each command has the same process id, as in a container, the second was taken for the first."""
    first = mailbox.post(tmp_path, Pause())
    mailbox.answer(first, Acknowledged())
    mailbox.take_answer(first)
    assert mailbox.post(tmp_path, Pause()).name != first.name


def test_a_cancellation_that_meets_a_busy_server_is_tried_again(batcher: Batcher, api: Api, until: Until) -> None:
    api.queued = True
    process = batcher.start("run", batcher.csv(["a", "b", "c"]), "--model", MODEL)
    until(lambda: len(api.journal) == 3)
    api.busy_cancels = 2
    assert batcher("cancel", "runs/jobs").code == 0
    assert finish(process) == 1
    assert all(entry.cancelled for entry in api.journal)
    assert batcher.states() == {"cancelled": 3}


def test_a_file_that_is_given_up_keeps_no_other_from_coming(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [https://images.invalid/0.png], num_images: 3}}\n"
    )
    api.bad_files = {"r-1/1"}
    assert batcher("run", "m.yaml").code == 1
    (job,) = batcher("jobs", "runs/m", "--json").lines()
    assert (job["state"], job["error"]["kind"], len(job["files"])) == ("failed", "bad_output", 2)
    api.bad_files = set()
    assert batcher("retry", "runs/m").code == 0 and batcher("resume", "runs/m").code == 0
    assert batcher("verify", "runs/m").code == 0 and len(api.journal) == 1
    assert len(list((batcher.folder / "runs/m/files").glob("*.png"))) == 3


@pytest.mark.long
def test_files_of_jobs_at_work_under_one_name_do_not_mix(batcher: Batcher, api: Api, until: Until) -> None:
    """A prompt is edited while its job is at the server: both make files of that name, before the ledger knows whose."""

    def manifest(prompt: str) -> None:
        (batcher.folder / "m.yaml").write_text(
            f"model: {MODEL}\ninputs: {{prompt: {prompt}, image_urls: [https://images.invalid/0.png], num_images: 2}}\n"
            "output: {name: shoe}\n"
        )

    api.delay = 600
    manifest("first")
    process = batcher.start("run", "m.yaml")
    until(lambda: len(api.journal) == 1)
    end(process, signal.SIGTERM)
    api.delay, api.slow_files = 0.1, {"r-1/2": 4.0}
    manifest("second")
    done = batcher("run", "m.yaml", "--yes")
    assert done.code == 0, done.err
    files = batcher.folder / "runs/m/files"
    sidecars = [json.loads(file.read_text()) for file in files.glob("*.json")]
    assert sorted((one["request_id"], one["output"]["index"]) for one in sidecars) == [
        (f"r-{request}", index) for request in (1, 2) for index in (1, 2)
    ]
    for one in sidecars:
        content = (batcher.folder / "runs/m" / one["output"]["file"]).read_bytes()
        assert content == picture(f"{one['request_id']} {one['output']['index']}")


def test_a_directory_whose_results_were_taken_over_is_kept_where_the_token_is_missing(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    manifest = batcher.csv(["a", "b"])
    run = ("run", manifest, "--model", MODEL, "-o", "new", "--reuse", "runs/jobs")
    assert batcher(*run, RUNCOMFY_TOKEN="").code == 77
    assert batcher(*run).code == 0
    assert batcher.states("new") == {"done": 2}


def test_a_finding_of_a_request_that_an_attempt_here_has_is_left_alone(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    job = batcher("jobs", "runs/jobs", "--json").lines()[0]["job_id"]
    assert batcher("retry", "runs/jobs", "--again", "--job", job, "--yes").code == 0
    again = batcher("run", "jobs.csv", "--model", MODEL, "-o", "runs/jobs", "--reuse", "runs/jobs")
    assert again.code == 0, again.err
    assert len(api.journal) == 2, "it was to be bought anew"


def test_a_request_whose_answer_cannot_be_written_is_not_carried_out_again(tmp_path: Path) -> None:
    from batcher.ledger.lock import Lock

    lock = Lock(tmp_path)
    lock.take()

    async def here() -> Acknowledged:
        raise LedgerInUse

    async def serve() -> None:
        while not (waiting := mailbox.unanswered(tmp_path)):
            await asyncio.sleep(0.02)
        waiting[0].with_suffix(".draft").mkdir()  # nothing can be written under that name
        with pytest.raises(IsADirectoryError):
            mailbox.answer(waiting[0], JobsRetried(1))
        assert mailbox.unanswered(tmp_path) == []

    async def both() -> None:
        await asyncio.gather(serve(), carry_out(tmp_path, RetryJobs(RetrySelection()), Acknowledged, here, wait=5))

    with pytest.raises(LedgerInUse, match="could not write"):
        asyncio.run(both())


def test_a_request_that_the_next_holder_forgets_is_made_anew(tmp_path: Path) -> None:
    """It was taken for heard, and `pause` said so, where nobody had read it."""
    from batcher.ledger.lock import Lock

    first, second = Lock(tmp_path), Lock(tmp_path)
    first.take()

    async def here() -> Acknowledged:
        lock = Lock(tmp_path)
        lock.take()
        lock.free()
        return Acknowledged()

    async def hand_over() -> None:
        while not mailbox.unanswered(tmp_path):
            await asyncio.sleep(0.01)
        first.free()
        second.take()
        mailbox.discard_all(tmp_path)  # as a run does that begins
        await asyncio.sleep(0.5)
        second.free()

    async def both() -> Done[Acknowledged]:
        said, _ = await asyncio.gather(carry_out(tmp_path, Pause(), Acknowledged, here, wait=5), hand_over())
        return said

    assert asyncio.run(both()) == Done(Acknowledged(), by_run=False)


def test_what_is_bought_again_leaves_the_old_file_and_its_sidecar(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    job = batcher("jobs", "runs/jobs", "--json").lines()[0]
    old = (batcher.folder / "runs/jobs" / job["files"][0]).read_bytes()
    assert batcher("retry", "runs/jobs", "--again", "--job", job["job_id"], "--yes").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    kept = batcher.folder / "runs/jobs/replaced" / job["job_id"]
    assert [file.read_bytes() for file in kept.glob("*.png")] == [old]
    assert [json.loads(file.read_text())["request_id"] for file in kept.glob("*.json")] == ["r-1"]
    assert batcher("verify", "runs/jobs").code == 0
    assert batcher("status", "runs/jobs", "--json").json()["files"] == 1
