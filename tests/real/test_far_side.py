"""What a server, a gateway or a file host may do to a night: late outputs, mixed-up answers, files that never come."""

import gzip
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.real.api import TOKEN, Api, accepts_and_answers, own, raw
from tests.real.conftest import MODEL, Batcher, Until, end


def listed(batcher: Batcher) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = batcher("jobs", "runs/jobs", "--json").lines()
    return found


def accepts_and_says(status: int, code: int) -> Any:
    def answer(api: Api, _request: web.Request, body: dict[str, Any]) -> web.Response:
        api.accept(body)
        return web.json_response({"error_code": code, "error_message": "upstream timed out"}, status=status)

    return answer


@pytest.mark.parametrize(("status", "code"), [(504, 504001), (500, 500001), (200, 502000), (408, 408001)])
def test_a_gateways_own_trouble_counts_at_full_price_and_is_not_bought_again_by_a_plain_retry(
    batcher: Batcher, api: Api, status: int, code: int
) -> None:
    api.specials = [accepts_and_says(status, code)] * 30
    assert batcher.run_csv([f"p{n}" for n in range(30)], "--max-cost", "0.45").code == 75
    assert len(api.journal) <= 3, "the limit pays for three"
    assert batcher.states()["uncertain"] == len(api.journal)
    assert "no such jobs" in batcher("retry", "runs/jobs").out
    cost = batcher("status", "runs/jobs", "--json").json()["cost_usd"]
    assert cost["worst_case"] <= 0.45


def test_outputs_that_come_late_are_waited_for_and_keep_nobody_from_being_submitted(batcher: Batcher, api: Api) -> None:
    api.outputs_after = 4.0
    begun = time.monotonic()
    done = batcher.run_csv([f"p{n}" for n in range(12)], "-j", "2")
    assert done.code == 0, done.err
    assert batcher.states() == {"done": 12} and len(api.journal) == 12
    assert time.monotonic() - begun < 20, "six waves of four seconds each"


def test_a_stop_ends_the_wait_for_late_outputs_at_once(batcher: Batcher, api: Api, until: Until) -> None:
    api.empty = True
    process = batcher.start("run", batcher.csv(["a", "b"]), "--model", MODEL, "--max-time", "4s")
    until(lambda: sum(path.endswith("/result") for _, path in api.requests) >= 6)
    begun = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and time.monotonic() - begun < 8, err
    assert batcher.states() == {"running": 2}
    api.empty = False
    assert batcher("resume", "runs/jobs", "--max-time", "1h").code == 0
    assert len(api.journal) == 2


def test_answers_about_another_request_are_ignored_and_the_first_three_stop_the_run(batcher: Batcher, api: Api) -> None:
    api.mixes_up = True
    done = batcher.run_csv([f"p{n}" for n in range(6)], "-j", "6")
    assert done.code == 69 and done.err.count("it is ignored, and asked for again") == 1, done.err
    assert "mixes them up" in done.err
    wrong = [job for job in listed(batcher) if job["state"] == "done" and job["request_id"] != "r-1"]
    assert wrong == [], "the first one's picture under another's name"
    api.mixes_up = False
    assert batcher("resume", "runs/jobs").code == 0
    assert len(api.journal) == 6 and batcher("verify", "runs/jobs").code == 0
    files = {file.read_bytes() for file in (batcher.folder / "runs/jobs/files").glob("*.png")}
    assert len(files) == 6


def test_a_file_that_never_comes_fails_its_job_alone_and_retry_fetches_it_again(batcher: Batcher, api: Api) -> None:
    api.file_statuses = {"r-2/1": 500}
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: jobs.csv\nretry: {{fetch_timeout: 3s}}\n")
    batcher.csv([f"p{n}" for n in range(6)])
    begun = time.monotonic()
    done = batcher("run", "m.yaml")
    assert done.code == 1 and time.monotonic() - begun < 20, done.err
    assert batcher.states("runs/m") == {"done": 5, "failed": 1}
    assert batcher("status", "runs/m", "--json").json()["errors"] == {"unfetched": 1}
    assert "retry" in done.err
    assert batcher("retry", "runs/m").code == 0
    assert batcher("resume", "runs/m").code == 1, "as long as it does not come"
    api.file_statuses = {}
    assert batcher("retry", "runs/m").code == 0
    assert batcher("resume", "runs/m").code == 0
    assert len(api.journal) == 6


