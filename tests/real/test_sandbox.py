"""The sandbox over real HTTP: the examples run on it, it survives its kill, and it answers as the API's page says."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from PIL import Image

from batcher.provider import PROVIDERS
from batcher.sandbox.access import open_socket
from batcher.sandbox.faces import FACES
from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher, Until, end
from tests.real.test_security import listening

MANIFESTS = Path(__file__).parent.parent.parent / "manifests"
PAIRS = {
    file.stem: json.loads(file.read_text()) for file in (Path(__file__).parent.parent / "wire" / "pairs").glob("*.json")
}


def images_in(out: Path) -> list[Path]:
    return [file for file in sorted((out / "files").rglob("*")) if file.suffix in {".jpg", ".png", ".webp"}]


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as image:
        return image.size


@pytest.mark.long
def test_the_catalogue_is_rehearsed_without_a_token(batcher: Batcher, api: Api) -> None:
    done = batcher(
        "run", str(MANIFESTS / "product-restyle.yaml"), "--sandbox", RUNCOMFY_TOKEN="", BATCHER_CONCURRENCY="24"
    )
    assert done.code == 0, done.err
    assert "rehearsal" in done.err
    out = batcher.folder / "runs/product-restyle.sandbox"
    files = images_in(out)
    assert len(files) == 24
    assert {size_of(file) for file in files} == {(819, 1024)}
    assert json.loads(files[0].with_suffix(".json").read_text())["provider"] == "sandbox"
    assert api.requests == [], "a rehearsal spoke to the API"


@pytest.mark.parametrize("name", ["minimal.yaml", pytest.param("dataset.csv", marks=pytest.mark.long)])
def test_the_other_examples_run_too(batcher: Batcher, name: str) -> None:
    done = batcher("run", str(MANIFESTS / name), "--model", MODEL, "--sandbox", "--limit", "12")
    assert done.code == 0, done.err
    assert len(images_in(batcher.folder / f"runs/{Path(name).stem}.sandbox")) == (1 if name == "minimal.yaml" else 12)


def test_every_row_of_the_dataset_is_a_job_without_a_fault(batcher: Batcher) -> None:
    plan = batcher("plan", str(MANIFESTS / "dataset.csv"), "--model", MODEL, "--json").json()
    assert (plan["jobs"], plan["equal_rows"], plan["fault_count"]) == (200, 0, 0)


@pytest.mark.long
def test_a_rehearsal_that_was_killed_goes_on(batcher: Batcher, until: Until) -> None:
    manifest = str(MANIFESTS / "product-restyle.yaml")
    process = batcher.start("run", manifest, "--sandbox", "--limit", "10")
    files = batcher.folder / "runs/product-restyle.sandbox/files"
    until(lambda: any(files.rglob("*.json")))
    end(process, signal.SIGKILL)
    done = batcher("resume", "runs/product-restyle.sandbox")
    states = batcher.states("runs/product-restyle.sandbox")
    assert states["done"] + states.get("uncertain", 0) == 10, done.err
    journal = (batcher.folder / "runs/product-restyle.sandbox/sandbox/journal.jsonl").read_text().splitlines()
    assert len(journal) <= 10


def test_results_of_the_sandbox_never_get_under_a_real_run(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"], "-o", "out").code == 0
    assert batcher.run_csv(["a"], "-o", "out", "--sandbox").code == 64


@pytest.mark.long
def test_models_of_other_shapes_are_rehearsed(batcher: Batcher) -> None:
    (batcher.folder / "t.yaml").write_text(
        "model: google/nano-banana/pro/text-to-image\ninputs: {prompt: a neon night, number_of_images: 2}\n"
    )
    assert batcher("run", "t.yaml", "--sandbox").code == 0
    assert len(images_in(batcher.folder / "runs/t.sandbox")) == 2
    (batcher.folder / "v.yaml").write_text(
        f"model: sandbox/turntable/image-to-video\ninputs: {{image: '{MANIFESTS}/photos/mug.jpg', duration: 0.5}}\n"
    )
    done = batcher("run", "v.yaml", "--sandbox")
    assert done.code == 0, done.err
    (video,) = (batcher.folder / "runs/v.sandbox/files").rglob("*.webm")
    assert json.loads(video.with_suffix(".json").read_text())["output"]["mime"] == "video/webm"
    assert batcher("plan", "t.yaml", "--sandbox").code == 0


@pytest.fixture
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """Give the base URL of a sandbox that knows one token, and lets little through."""
    protocol = getattr(request, "param", "runcomfy")
    command = [sys.executable, "-m", "batcher", "sandbox", "--protocol", protocol, "--dir", str(tmp_path / "s")]
    command += [
        "--until-stdin-ends",
        "--latency",
        "3",
        "--slots",
        "1",
        "--token",
        "t",
        "--max-outstanding",
        "3",
        "--balance",
        "0.5",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()
        assert process.wait(10) == 0


def ask(base: str, method: str, path: str, body: object = None, token: str = "Bearer t") -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": token, "Content-Type": "application/json"}
    request = Request(base + path, data, headers, method=method)
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read() or b"{}")


@pytest.mark.parametrize("served", [*PAIRS], indirect=True)
def test_the_sandbox_answers_as_the_vendors_documents_say(served: str, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["served"]
    scheme, request_id = PROVIDERS[name].traits.authorization, ""
    for pair in PAIRS[name]:
        path = pair["path"].replace("{request_id}", request_id)
        token = f"{scheme} {pair.get('token', 't')}"
        status, body = ask(served, pair["method"], path, pair.get("body"), token)
        assert status == pair["status"], pair["says"]
        for key, value in pair["answer"].items():
            assert key in body and value in ("*", body[key]), f"{pair['says']}: {body}"
        request_id = body.get("request_id", request_id) if pair["method"] == "POST" else request_id


def test_every_provider_has_pairs_from_its_vendors_documents() -> None:
    assert set(PAIRS) == set(PROVIDERS) == set(FACES)


def test_the_sandbox_limits_what_is_outstanding_and_what_is_spent(served: str) -> None:
    body = {"prompt": "a", "image_urls": ["https://i.invalid/1.png"]}
    answers = [ask(served, "POST", f"/v1/models/{MODEL}", body) for _ in range(5)]
    assert [status for status, _ in answers] == [200, 200, 200, 402, 402]
    ids = [found["request_id"] for status, found in answers if status == 200]
    last = ask(served, "POST", f"/v1/requests/{ids[2]}/cancel")[1]
    assert last == {"request_id": ids[2], "status": "cancelled", "outcome": "cancelled"}
    assert ask(served, "GET", f"/v1/requests/{ids[2]}/status")[1]["status"] == "cancelled"
    assert ask(served, "GET", "/prod/v2/balance")[1]["balance_usd"] == pytest.approx(0.2)


def test_a_picture_that_is_not_there_fails_its_job(batcher: Batcher) -> None:
    done = batcher.run_csv(["a"], "--sandbox")
    assert done.code == 1
    (job,) = batcher("jobs", "runs/jobs.sandbox", "--json").lines()
    assert job["error"]["kind"] == "failed"
    assert "could not be fetched" in job["error"]["message"]


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "sandbox"
    command = [sys.executable, "-m", "batcher.sandbox", "--dir", str(folder), "--until-stdin-ends", "--speed", "50"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        yield process.stdout.readline().strip(), folder
        process.stdin.close()
        process.wait(20)


def sent(url: str, body: object = None, method: str | None = None, **headers: str) -> tuple[int, bytes]:
    """Send a request as a web page or a client would; give the status and the body."""
    given = {"Authorization": "Bearer t", **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    if data is not None:
        given.setdefault("Content-Type", "application/json")
    try:
        with urlopen(Request(url, data, given, method=method), timeout=20) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def test_the_sandbox_talks_to_no_page_of_elsewhere(quick: tuple[str, Path]) -> None:
    """A web page could post to it, and by a name that its owner points to loopback read its journal."""
    base, _ = quick
    post = f"{base}/v1/models/google/nano-banana/pro/text-to-image"
    assert sent(f"{base}/journal")[0] == 200
    assert sent(f"{base}/journal", Origin=base)[0] == 200
    for origin in ("https://evil.invalid", "null", "http://127.0.0.1:1"):
        assert sent(f"{base}/journal", Origin=origin)[0] == 403
        assert sent(post, {"prompt": "x"}, Origin=origin)[0] == 403
        assert sent(f"{base}/outage", {"seconds": 1}, Origin=origin)[0] == 403
    for host in ("evil.invalid", "evil.invalid:80", "10.0.0.1", "", "127.0.0.1.evil.invalid", "[::1"):
        assert sent(f"{base}/journal", Host=host)[0] in {400, 403}, host
    for host in ("localhost:9", "127.0.0.1", "[::1]:80"):
        assert sent(f"{base}/journal", Host=host)[0] == 200, host
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert sent(post, {"prompt": "x"}, Content_Type=kind)[0] == 415
        assert sent(f"{base}/faults", {"lose": 1}, Content_Type=kind)[0] == 415
    assert json.loads(sent(f"{base}/journal")[1]) == []


@pytest.mark.parametrize("seconds", [1e300, float("inf"), -1, "x", None, 1e6])
def test_an_outage_has_a_bound(quick: tuple[str, Path], seconds: object) -> None:
    base, _ = quick
    assert sent(f"{base}/outage", {"seconds": seconds})[0] == 400
    assert sent(f"{base}/outage", [])[0] == 400
    assert sent(f"{base}/journal")[0] == 200


def test_a_client_names_no_file_of_the_users(quick: tuple[str, Path], tmp_path: Path) -> None:
    base, folder = quick
    private = tmp_path / "private.png"
    Image.new("RGB", (64, 48), (250, 0, 0)).save(private)
    for name in (f"kept:{private}", "kept:../journal.jsonl", "kept:../../private.png"):
        code, answer = sent(f"{base}/v1/models/{MODEL}", {"prompt": "x", "image_urls": [name]})
        if code != 200:
            continue
        request_id = json.loads(answer)["request_id"]
        limit = time.monotonic() + 20
        status = {"status": "in_queue"}
        while status["status"] in {"in_queue", "in_progress"} and time.monotonic() < limit:
            status = json.loads(sent(f"{base}/v1/requests/{request_id}/result")[1])
        code, picture = sent(status["output"]["image"])  # type: ignore[index]
        (tmp_path / "out").write_bytes(picture)
        with Image.open(tmp_path / "out") as image:
            red = image.convert("RGB").resize((1, 1)).getpixel((0, 0))
        assert not (isinstance(red, tuple) and red[0] > 200 and red[1] < 60), "the private picture was rendered"
    assert "private.png" not in "".join(file.name for file in folder.rglob("*"))


def test_the_sandboxes_files_are_for_the_user_alone(quick: tuple[str, Path], tmp_path: Path) -> None:
    base, folder = quick
    photo = tmp_path / "p.png"
    Image.new("RGB", (64, 48)).save(photo)
    import base64

    uri = "data:image/png;base64," + base64.b64encode(photo.read_bytes()).decode()
    assert sent(f"{base}/v1/models/{MODEL}", {"prompt": "x", "image_urls": [uri]})[0] == 200
    modes = {file.name: file.stat().st_mode & 0o777 for file in [folder, *folder.rglob("*")]}
    assert set(modes.values()) <= {0o700, 0o600}, modes
    assert len(modes) >= 4


def test_a_rehearsal_leaves_nothing_for_others_to_read(batcher: Batcher) -> None:
    (batcher.folder / "m.yaml").write_text("model: google/nano-banana/pro/text-to-image\ninputs: {prompt: a}\n")
    assert batcher("run", "m.yaml", "--sandbox").code == 0
    folder = batcher.folder / "runs/m.sandbox/sandbox"
    assert {file.stat().st_mode & 0o777 for file in [folder, *folder.rglob("*")]} <= {0o700, 0o600}


def test_the_sandbox_fetches_from_no_private_address(batcher: Batcher) -> None:
    with listening() as (port, heard):
        (batcher.folder / "m.yaml").write_text(
            f"model: {MODEL}\ninputs: {{prompt: x, image_urls: ['http://127.0.0.2:{port}/a.png']}}\n"
        )
        done = batcher("run", "m.yaml", "--sandbox")
        assert done.code in {1, 65}
    for url in ("http://10.1.2.3/a.png", "http://169.254.169.254/latest/meta-data", "http://[fe80::1]/a.png"):
        with pytest.raises(OSError, match="private network"):
            open_socket((2, 1, 6, "", (url.split("/")[2].strip("[]"), 80)))
    assert heard == [] or b"GET" in heard[0]


def test_a_photo_that_was_half_copied_fails_its_job_at_the_sandbox_and_keeps_nobody_waiting(
    quick: tuple[str, Path], tmp_path: Path
) -> None:
    import base64

    base, _ = quick
    photo = tmp_path / "p.jpg"
    Image.effect_noise((640, 480), 60).convert("RGB").save(photo, quality=95)
    half = photo.read_bytes()[:9000]
    uri = "data:image/jpeg;base64," + base64.b64encode(half).decode()
    _, answer = sent(f"{base}/v1/models/{MODEL}", {"prompt": "x", "image_urls": [uri]})
    request_id = json.loads(answer)["request_id"]
    end_at = time.monotonic() + 10
    status = {"status": ""}
    while status["status"] not in {"failed", "succeeded"} and time.monotonic() < end_at:
        status = json.loads(sent(f"{base}/v1/requests/{request_id}/result")[1])
    assert status["status"] == "failed" and "cannot be decoded" in str(status)
