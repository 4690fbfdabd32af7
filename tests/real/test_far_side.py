"""What a server, a gateway or a file host may do to a night: late outputs, mixed-up answers, files that never come."""

import gzip
import json
import socket
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
    assert "nothing to try again" in batcher("retry", "runs/jobs").out
    cost = batcher("status", "runs/jobs", "--json").json()["cost_usd"]
    assert cost["worst_case"] <= 0.45


@pytest.mark.long
def test_outputs_that_come_late_are_waited_for_and_keep_nobody_from_being_submitted(batcher: Batcher, api: Api) -> None:
    api.outputs_after = 4.0
    done = batcher.run_csv([f"p{n}" for n in range(12)], "-j", "2")
    assert done.code == 0, done.err
    assert batcher.states() == {"done": 12} and len(api.journal) == 12
    assert batcher.seconds_at_work() < 20, "six waves of four seconds each"


@pytest.mark.long
def test_a_stop_ends_the_wait_for_late_outputs_at_once(batcher: Batcher, api: Api, until: Until) -> None:
    api.empty = True
    process = batcher.start("run", batcher.csv(["a", "b"]), "--model", MODEL, "--max-time", "4s")
    until(lambda: sum(path.endswith("/result") for _, path in api.requests) >= 6)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and batcher.seconds_at_work() < 8, err
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


@pytest.mark.long
def test_a_file_that_never_comes_fails_its_job_alone_and_retry_fetches_it_again(batcher: Batcher, api: Api) -> None:
    api.file_statuses = {"r-2/1": 500}
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: jobs.csv\nretry: {{fetch_timeout: 3s}}\n")
    batcher.csv([f"p{n}" for n in range(6)])
    done = batcher("run", "m.yaml")
    assert done.code == 1 and batcher.seconds_at_work("runs/m") < 20, done.err
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
    assert batcher.run_csv(["a"]).code == 1
    assert batcher.seconds_at_work() < 10
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


def wrong_sum(content: bytes) -> bytes:
    return gzip.compress(content)[:-8] + b"\0" * 8


def badly_chunked(api: Api, request: web.Request, body: dict[str, Any]) -> web.Response:
    content = json.dumps(api.accept(body)).encode()
    assert request.transport is not None
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    request.transport.write(head + b"%x\r\n" % len(content) + content + b"\r\nzz\r\n")
    request.transport.close()
    return web.Response()


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
        accepts_and_answers(200, lambda content: gzip.compress(content) + b"junk", Content_Encoding="gzip"),
        pytest.param(accepts_and_answers(200, wrong_sum, Content_Encoding="gzip"), marks=pytest.mark.long),
        accepts_and_answers(200, lambda content: content, Content_Encoding="gzip"),
        pytest.param(accepts_and_answers(200, lambda content: content, Content_Encoding="br"), marks=pytest.mark.long),
        pytest.param(accepts_and_answers(200, gzip.compress), marks=pytest.mark.long),
        accepts_and_answers(200, lambda content: gzip.compress(gzip.compress(content)), Content_Encoding="gzip, gzip"),
        pytest.param(accepts_and_answers(200, zlib.compress, Content_Encoding="deflate"), marks=pytest.mark.long),
        accepts_and_answers(200, lambda content: b'{"level": "info"}\n' + content),
        badly_chunked,
        accepts_and_answers(400, lambda content: content),
        accepts_and_answers(422, lambda content: content[:40]),
        accepts_and_answers(504, lambda content: content[:-1] + b', "error_code": 422001}'),
    ],
    ids=[
        *("cut", "cut-504", "cut-gzip", "trailing-junk", "leading-junk", "bad-byte", "absurd-number", "nesting"),
        *("gzip-junk", "gzip-sum", "gzip-header-alone", "br-header-alone", "gzip-body-alone", "gzip-twice", "deflate"),
        *("log-line-first", "bad-chunk", "400-with-id", "422-cut-with-id", "422001-with-id"),
    ],
)
def test_an_id_is_salvaged_from_a_damaged_answer_however_it_ended(batcher: Batcher, api: Api, special: Any) -> None:
    api.specials = [special]
    done = batcher.run_csv(["a"])
    assert done.code == 0, done.err + batcher("jobs", "runs/jobs").out
    assert len(api.journal) == 1