def test_one_output_that_does_not_come_keeps_no_other_waiting(batcher: Batcher, api: Api, until: Until) -> None:
    api.file_statuses = {"r-1/1": 500}
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: a, image_urls: [https://images.invalid/0.png], num_images: 3}}\n"
        "output: {name: x}\n"
    )
    process = batcher.start("run", "m.yaml")
    until(lambda: len([*(batcher.folder / "runs/m/files").glob("x-*.png")]) == 2)
    end(process)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://files.invalid/x.png", "http:///x.png", "https://", "BASE/loop", "javascript:1"]
)
def test_a_url_that_can_never_be_fetched_fails_at_once(batcher: Batcher, api: Api, url: str) -> None:
    if url == "BASE/loop":
        url = f"{api.base}/redirect?to=itself"
    api.output_urls = [url]
    begun = time.monotonic()
    assert batcher.run_csv(["a"]).code == 1
    assert time.monotonic() - begun < 10
    (job,) = listed(batcher)
    assert (job["state"], job["error"]["kind"]) == ("failed", "unfetched"), job


def test_capitals_and_spaces_around_a_url_are_no_fault(batcher: Batcher, api: Api) -> None:
    api.output_urls = [f"  {api.base.replace('http://', 'HTTP://')}/files/r-1/1 "]
    done = batcher.run_csv(["a"])
    assert done.code == 0, done.err


def test_the_outputs_of_one_result_have_a_bound_that_is_said(batcher: Batcher, api: Api) -> None:
    api.output_urls = [f"{api.base}/files/r-1/{n}" for n in range(1, 301)]
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: a, image_urls: [https://images.invalid/0.png], num_images: 4}}\n"
        "output: {name: x}\n"
    )
    done = batcher("run", "m.yaml")
    assert done.code == 0, done.err
    assert "names 300 outputs; the first 256 are fetched" in done.err
    assert len([*(batcher.folder / "runs/m/files").glob("*.png")]) == 256


def cut(content: bytes) -> bytes:
    return content[: content.index(b"status_url") + 4]


def packed(content: bytes) -> bytes:
    whole = gzip.compress(content + b" " * 40_000)
    return whole[: len(whole) - 12]


