"""`doctor --buy-one`: one job is bought with consent, each exchange is kept, and what differs is said."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.real.api import TOKEN, Api, Served, own, raw
from tests.real.conftest import MODEL, Batcher, Done
from tests.real.fal_api import KEY, FalApi, Sent, ends, lost


@pytest.fixture
def fal() -> Iterator[FalApi]:
    with Served(FalApi()) as served:
        yield served


def bought(batcher: Batcher, *more: str, **environ: str) -> tuple[Done, dict[str, Any]]:
    done = batcher("doctor", "--buy-one", "--json", *more, **environ)
    return done, {one["check"]: one for one in done.json()} if done.out else {}


def exchanges(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_one_job_is_bought_at_the_first_provider(batcher: Batcher, api: Api) -> None:
    api.delay = 1.5
    done, checks = bought(batcher, "--yes", RUNCOMFY_SERVERLESS_API_BASE=api.base)
    assert len(api.journal) == 1 and api.journal[0].body["image_urls"][0].startswith("data:image/jpeg;base64,")
    assert checks["submission"]["ok"] and checks["states"]["message"].startswith("in_progress, then completed")
    assert checks["bill"]["ok"] is False and "$0.120, where $0.150" in checks["bill"]["message"]
    assert checks["follow-up"]["ok"] and checks["early result"]["ok"] and checks["unknown id"]["ok"]
    assert done.code == 1, "a bill that differs is a finding"
    found = exchanges(batcher.folder / "exchanges-runcomfy.jsonl")
    assert {"method", "path", "body"} <= set(found[0]["request"])
    posted = [one for one in found if one["request"]["method"] == "POST" and "/models/" in one["request"]["path"]]
    assert [one["answer"]["body"]["request_id"] for one in posted] == ["r-1"]
    assert {"status", "headers", "body"} <= set(posted[0]["answer"])
    assert "sha256=" in posted[0]["request"]["body"]["image_urls"][0]
    assert TOKEN not in (batcher.folder / "exchanges-runcomfy.jsonl").read_text()
    assert (batcher.folder / "exchanges-runcomfy-1.png").read_bytes().startswith(b"\x89PNG")
    again, _ = bought(batcher, "--yes")
    assert (batcher.folder / "exchanges-runcomfy-2.jsonl").exists() and again.code == 1


def test_nothing_is_bought_without_consent(batcher: Batcher, api: Api, fal: FalApi) -> None:
    refused = batcher("doctor", "--buy-one")
    assert refused.code == 64 and "$0.15" in refused.err and "--yes" in refused.err
    refused = batcher("doctor", "--buy-one", "--provider", "fal", **fal.environ)
    assert refused.code == 64
    assert batcher("doctor", "--buy-one", "--yes", "--provider", "fal").code == 77
    assert (api.journal, fal.submissions) == ([], [])
    assert [*batcher.folder.glob("exchanges*")] == []


def test_the_first_job_of_a_manifest_is_bought(batcher: Batcher, api: Api) -> None:
    manifest = batcher.csv(["first", "second"])
    _, checks = bought(batcher, manifest, "--model", MODEL, "--yes", "-o", "x.jsonl")
    assert api.prompts() == ["first"] and checks["end"]["ok"]
    assert (batcher.folder / "x.jsonl").exists() and (batcher.folder / "x-1.png").exists()
    again = batcher("doctor", manifest, "--model", MODEL, "--buy-one", "--yes", "-o", "x.jsonl")
    assert again.code == 64 and len(api.journal) == 1, "the file of what was bought was written over"


def test_one_job_is_bought_at_fal(batcher: Batcher, fal: FalApi) -> None:
    fal.delay = 1.5
    done, checks = bought(batcher, "--provider", "fal", "--yes", **fal.environ)
    assert done.code == 0, done.out
    assert checks["bill"]["message"].startswith("$0.150, as estimated")
    assert checks["states"]["message"].startswith("IN_PROGRESS, then COMPLETED")
    assert "x-fal-billable-units" in checks["headers"]["message"]
    assert checks["past requests"]["ok"] and checks["cancel"]["ok"]
    secret = KEY.partition(":")[2]
    assert secret not in (batcher.folder / "exchanges-fal.jsonl").read_text() + done.out + done.err
    assert len(fal.journal) == 1


def test_a_server_that_differs_is_told_so_with_what_it_means(batcher: Batcher, api: Api) -> None:
    def odd(_: Api, request: web.Request) -> web.StreamResponse:
        looked.append(request.path)
        state = "rehydrating" if len(looked) < 3 else "completed"
        body: dict[str, Any] = {"request_id": request.match_info["id"], "status": state}
        if request.path.endswith("/result") and state == "completed" and len(looked) > 8:
            body |= {
                "status": "succeeded",
                "output": {"image": f"http://localhost:{api.base.rpartition(':')[2]}/files/r-1/1"},
            }
        if request.match_info["id"] != "r-1":
            return web.json_response({"error": "who is that?"}, status=500)
        return web.json_response(body)

    looked: list[str] = []
    api.on_poll = odd
    done, checks = bought(batcher, "--yes")
    assert done.code == 1
    differs = {name for name, one in checks.items() if one["ok"] is False}
    assert differs >= {"states", "late outputs", "bill", "hosts", "unknown id"}, checks
    assert "rehydrating" in checks["states"]["message"]
    assert all(checks[name]["hint"] for name in differs)


def test_fal_that_differs_is_told_so(batcher: Batcher, fal: FalApi) -> None:
    def elsewhere(_: Sent) -> web.Response:
        host = fal.base.replace("127.0.0.1", "localhost")
        return web.json_response({"images": [{"url": f"{host}/files/x/1"}, {"url": f"{host}/files/x/2"}]})

    fal.results, fal.delay = [elsewhere], 3.0  # long enough for its result to be asked for too early
    fal.units, fal.listed = None, True
    fal.follow = "https://elsewhere.invalid/requests/1"
    _, checks = bought(batcher, "--provider", "fal", "--yes", **fal.environ)
    assert {name for name, one in checks.items() if one["ok"] is False} == {"follow-up", "bill", "outputs", "hosts"}


def test_what_is_refused_or_lost_is_not_tried_again(batcher: Batcher, api: Api, fal: FalApi) -> None:
    api.specials = [own(422, 422001, "the prompt is too short")]
    done, checks = bought(batcher, "--yes")
    assert (
        done.code == 1 and "too short" in checks["submission"]["message"] and set(checks) == {"submission", "headers"}
    )
    api.specials = [raw(502, "")]
    _, checks = bought(batcher, "--yes")
    assert "may be billed" in checks["submission"]["hint"] and api.journal == []
    fal.specials = [lost]
    _, checks = bought(batcher, "--provider", "fal", "--yes", **fal.environ)
    assert "may be billed" in checks["submission"]["hint"] and len(fal.submissions) == 1
    fal.results = [ends(422, {"detail": [{"loc": ["body"], "msg": "no", "type": "content_policy_violation"}]})]
    _, checks = bought(batcher, "--provider", "fal", "--yes", **fal.environ)
    assert checks["end"]["ok"] is False and "refused" in checks["end"]["message"]


@pytest.mark.parametrize("provider", ["runcomfy", "fal"])
def test_it_is_rehearsed_at_both_sandboxes(batcher: Batcher, provider: str) -> None:
    done, checks = bought(batcher, "--provider", provider, "--sandbox", BATCHER_SANDBOX_ARGS="--speed 5")
    assert done.code == 0, done.out
    assert "REHEARSAL" in done.err
    assert all(one["ok"] is not False for one in checks.values())


def test_a_sandbox_that_differs_on_purpose_is_told_so(batcher: Batcher) -> None:
    options = "--speed 5 --fault late_output=1 --fault bill_high=0"
    done, checks = bought(batcher, "--provider", "fal", "--sandbox", BATCHER_SANDBOX_ARGS=options)
    assert done.code == 1 and checks["late outputs"]["ok"] is False
    done, checks = bought(batcher, "--sandbox", BATCHER_SANDBOX_ARGS="--speed 5 --fault bill_high=1")
    assert done.code == 1 and checks["bill"]["ok"] is False