def accepts_and_sends(status: int, content: bytes) -> Any:
    return accepts_and_answers(status, lambda _: content)


@pytest.mark.parametrize(
    "special",
    [
        accepts_and_sends(400, b'{"error_code": 504001, "error_message": "upstream"}\n\0'),
        accepts_and_sends(400, b'{"error_code": 504001, "error_message":"upstr'),
        accepts_and_sends(400, b'{"error_code": 504001, "error_message": "\xff"}'),
        accepts_and_sends(400, b'{"error_code": 504}'),
        pytest.param(accepts_and_sends(400, b'{"error_code": "504"}'), marks=pytest.mark.long),
        pytest.param(accepts_and_sends(422, b'{"error_code": 50400001}'), marks=pytest.mark.long),
        pytest.param(accepts_and_sends(400, b'{"error_code": 504001.0}'), marks=pytest.mark.long),
        accepts_and_sends(404, b'{"error": {"code": 504001, "message": "gateway timeout"}}'),
        pytest.param(accepts_and_sends(400, b'{"code": 408, "message": "timed out"}'), marks=pytest.mark.long),
    ],
)
def test_what_speaks_of_the_servers_own_trouble_is_no_refusal_however_it_is_spelt(
    batcher: Batcher, api: Api, special: Any
) -> None:
    api.specials = [special]
    assert batcher.run_csv(["a"]).code == 1
    (job,) = listed(batcher)
    assert (job["state"], job["error"]["kind"]) == ("uncertain", "lost"), job
    assert "nothing to try again" in batcher("retry", "runs/jobs").out
    assert batcher("resume", "runs/jobs").code == 1 and len(api.journal) == 1


@pytest.mark.parametrize("answer", ['{"request_id": "r-1"}', "made request_id=r-1000"])
def test_an_id_in_what_could_not_be_read_at_all_counts_or_is_shown(batcher: Batcher, api: Api, answer: str) -> None:
    def no_http(api: Api, request: web.Request, body: dict[str, Any]) -> web.Response:
        api.accept(body)
        assert request.transport is not None
        request.transport.write(answer.encode() + b"\r\n\r\n")
        request.transport.close()
        return web.Response()

    api.specials = [no_http]
    assert batcher.run_csv(["a"]).code == int("made" in answer)
    assert ("--request-id r-1000" in batcher("jobs", "runs/jobs").out) == ("made" in answer)


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
    done = batcher.run_csv(["a"], "--patience", "2s")
    assert done.code == 69, done.err
    assert batcher.seconds_at_work() < 6


def test_a_poll_that_is_told_to_wait_waits_no_longer_than_the_patience_set(batcher: Batcher, api: Api) -> None:
    def busy(_api: Api, _request: web.Request) -> web.Response:
        return web.json_response({"error_code": 429001}, status=429, headers={"Retry-After": "3600"})

    api.on_poll = busy
    assert batcher.run_csv(["a"], "--patience", "2s").code == 69
    assert batcher.seconds_at_work() < 7


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
        "http://256.1.1.1",
        "http://1.2.3.4.5",
        "http://*",
        "http://%31/",
        "http://[::1%25lo]:1",
    ],
)
def test_a_base_url_that_no_server_can_be_at_is_a_wrong_argument(batcher: Batcher, base: str) -> None:
    begun = time.monotonic()
    done = batcher.run_csv(["a"], RUNCOMFY_MODEL_API_BASE=base)
    assert done.code == 64, done.err
    assert "RUNCOMFY_MODEL_API_BASE" in done.err and time.monotonic() - begun < 5
    assert not (batcher.folder / "runs/jobs").exists()