@pytest.mark.parametrize(
    "special",
    [
        accepts_and_answers(200, cut),
        accepts_and_answers(504, cut),
        accepts_and_answers(200, packed, Content_Encoding="gzip"),
        accepts_and_answers(200, lambda content: content + b"<!-- served by a proxy -->"),
        accepts_and_answers(200, lambda content: b"while(1);" + content),
        accepts_and_answers(200, lambda content: content[:-1] + b', "note": "caf\xe9"}'),
        accepts_and_answers(200, lambda content: content[:-1] + b', "n": ' + b"9" * 5000 + b"}"),
        accepts_and_answers(200, lambda content: content[:-1] + b', "n": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    ],
    ids=["cut", "cut-504", "cut-gzip", "trailing-junk", "leading-junk", "bad-byte", "absurd-number", "nesting"],
)
def test_an_id_is_salvaged_from_a_damaged_answer_however_it_ended(batcher: Batcher, api: Api, special: Any) -> None:
    api.specials = [special]
    done = batcher.run_csv(["a"])
    assert done.code == 0, done.err + batcher("jobs", "runs/jobs").out
    assert len(api.journal) == 1


def test_an_id_that_an_uncertain_answer_may_hold_is_shown_with_the_command_that_adopts_it(
    batcher: Batcher, api: Api
) -> None:
    def buried(content: bytes) -> bytes:
        return b'{"data": ' + content.replace(b"r-1", b"req-0001") + b"}"

    api.specials = [accepts_and_answers(200, buried)]
    assert batcher.run_csv(["a"]).code == 1
    (job,) = listed(batcher)
    shown = batcher("jobs", "runs/jobs").out + batcher("retry", "runs/jobs", "--state", "uncertain").err
    assert f"batcher adopt runs/jobs --job {job['job_id']} --request-id req-0001" in shown
    assert "req-0001" in job["error"]["message"]
    assert batcher("adopt", "runs/jobs", "--job", job["job_id"], "--request-id", "..").code == 64
    assert batcher("adopt", "runs/jobs", "--job", job["job_id"], "--request-id", "r-1").code == 0
    assert batcher("resume", "runs/jobs").code == 0 and len(api.journal) == 1


ESCAPES: dict[str, Callable[[str], str]] = {
    "slashes": lambda token: token.replace("-", "\\u002d"),
    "unicode": lambda token: "".join(f"\\u{ord(char):04X}" for char in token),
    "percent": lambda token: "".join(f"%{ord(char):02x}" for char in token),
    "some-percent": lambda token: token.replace("-", "%2D"),
}


@pytest.mark.parametrize("spelt", ESCAPES)
def test_a_token_that_the_server_spells_otherwise_is_in_no_file_and_on_no_screen(
    batcher: Batcher, api: Api, spelt: str
) -> None:
    token = ESCAPES[spelt](TOKEN)
    api.specials = [
        raw(422, f'{{"error_message": "no {token}"}}', "application/json"),
        raw(502, f'{{"error_message": "no {token}"}}', "application/json", {"X-Echo": token}),
    ]
    done = batcher.run_csv(["a", "b", "c"], "-j", "1", "-v")
    shown = done.out + done.err + batcher("jobs", "runs/jobs").out + batcher("jobs", "runs/jobs", "--json").out
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        shown += "".join(map(str, ledger.execute("SELECT evidence FROM attempts").fetchall()))
        shown += "".join(map(str, ledger.execute("SELECT message FROM jobs").fetchall()))
    assert "***" in shown
    for text in (shown, json.loads(json.dumps(shown))):
        assert TOKEN not in text and token not in text


@pytest.mark.parametrize(
    ("token", "name"), [("abc\ndef-0123", "line break"), ("abc\rdef-0123", "carriage return"), ("a\x01bcdef", "U+0001")]
)
def test_a_token_that_no_header_can_carry_is_named_and_nothing_is_sent(
    batcher: Batcher, api: Api, token: str, name: str
) -> None:
    done = batcher.run_csv(["a"] * 3, RUNCOMFY_TOKEN=token)
    assert done.code == 77 and name in done.err, done.err
    assert api.requests == [] and not (batcher.folder / "runs/jobs").exists()


def test_a_token_of_a_file_may_have_a_nul_and_is_refused(batcher: Batcher, api: Api) -> None:
    folder = batcher.folder.parent / "home/.config/runcomfy"
    folder.mkdir(parents=True)
    (folder / "token.json").write_text(json.dumps({"token": "abc\0def-0123"}))
    done = batcher.run_csv(["a"], RUNCOMFY_TOKEN="")
    assert done.code == 77 and "NUL" in done.err and api.requests == []


@pytest.mark.parametrize(
    "answer",
    [own(429, 429001, "slow down", {"Retry-After": "3600"}), own(503, 503001, "full", {"Retry-After": "3600"})],
)
def test_no_retry_after_is_longer_than_the_patience_set(batcher: Batcher, api: Api, answer: Any) -> None:
    api.specials = [answer] * 50
    begun = time.monotonic()
    done = batcher.run_csv(["a"], "--patience", "2s")
    assert done.code == 69, done.err
    assert time.monotonic() - begun < 6


def test_a_poll_that_is_told_to_wait_waits_no_longer_than_the_patience_set(batcher: Batcher, api: Api) -> None:
    def busy(_api: Api, _request: web.Request) -> web.Response:
        return web.json_response({"error_code": 429001}, status=429, headers={"Retry-After": "3600"})

    api.on_poll = busy
    begun = time.monotonic()
    assert batcher.run_csv(["a"], "--patience", "2s").code == 69
    assert time.monotonic() - begun < 7


@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:99999",
        "https://",
        "https:///v1",
        "http://user:secret@127.0.0.1:9",
        "http://127.0.0.1:9/#x",
        "http://127.0.0.1 :9",
        "http://exa mple/",
        "http://[::1",
        "http://a..b/",
        "ftp://127.0.0.1/",
        "http://127.0.0.1:0",
        "http://127.0.0.1:9?x=1",
    ],
)
def test_a_base_url_that_no_server_can_be_at_is_a_wrong_argument(batcher: Batcher, base: str) -> None:
    begun = time.monotonic()
    done = batcher.run_csv(["a"], RUNCOMFY_MODEL_API_BASE=base)
    assert done.code == 64, done.err
    assert "RUNCOMFY_MODEL_API_BASE" in done.err and time.monotonic() - begun < 5
    assert not (batcher.folder / "runs/jobs").exists()


