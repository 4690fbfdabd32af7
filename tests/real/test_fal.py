"""Whole runs at fal: a server written from its documents, the command line as a user runs it."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from batcher.ledger.request_register import register_folder
from batcher.settings import Destination
from tests.real.api import Served
from tests.real.conftest import MODEL, Batcher, Until, end
from tests.real.fal_api import KEY, FalApi, ends, lost, says, stamp

FAL_MODEL = "fal-ai/nano-banana-pro/edit"


@pytest.fixture
def fal() -> Iterator[FalApi]:
    with Served(FalApi()) as served:
        yield served


@pytest.fixture
def at_fal(batcher: Batcher, fal: FalApi) -> Batcher:
    batcher.environ |= fal.environ
    return batcher


def run(at_fal: Batcher, prompts: list[str], *more: str, **environ: str) -> Any:
    return at_fal.run_csv(prompts, "--provider", "fal", "-o", "out", *more, **environ)


def jobs(at_fal: Batcher, out: str = "out") -> list[Any]:
    return at_fal("jobs", out, "--json").lines()


def sidecars(at_fal: Batcher, out: str = "out") -> list[Any]:
    return [json.loads(file.read_text()) for file in sorted((at_fal.folder / out / "files").glob("*.json"))]


def test_a_manifest_of_one_runs_at_the_other_with_the_same_job_ids(at_fal: Batcher, fal: FalApi) -> None:
    here = at_fal.run_csv(["a", "b"])
    there = at_fal.run_csv(["a", "b"], "--provider", "fal")
    assert (here.code, there.code) == (0, 0), there.err
    ids = [{one["job_id"] for one in jobs(at_fal, out)} for out in ("runs/jobs", "runs/jobs.fal")]
    assert ids[0] == ids[1]
    assert {path for path, _, _ in fal.submissions} == {FAL_MODEL}
    assert {one["model"] for one in sidecars(at_fal, "runs/jobs.fal")} == {MODEL}
    assert fal.strangers == [] and fal.keyed_files == 0


def test_submissions_keep_the_vendor_from_trying_again_by_itself(at_fal: Batcher, fal: FalApi) -> None:
    assert run(at_fal, ["a"], "--patience", "2h").code == 0
    ((_, _, headers),) = fal.submissions
    assert headers["authorization"] == f"Key {KEY}"
    assert (headers["x-fal-no-retry"], headers["x-app-fal-disable-fallback"]) == ("1", "true")
    assert headers["x-fal-request-start-timeout"] == "7200"


def test_the_urls_that_were_given_are_followed_also_by_a_later_start(
    at_fal: Batcher, fal: FalApi, until: Until
) -> None:
    fal.queued = True
    process = at_fal.start("run", at_fal.csv(["a"]), "--model", MODEL, "--provider", "fal", "-o", "out")
    until(lambda: any("/odd/status" in path for _, path in fal.asked))
    end(process)
    fal.queued = False
    fal.asked.clear()
    assert at_fal("resume", "out").code == 0
    followed = [path for _, path in fal.asked if "/requests/" in path and "by-endpoint" not in path]
    assert followed and all("/odd/" in path for path in followed)


def test_urls_of_another_host_get_no_key(at_fal: Batcher, fal: FalApi) -> None:
    with Served(FalApi()) as elsewhere:
        fal.follow = f"{elsewhere.base}/queue/x/y/requests/z"
        assert run(at_fal, ["a"]).code == 0
        assert (elsewhere.asked, elsewhere.strangers) == ([], [])


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (
            422,
            {"detail": [{"loc": ["body", "prompt"], "msg": "no", "type": "content_policy_violation"}]},
            "refused",
            "no",
        ),
        (422, {"detail": [{"loc": ["body"], "msg": "none", "type": "no_media_generated"}]}, "refused", "none"),
        (
            422,
            {"detail": [{"loc": ["body", "seed"], "msg": "too big", "type": "int_type"}]},
            "invalid",
            "seed: too big",
        ),
        (
            422,
            {"detail": [{"loc": ["body"], "msg": "cannot fetch", "type": "file_download_error"}]},
            "invalid",
            "cannot",
        ),
        (500, {"detail": "it fell over", "error_type": "internal_server_error"}, "failed", "it fell over"),
        (504, {"detail": "not started", "error_type": "request_timeout"}, "failed", "not started"),
    ],
)
def test_failures_are_read_from_the_result(
    at_fal: Batcher, fal: FalApi, status: int, body: Any, kind: str, words: str
) -> None:
    fal.results = [ends(status, body)]
    assert run(at_fal, ["a", "b"], "-j", "1").code == 1
    failed = [one["error"] for one in jobs(at_fal) if one["state"] == "failed"]
    assert [(one["kind"], words in one["message"]) for one in failed] == [(kind, True)]
    assert len(fal.journal) == 2, "what failed was bought again"


def test_a_picture_that_the_model_flagged_is_a_refusal(at_fal: Batcher, fal: FalApi) -> None:
    black = {"images": [{"url": f"{fal.base}/files/x/1"}], "has_nsfw_concepts": [True]}
    fal.results = [ends(200, black, {"x-fal-billable-units": "1"})]
    assert run(at_fal, ["a"]).code == 1
    (job,) = jobs(at_fal)
    assert job["error"]["kind"] == "refused"
    assert at_fal("status", "out", "--json").json()["cost_usd"]["billed"] == 0.15


@pytest.mark.parametrize(
    ("status", "detail", "code", "reason"),
    [
        (
            403,
            "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing.",
            75,
            "balance",
        ),
        (403, "User is locked. Reason: TOP_UP", 75, "balance"),
        (403, "User is locked. Reason: Admin lock", 77, "token"),
        (401, "No user found for Key ID and Secret", 77, "token"),
    ],
)
def test_an_empty_account_is_told_from_a_bad_key(
    at_fal: Batcher, fal: FalApi, status: int, detail: str, code: int, reason: str
) -> None:
    fal.specials = [None, says(status, {"detail": detail})]
    assert run(at_fal, ["a", "b", "c"], "-j", "1").code == code
    found = at_fal("status", "out", "--json").json()
    assert found["stopped"]["reason"] == reason
    assert found["states"]["done"] == 1 and found["states"]["pending"] == 2
    if reason == "token":
        assert found["stopped"]["next"].startswith("FAL_KEY=... ")


def test_bills_are_units_times_the_listed_price(at_fal: Batcher, fal: FalApi) -> None:
    fal.units, fal.unit_price = "2", 0.2
    done = run(at_fal, ["a"])
    assert done.code == 0
    assert "0.2" in done.err and "estimates assume" in done.err
    (sidecar,) = sidecars(at_fal)
    assert sidecar["cost_usd"] == {"estimated": 0.15, "billed": 0.4}


def test_without_a_listed_price_the_assumed_one_counts_and_without_units_nothing(at_fal: Batcher, fal: FalApi) -> None:
    fal.units, fal.unit_price = "2", None
    assert run(at_fal, ["a"]).code == 0
    assert sidecars(at_fal)[0]["cost_usd"]["billed"] == 0.3
    fal.units = None
    assert run(at_fal, ["a", "b"]).code == 0
    assert {one["cost_usd"]["billed"] for one in sidecars(at_fal)} == {0.3, None}


def test_a_lost_submission_is_found_by_its_own_seed(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials = [lost, None]
    fal.others = [_other("other-1", {"prompt": "a", "image_urls": ["https://images.invalid/0.png"], "seed": 5})]
    assert run(at_fal, ["a", "b"], "-j", "1").code == 0
    assert len(fal.journal) == 2, "it was bought again"
    found = {one["request_id"]: one["inputs"]["seed"] for one in sidecars(at_fal)}
    assert found == {one.id: one.body["seed"] for one in fal.journal}
    lines = (at_fal.folder / "out/run.jsonl").read_text()
    assert "found in the list of past requests" in lines
    unexpanded = [path for _, path in fal.asked if "by-endpoint" in path and "request_id" not in path]
    assert unexpanded and all("expand" not in path for path in unexpanded)


def test_each_attempt_has_a_seed_of_its_own_which_is_no_part_of_the_job(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials = [says(429, {"detail": "too many"}, {"Retry-After": "0"}), None]
    fal.results = [ends(500, {"detail": "it fell over", "error_type": "internal_server_error"})]
    (at_fal.folder / "m.yaml").write_text(
        f"model: {MODEL}\nprovider: fal\nretry: {{attempts: 2}}\n"
        "jobs: [{prompt: a, image_urls: ['https://images.invalid/0.png']}]\n"
    )
    assert at_fal("run", "m.yaml", "-o", "out").code == 0
    seeds = [body["seed"] for _, body, _ in fal.submissions]
    assert len(seeds) == len(set(seeds)) == 3
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert sidecars(at_fal)[0]["inputs"]["seed"] == seeds[-1]
    here = at_fal.run_csv(["a"])
    assert here.code == 0
    assert jobs(at_fal)[0]["job_id"] == jobs(at_fal, "runs/jobs")[0]["job_id"]


def test_a_seed_of_the_manifest_stands_and_what_is_lost_is_told_by_its_inputs(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials = [lost]
    assert run(at_fal, ["a"], "--set", "seed=7").code == 0
    assert [body["seed"] for _, body, _ in fal.submissions] == [7]
    assert len(fal.journal) == 1


@pytest.mark.waits
@pytest.mark.parametrize("why", ["another input", "two alike", "too late", "before", "held by another run"])
def test_without_a_seed_of_its_own_what_is_not_certain_stays_uncertain(at_fal: Batcher, fal: FalApi, why: str) -> None:
    sent = {"prompt": "a", "image_urls": ["https://images.invalid/0.png"], "seed": 7}
    fal.listed = False
    fal.specials = [lost]
    now = time.time()
    fal.others = {
        "another input": [_other("r", {**sent, "prompt": "b"}, now + 20)],
        "two alike": [_other("r", sent, now + 20), _other("s", sent, now + 21)],
        "too late": [_other("r", sent, now + 200)],
        "before": [_other("r", sent, now - 60)],
        "held by another run": [_other("r", sent, now + 20)],
    }[why]
    if why == "held by another run":
        state = at_fal.folder.parent / "home/.local/state/batcher"
        folder = register_folder(state, Destination(fal.base + "/queue", "fal"), "")
        folder.mkdir(parents=True)
        (folder / "another.accepted").write_text("r\n")
        os.utime(folder / "another.accepted", (1.0, 1.0))
    assert run(at_fal, ["a"], "--set", "seed=7").code == 1
    assert at_fal.states("out") == {"uncertain": 1}


@pytest.mark.waits
def test_what_is_not_listed_stays_uncertain_and_is_found_by_the_next_start(at_fal: Batcher, fal: FalApi) -> None:
    fal.listed = False
    fal.specials = [lost]
    begun = time.monotonic()
    done = run(at_fal, ["a"])
    assert (done.code, at_fal.states("out")) == (1, {"uncertain": 1})
    assert time.monotonic() - begun > 25, "the list was not read once more"
    assert "once more in 30 s" in done.err
    fal.listed = True
    assert at_fal("resume", "out").code == 0
    assert (at_fal.states("out"), len(fal.journal)) == ({"done": 1}, 1)


def test_lost_submissions_are_looked_for_before_the_run_stops_for_them(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials = [lost] * 4
    (at_fal.folder / "m.yaml").write_text(
        f"model: {MODEL}\nprovider: fal\nretry: {{max_uncertain: 1}}\nlimits: {{concurrency: 1}}\n"
        f"inputs: {{image_urls: ['https://images.invalid/0.png']}}\njobs: [{', '.join(f'{{prompt: p{n}}}' for n in range(6))}]\n"
    )
    done = at_fal("run", "m.yaml", "-o", "out")
    assert (done.code, at_fal.states("out"), len(fal.journal)) == (0, {"done": 6}, 6), done.err


def test_what_was_killed_while_it_was_sent_is_found_at_the_next_start(
    at_fal: Batcher, fal: FalApi, until: Until
) -> None:
    def hang(api: FalApi, request: web.Request, body: dict[str, Any]) -> web.Response:
        api.accept(request.match_info["model"], body, {})
        end(process)
        return web.Response()

    fal.specials = [hang]
    process = at_fal.start("run", at_fal.csv(["a"]), "--model", MODEL, "--provider", "fal", "-o", "out")
    until(lambda: process.poll() is not None)
    assert at_fal("resume", "out").code == 0
    assert (at_fal.states("out"), len(fal.journal)) == ({"done": 1}, 1)


def test_a_cancel_ends_what_waits_and_what_runs_may_still_be_completed(
    at_fal: Batcher, fal: FalApi, until: Until
) -> None:
    fal.queued = True
    process = at_fal.start("run", at_fal.csv(["a", "b"]), "--model", MODEL, "--provider", "fal", "-o", "out")
    until(lambda: len(fal.journal) == 2)
    until(lambda: any("status" in path for _, path in fal.asked))
    end(process)
    assert at_fal("cancel", "out").code == 0
    assert at_fal.states("out") == {"cancelled": 2}
    fal.queued, fal.delay = False, 1.5
    slow = at_fal.start("run", at_fal.csv(["c"], "c.csv"), "--model", MODEL, "--provider", "fal", "-o", "c")
    until(lambda: len(fal.journal) == 3)
    until(lambda: any("status" in path and fal.journal[2].id in path for _, path in fal.asked))
    end(slow)
    assert at_fal("cancel", "c").code == 0
    assert at_fal.states("c") == {"running": 1}, "one that runs was called cancelled"
    assert at_fal("resume", "c").code == 0
    assert at_fal.states("c") == {"done": 1}


def test_an_out_belongs_to_one_provider(at_fal: Batcher) -> None:
    assert run(at_fal, ["a"]).code == 0
    refused = at_fal.run_csv(["a"], "-o", "out")
    assert refused.code == 64 and "holds results of" in refused.err
    rehearsed = at_fal.run_csv(["a"], "--sandbox", "--provider", "fal", "-o", "s", "--limit", "1")
    assert rehearsed.code in {0, 1}
    assert at_fal.run_csv(["a"], "--sandbox", "-o", "s").code == 64, "another protocol's rehearsal"


def test_who_is_meant_is_told_by_option_environment_and_manifest(at_fal: Batcher, fal: FalApi) -> None:
    manifest = "inputs: {image_urls: ['https://images.invalid/0.png']}\njobs: [{prompt: a}]\n"
    (at_fal.folder / "m.yaml").write_text(f"model: {FAL_MODEL}\nprovider: fal\n{manifest}")
    assert at_fal("plan", "m.yaml", "--json").json()["out"] == "runs/m.fal"
    assert at_fal("plan", "m.yaml", "--json", "--sandbox").json()["out"] == "runs/m.fal.sandbox"
    assert at_fal("plan", "m.yaml", "--json", BATCHER_PROVIDER="runcomfy").json()["vendor"] == "runcomfy"
    assert at_fal("plan", "m.yaml", "--json", "--provider", "runcomfy").json()["out"] == "runs/m"
    assert at_fal("plan", "m.yaml", "--provider", "fall").code == 64
    assert at_fal("plan", "m.yaml", "--provider", "FAL").code == 0
    (at_fal.folder / "n.yaml").write_text(f"model: {FAL_MODEL}\nprovider: fall\n{manifest}")
    wrong = at_fal("plan", "n.yaml")
    assert wrong.code == 65 and "n.yaml:2: provider: `fall` is not a provider; did you mean `fal`?" in wrong.err
    key_id, _, secret = KEY.partition(":")
    done = at_fal("run", "m.yaml", FAL_KEY="", FAL_KEY_ID=key_id, FAL_KEY_SECRET=secret)
    assert done.code == 0, done.err
    none = at_fal("run", "m.yaml", "-o", "x", FAL_KEY="")
    assert none.code == 77 and "FAL_KEY" in none.err
    assert {path for path, _, _ in fal.submissions} == {FAL_MODEL}


def test_inputs_that_exist_at_one_provider_alone_are_faults_at_the_other(at_fal: Batcher) -> None:
    manifest = at_fal.csv(["a"])
    there = at_fal(
        "plan", manifest, "--model", MODEL, "--provider", "fal", "--set", "safety_tolerance=6", "--json"
    ).json()
    assert there["fault_count"] == 0
    assert {one["provider"]: (one["estimated"], one["lacks"]) for one in there["providers"]} == {
        "fal": (0.15, []),
        "runcomfy": (0.15, ["safety_tolerance"]),
    }
    here = at_fal("plan", manifest, "--model", FAL_MODEL, "--set", "safety_tolerance=6")
    assert here.code == 65 and "safety_tolerance" in here.err


def test_the_key_stands_nowhere(at_fal: Batcher, fal: FalApi) -> None:
    secret = KEY.partition(":")[2]
    fal.results = [ends(500, {"detail": f"bad key {KEY} or {secret}", "error_type": "internal_server_error"})]
    done = run(at_fal, ["a"], "-v")
    assert done.code == 1
    written = b"".join(file.read_bytes() for file in (at_fal.folder / "out").rglob("*") if file.is_file())
    assert secret.encode() not in written
    assert secret not in done.err + done.out


def test_the_doctor_asks_the_queue_and_says_what_the_key_may_not(at_fal: Batcher, fal: FalApi) -> None:
    checks = {one["check"]: one for one in at_fal("doctor", "--provider", "fal", "--json").json()}
    assert checks["api"]["ok"] is True and checks["token"]["ok"] is True
    assert checks["balance"]["ok"] is None and "ADMIN" in checks["balance"]["message"]
    wrong = at_fal("doctor", "--provider", "fal", "--json", FAL_KEY="a:b-of-some-length").json()
    assert {one["check"]: one["ok"] for one in wrong}["api"] is False
    assert fal.submissions == []


def _other(request_id: str, inputs: dict[str, Any], at: float | None = None) -> dict[str, Any]:
    sent_at = stamp(time.time() if at is None else at)
    return {"request_id": request_id, "sent_at": sent_at, "started_at": sent_at, "json_input": inputs}


@pytest.mark.waits
@pytest.mark.parametrize("where", ["the payload", "the next page"])
def test_without_a_seed_nothing_is_adopted_where_a_twin_could_not_be_read(
    at_fal: Batcher, fal: FalApi, where: str
) -> None:
    """A wrong request was adopted, where the right one was listed and could not be read."""
    sent = {"prompt": "a", "image_urls": ["https://images.invalid/0.png"], "seed": 7}
    fal.specials = [lost]
    fal.others = [_other("stranger", sent, time.time() + 20)]
    fal.unreadable, fal.page_size = (
        ({"00000001-0000-4000-8000-000000000000"}, 100) if where == "the payload" else ({"2"}, 1)
    )
    fal.others_first = True
    assert run(at_fal, ["a"], "--set", "seed=7").code == 1
    assert at_fal.states("out") == {"uncertain": 1}


def test_the_next_page_is_asked_for_by_a_number_too(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials = [lost]
    fal.others = [_other(f"s{n}", {"prompt": "b", "seed": n}) for n in range(3)]
    fal.page_size, fal.others_first, fal.cursor_is_a_number = 2, True, True
    assert run(at_fal, ["a"]).code == 0


@pytest.mark.parametrize("kind", ["request_timeout", "runner_disconnected"])
def test_a_servers_trouble_with_503_is_no_refusal(at_fal: Batcher, fal: FalApi, kind: str) -> None:
    def trouble(api: FalApi, request: web.Request, body: dict[str, Any]) -> web.Response:
        api.accept(request.match_info["model"], body, {})
        return web.json_response({"detail": "not in time", "error_type": kind}, status=503)

    fal.specials = [trouble]
    assert run(at_fal, ["a"]).code == 0
    assert len(fal.journal) == 1, "it was bought again"


@pytest.mark.waits
def test_lost_answers_are_looked_for_twice_before_they_are_submitted_again(at_fal: Batcher, fal: FalApi) -> None:
    """Where one of two was found at once, the other was submitted again before the list was read once more."""
    fal.specials = [lost, lost]
    fal.late = {1: 12.0}
    (at_fal.folder / "m.yaml").write_text(
        f"model: {MODEL}\nprovider: fal\nretry: {{uncertain: resubmit}}\nlimits: {{concurrency: 1}}\n"
        "inputs: {image_urls: ['https://images.invalid/0.png']}\njobs: [{prompt: a}, {prompt: b}]\n"
    )
    assert at_fal("run", "m.yaml", "-o", "out").code == 0
    assert len(fal.journal) == 2 and at_fal.states("out") == {"done": 2}


@pytest.mark.waits
def test_what_was_never_accepted_is_submitted_again_where_that_is_wanted(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials = [says(500, {})]
    (at_fal.folder / "m.yaml").write_text(
        f"model: {MODEL}\nprovider: fal\nretry: {{uncertain: resubmit}}\n"
        "inputs: {image_urls: ['https://images.invalid/0.png']}\njobs: [{prompt: a}]\n"
    )
    assert at_fal("run", "m.yaml", "-o", "out").code == 0
    assert len(fal.journal) == 1 and len(fal.submissions) == 2


def test_a_search_that_hangs_is_ended_by_a_signal(at_fal: Batcher, fal: FalApi, until: Until) -> None:
    fal.specials = [lost]
    fal.others = [_other(f"s{n}", {"prompt": "b", "seed": n}) for n in range(40)]
    fal.hanging = True
    process = at_fal.start("run", at_fal.csv(["a"]), "--model", MODEL, "--provider", "fal", "-o", "out")
    until(lambda: any("expand=payloads" in path for _, path in fal.asked))
    begun = time.monotonic()
    assert end(process, signal.SIGINT)[0] == 130
    assert time.monotonic() - begun < 10
    again = at_fal.start("resume", "out")
    fal.asked.clear()
    until(lambda: any("expand=payloads" in path for _, path in fal.asked))
    assert end(again, signal.SIGTERM)[0] == 143
    fal.hanging = False
    assert at_fal("resume", "out").code == 0


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (403, {"detail": [{"loc": ["body"], "msg": "no", "type": "content_policy_violation"}]}, "refused"),
        (401, {"detail": [{"loc": ["body"], "msg": "x", "type": "downstream_service_error"}]}, "failed"),
        (429, {"detail": [{"loc": ["body"], "msg": "x", "type": "downstream_service_error"}]}, "failed"),
        (400, {"detail": [{"loc": ["body"], "msg": "not finished: no", "type": "value_error"}]}, "invalid"),
        (499, {"detail": "x", "error_type": "client_disconnected"}, "invalid"),
    ],
)
def test_a_models_own_status_says_nothing_of_the_account(
    at_fal: Batcher, fal: FalApi, status: int, body: Any, kind: str
) -> None:
    fal.results = [ends(status, body)]
    done = run(at_fal, ["a", "b", "c"], "-j", "1")
    assert done.code == 1, done.err
    assert sorted(one["error"]["kind"] for one in jobs(at_fal) if one["error"]) == [kind]
    assert at_fal.states("out") == {"done": 2, "failed": 1}


def test_a_list_that_the_key_may_not_read_is_not_waited_for(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials, fal.forbidden = [lost], True
    begun = time.monotonic()
    assert run(at_fal, ["a"]).code == 1
    assert time.monotonic() - begun < 15


def test_the_price_of_a_unit_is_asked_for_once(at_fal: Batcher, fal: FalApi, until: Until) -> None:
    fal.queued, fal.unit_price = True, 0.2
    process = at_fal.start(
        "run", at_fal.csv([f"p{n}" for n in range(12)]), "--model", MODEL, "--provider", "fal", "-o", "out"
    )
    until(lambda: len(fal.journal) == 12)
    until(lambda: at_fal.states("out").get("running") == 12)
    end(process)
    fal.queued = False
    fal.asked.clear()
    done = at_fal("resume", "out")
    assert done.code == 0 and done.err.count("listed price") == 1
    assert sum("pricing" in path for _, path in fal.asked) == 1


def test_a_lost_request_is_adopted_by_hand_as_anywhere(at_fal: Batcher, fal: FalApi) -> None:
    fal.specials, fal.forbidden = [lost], True
    assert run(at_fal, ["a"]).code == 1
    (job,) = jobs(at_fal)
    assert at_fal("adopt", "out", "--job", job["job_id"], "--request-id", "nobody").code == 64
    assert at_fal("adopt", "out", "--job", job["job_id"], "--request-id", fal.journal[0].id).code == 0
    assert at_fal("resume", "out").code == 0 and len(fal.journal) == 1


def test_what_only_another_provider_takes_is_said_to_be_its(at_fal: Batcher) -> None:
    (at_fal.folder / "only.yaml").write_text(f"model: {MODEL}\ninputs: {{prompt: a, system_prompt: b}}\n")
    wrong = at_fal("plan", "only.yaml")
    assert wrong.code == 65 and "system_prompt: is not an input of" in wrong.err and "--provider fal" in wrong.err
    photo = Path(__file__).parent.parent.parent / "manifests/photos/mug.jpg"
    (at_fal.folder / "only.csv").write_text(f"prompt,image_urls,system_prompt,sku\na,{photo},b,1\n")
    said = at_fal("plan", "only.csv", "--model", MODEL, "--json").json()["warnings"]
    assert [one for one in said if "not sent" in one] == [
        "the column `system_prompt` is not sent: it is an input at fal (--provider fal), and none here"
    ]
    rehearsed = at_fal("run", "only.csv", "--model", MODEL, "--sandbox")
    assert rehearsed.code == 0 and "`system_prompt` is not sent" in rehearsed.err
    assert "as fal" not in rehearsed.err
    there = at_fal("run", "only.csv", "--model", MODEL, "--sandbox", "--provider", "fal")
    assert there.code == 0 and "not sent" not in there.err and "on the sandbox as fal" in there.err