@contextmanager
def serving(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Hand each connection to a thread of its own; gives the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:

        def accept() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


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

    with serving(serve) as port:
        yield f"http://127.0.0.1:{port}", lines


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


@pytest.mark.parametrize(
    "proxy", ["http://[::1", "http://127.0.0.1:99999", "http://a b:1", "http://", "http://u:s3cretpw@127.0.0.1:0"]
)
def test_a_proxy_that_no_server_can_be_at_is_a_wrong_argument(batcher: Batcher, api: Api, proxy: str) -> None:
    done = batcher.run_csv(["a"], ALL_PROXY=proxy, all_proxy=proxy)
    assert done.code == 64 and "the environment names the proxy" in done.err, done.err
    assert "s3cretpw" not in done.err and api.requests == []
    assert not (batcher.folder / "runs/jobs").exists()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 no\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 502 no\r\n\r\n", b"no\r\n"]
)
def test_a_proxys_password_is_written_nowhere(batcher: Batcher, answer: bytes) -> None:
    def serve(client: socket.socket) -> None:
        with client:
            client.recv(65536)
            client.sendall(answer)

    with serving(serve) as port:
        proxy = f"http://user:s3cretpw@127.0.0.1:{port}"
        done = batcher.run_csv(
            ["a"], "--patience", "3s", HTTPS_PROXY=proxy, https_proxy=proxy,
            RUNCOMFY_MODEL_API_BASE="https://api.example.invalid",
        )  # fmt: skip
    assert done.code in {69, 64}, done.err
    assert "s3cretpw" not in done.err + done.out
    for file in batcher.folder.rglob("*"):
        assert not file.is_file() or b"s3cretpw" not in file.read_bytes(), file


DRIPS = {
    "headers": (b"HTTP/1.1 200 OK\r\nX: ", b"a"),
    "early-hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    "chunk-extension": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;ext=", b"a"),
}


@pytest.mark.parametrize(
    "drip", ["headers", *(pytest.param(one, marks=pytest.mark.long) for one in ("early-hints", "chunk-extension"))]
)
def test_a_file_host_that_drips_keeps_no_run_going_and_no_other_file_from_coming(
    batcher: Batcher, api: Api, drip: str
) -> None:
    begins, goes_on = DRIPS[drip]

    def serve(client: socket.socket) -> None:
        with client:
            client.recv(65536)
            client.sendall(begins)
            with suppress(OSError):
                for _ in range(200):
                    client.sendall(goes_on)
                    time.sleep(0.3)

    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: rows.csv\nretry: {{fetch_timeout: 2s}}\n")
    batcher.csv([f"DRIP {n}" for n in range(17)] + ["b", "c"], "rows.csv")
    with serving(serve) as port:
        api.drips = f"http://127.0.0.1:{port}"
        begun = time.monotonic()
        assert batcher("run", "m.yaml").code == 1
    assert time.monotonic() - begun < 40
    assert batcher.states("runs/m") == {"done": 2, "failed": 17}


@pytest.mark.parametrize("named", ["r-1\n", ["r-1"], " R1 ", {"id": "r-1"}])
def test_an_answer_that_names_another_request_oddly_is_ignored_too(batcher: Batcher, api: Api, named: Any) -> None:
    def poll(api: Api, request: web.Request) -> web.StreamResponse:
        url = f"{api.base}/files/r-1/1"
        mine = request.match_info["id"] == "r-1"
        said = {"request_id": "  r-1 " if mine else named, "status": "completed", "output": {"image": url}}
        return web.json_response(said)

    api.on_poll = poll
    assert batcher.run_csv([f"p{n}" for n in range(12)], "-j", "12").code == 69
    assert set(batcher.states()) <= {"done", "running"} and batcher.states().get("done", 0) <= 1


def test_a_schema_that_allows_anything_for_a_field_is_read(batcher: Batcher, api: Api) -> None:
    api.catalogue = {"x/y": {"model_id": "x/y", "input_schema": {"type": "object", "properties": {"prompt": True}}}}
    (batcher.folder / "m.yaml").write_text("model: x/y\ninputs: {prompt: a}\n")
    for words in (["models", "x/y"], ["plan", "m.yaml"], ["run", "m.yaml"]):
        done = batcher(*words)
        assert done.code == 0, (words, done.err)