@contextmanager
def forward_proxy() -> Iterator[tuple[str, list[bytes]]]:
    """Carry plain HTTP requests to where they are addressed, and note their first lines."""
    lines: list[bytes] = []

    def serve(client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (block := client.recv(65536)):
                    return
                head += block
            first, _, rest = head.partition(b"\r\n")
            lines.append(first)
            method, url, version = first.split(b" ")
            host, _, path = url.removeprefix(b"http://").partition(b"/")
            name, _, port = host.partition(b":")
            target = b"127.0.0.1" if name.endswith(b".invalid") else name
            lowered = rest.lower()
            with socket.create_connection((target.decode(), int(port or 80)), timeout=20) as server:
                rest = rest.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
                server.sendall(b" ".join([method, b"/" + path, version]) + b"\r\n" + rest)
                if length := next(
                    (int(line[15:]) for line in lowered.split(b"\r\n") if line.startswith(b"content-length:")), 0
                ):
                    missing = length - len(head.partition(b"\r\n\r\n")[2])
                    while missing > 0:
                        block = client.recv(65536)
                        missing -= len(block)
                        server.sendall(block)
                while block := server.recv(65536):
                    client.sendall(block)

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", lines
        listening.shutdown(socket.SHUT_RDWR)


def test_the_proxy_of_the_environment_is_used_and_no_proxy_is_honoured(batcher: Batcher, api: Api) -> None:
    port = api.base.rpartition(":")[2]
    with forward_proxy() as (proxy, lines):
        base = f"http://api.invalid:{port}"  # a name that only the proxy knows
        api.output_urls = [f"{base}/files/r-1/1"]
        done = batcher.run_csv(["a"], HTTP_PROXY=proxy, http_proxy=proxy, RUNCOMFY_MODEL_API_BASE=base)
        assert done.code == 0, done.err
        assert any(line.startswith(b"POST http://api.invalid") for line in lines)
        assert any(b"/files/r-1/1" in line for line in lines), "the API's own host is reached through it too"
        lines.clear()
        api.output_urls = []
        for free in ("127.0.0.1", "*", "127.0.0.0/8", f"127.0.0.1:{port}"):
            done = batcher.run_csv(["b"], "-o", f"runs/{free[:3]}-{len(free)}", HTTP_PROXY=proxy, http_proxy=proxy,
                                   NO_PROXY=free, no_proxy=free)  # fmt: skip
            assert done.code == 0, done.err
        assert lines == []


def test_a_proxy_is_asked_for_no_file_of_a_private_network(batcher: Batcher, api: Api) -> None:
    port = api.base.rpartition(":")[2]
    with forward_proxy() as (proxy, lines):
        base = f"http://api.invalid:{port}"
        api.output_urls = [f"http://127.0.0.2:{port}/files/r-1/1"]
        done = batcher.run_csv(["a"], HTTP_PROXY=proxy, http_proxy=proxy, RUNCOMFY_MODEL_API_BASE=base)
        assert done.code == 1, done.err
        assert not any(b"127.0.0.2" in line for line in lines)
    assert listed(batcher)[0]["error"]["kind"] == "unfetched"


def test_the_embedded_sandbox_is_reached_directly_whatever_proxy_there_is(batcher: Batcher) -> None:
    (batcher.folder / "m.yaml").write_text("model: google/nano-banana/pro/text-to-image\ninputs: {prompt: a}\n")
    done = batcher("run", "m.yaml", "--sandbox", HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    assert done.code == 0, done.err


def test_a_proxy_that_is_not_spoken_is_said_and_nothing_is_sent(batcher: Batcher, api: Api) -> None:
    done = batcher.run_csv(["a"], ALL_PROXY="socks5://127.0.0.1:9", all_proxy="socks5://127.0.0.1:9")
    assert done.code == 64 and "socks5" in done.err
    assert api.requests == []
