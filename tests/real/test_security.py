"""What a server, a manifest or a folder may try, and what comes of it."""

import asyncio
import json
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from batcher.provider.addresses import barred
from batcher.provider.calls import Answer, Call
from batcher.provider.http import HttpWire
from tests.real.api import TOKEN, Api, accepts_and_hangs_up
from tests.real.conftest import MODEL, Batcher


@contextmanager
def listening(host: str = "127.0.0.2") -> Iterator[tuple[int, list[bytes]]]:
    """Listen on another address of this machine, as a service of the user's own network would."""
    heard: list[bytes] = []
    with socket.create_server((host, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(4096))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("address", "is_barred"),
    [
        *((one, True) for one in ("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0")),  # noqa: S104
        *(
            (one, True)
            for one in ("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1")
        ),
        *((one, True) for one in ("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a00:1")),
        *((one, True) for one in ("2002:7f00:1::", "2002:a00:1::", "64:ff9b:1::1", "ff02::1", "no address")),
        *((one, False) for one in ("8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "2002:808:808::1")),
    ],
)
def test_private_addresses_in_all_their_spellings_are_barred(address: str, is_barred: bool) -> None:
    assert barred(address) is is_barred


def test_addresses_that_a_proxy_makes_up_are_free_where_the_api_has_one_too() -> None:
    """Such a proxy answers every name from one block: else each file of the night would fail, paid for."""
    assert barred("198.18.0.9") and barred("198.18.0.9", {"93.184.216.34"})
    assert not barred("198.18.0.9", {"198.18.3.4"})
    assert not barred("10.0.0.5", {"10.0.0.5"}) and barred("10.0.0.6", {"10.0.0.5"})
    assert barred("127.0.0.1", {"198.18.3.4"})


@pytest.mark.parametrize("host", ["127.0.0.2", "2130706434", "0x7f000002", "[::ffff:7f00:2]"])
def test_an_output_that_leads_into_the_users_network_is_refused(batcher: Batcher, api: Api, host: str) -> None:
    with listening() as (port, heard):
        api.output_urls = [f"http://{host}:{port}/latest/meta-data"]
        done = batcher.run_csv(["a"])
        assert heard == []
    assert done.code == 1
    job = batcher("jobs", "runs/jobs", "--json").lines()[0]
    assert (job["state"], job["error"]["kind"]) == ("failed", "unfetched")
    assert "private network" in job["error"]["message"] or "not a canonical" in job["error"]["message"]


def test_a_redirect_into_the_users_network_is_refused(batcher: Batcher, api: Api) -> None:
    with listening() as (port, heard):
        api.output_urls = [f"{api.base}/redirect?to=http://127.0.0.2:{port}/"]
        done = batcher.run_csv(["a"])
        assert heard == []
    assert done.code == 1
    assert batcher("jobs", "runs/jobs", "--json").lines()[0]["error"]["kind"] == "unfetched"


def test_a_redirect_of_the_api_never_takes_the_token_along(batcher: Batcher, api: Api) -> None:
    with listening() as (port, heard):

        def elsewhere(_api: Api, _request: web.Request, _body: object) -> web.Response:
            return web.Response(status=307, headers={"Location": f"http://127.0.0.2:{port}/"})

        api.specials = [elsewhere]
        assert batcher.run_csv(["a"]).code == 1
        assert heard == []
    assert batcher.states() == {"uncertain": 1}


def test_the_token_is_in_no_file_even_when_the_server_says_it(batcher: Batcher, api: Api) -> None:
    def echo(echoing: Api, request: web.Request, _body: object) -> web.Response:
        words = f"you said {request.headers['Authorization']}"
        return web.Response(status=502, text=words, headers={"X-Echo": request.headers["Authorization"]})

    def refuse(_api: Api, request: web.Request, _body: object) -> web.Response:
        return web.json_response({"error_message": request.headers["Authorization"]}, status=422)

    api.specials = [echo, refuse, accepts_and_hangs_up]
    done = batcher.run_csv(["a", "b", "c", "d"], "-j", "1", "-v")
    assert batcher.states() == {"done": 1, "failed": 1, "uncertain": 2}
    shown = done.out + done.err + batcher("jobs", "runs/jobs").out
    assert TOKEN not in shown
    for file in batcher.folder.parent.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        kept = [json.loads(row[0]) for row in ledger.execute("SELECT evidence FROM attempts WHERE evidence NOT NULL")]
    assert {"phase", "status", "headers", "body"} <= set(kept[0])
    assert kept[0]["body"] == "you said Bearer ***"
    assert kept[1]["phase"] == "waiting for the answer" and "exception" in kept[1]


def test_the_token_is_in_no_process_list(batcher: Batcher, api: Api) -> None:
    api.delay = 600
    process = batcher.start("run", batcher.csv(["a"]), "--model", MODEL)
    end = time.monotonic() + 20
    while not api.journal and time.monotonic() < end:
        time.sleep(0.02)
    lists = [file.read_bytes() for file in Path("/proc").glob("[0-9]*/cmdline") if _readable(file)]
    process.terminate()
    process.communicate(timeout=30)
    assert api.journal
    assert all(TOKEN.encode() not in one for one in lists)


def _readable(file: Path) -> bool:
    try:
        file.read_bytes()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("link", ["files", "files/sub", ".parts", "replaced"])
def test_no_link_in_the_run_directory_is_followed(batcher: Batcher, api: Api, link: str) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: [{{prompt: a, image_urls: https://i.invalid/x.png}}]\noutput: {{name: sub/picture}}\n"
    )
    outside = batcher.folder / "outside"
    outside.mkdir()
    out = batcher.folder / "runs/m"
    (out / link).parent.mkdir(parents=True)
    (out / link).symlink_to(outside)
    done = batcher("run", "m.yaml", *(("--reuse", "runs/m", "-o", "runs/m") if "files" in link else ()))
    assert list(outside.iterdir()) == []
    if link in {"files", "files/sub"}:
        assert done.code in {64, 75}, done.err
        assert "symbolic link" in done.err
    else:
        assert done.code == 0, done.err
        assert (out / "files/sub/picture.png").is_file()


@pytest.mark.parametrize("name", ["run.jsonl", "summary.json", ".summary.json", "rejected.csv"])
def test_no_file_of_the_run_is_written_through_a_link(batcher: Batcher, name: str) -> None:
    precious = batcher.folder / "precious"
    precious.write_text("precious")
    out = batcher.folder / "runs/jobs"
    out.mkdir(parents=True)
    (out / name).symlink_to(precious)
    batcher.csv(["a", "b"])
    with (batcher.folder / "jobs.csv").open("a") as file:
        file.write(",\n")
    batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid")
    assert precious.read_text() == "precious"


def test_ledger_log_and_witness_are_for_the_user_alone(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    out = batcher.folder / "runs/jobs"
    witness = next(iter((batcher.folder.parent / "home/.local/state/batcher").iterdir()))
    for file in (out / "ledger.sqlite", out / "run.jsonl", out / "ledger.lock", witness):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(witness.parent.stat().st_mode) == 0o700


def test_an_env_file_beside_a_manifest_chooses_no_host(batcher: Batcher, api: Api) -> None:
    (batcher.folder / ".env").write_text(
        f"RUNCOMFY_TOKEN={TOKEN}\nRUNCOMFY_MODEL_API_BASE=http://127.0.0.2:9\nBATCHER_OUT=/tmp/elsewhere\n"
    )
    done = batcher("run", batcher.csv(["a"]), "--model", MODEL, RUNCOMFY_TOKEN="")
    assert done.code == 0, done.err
    assert len(api.journal) == 1


def test_formulas_are_quoted_in_csv_output(batcher: Batcher) -> None:
    (batcher.folder / "jobs.csv").write_text(
        "prompt,image_urls\ngood,https://i.invalid/x.png\n=HYPERLINK(1),\n+1+cmd|' /C calc'!A0,\n-5,\n"
    )
    batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid")
    rejected = (batcher.folder / "runs/jobs/rejected.csv").read_text()
    assert "'=HYPERLINK" in rejected and "'+1+cmd" in rejected and "\n-5," in rejected


async def answered(sends: bytes, call: Call, stall: float = 0.0) -> object:
    """Ask a server that sends these bytes after so many seconds, whatever it is asked."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        await asyncio.sleep(stall)
        try:
            writer.write(sends)
            await writer.drain()
        except OSError:
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = HttpWire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN)
    try:
        return await wire.send(call)
    finally:
        await wire.close()
        server.close()


async def test_a_reply_is_read_up_to_its_limit_and_keeps_the_id_at_its_head() -> None:
    body = b'{"request_id": "r-77", "noise": "' + b"x" * (50 * 2**20)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = await answered(head + body, Call("POST", "/v1/models/x", b"{}", once=True))
    assert isinstance(answer, Answer) and not answer.whole
    assert len(answer.body) < 17 * 2**20
    assert b"r-77" in answer.body


@pytest.mark.long
async def test_a_process_that_stood_still_does_not_give_up_an_answer_on_its_way() -> None:
    from batcher.clock import Clock
    from batcher.engine.suspend_detector import SuspendDetector

    gaps: list[float] = []
    body = b'{"request_id": "r-1"}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        await asyncio.sleep(0.5)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = HttpWire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN)

    def noticed(seconds: float) -> None:
        gaps.append(seconds)
        wire.on_suspend()

    detector = SuspendDetector(Clock(), noticed)
    asyncio.get_running_loop().call_later(0.3, time.sleep, 7.5)  # as SIGSTOP does: nothing runs, and time goes on
    answer = await wire.send(Call("POST", "/x", b"{}", timeout=3.0, once=True))
    detector.stop()
    await wire.close()
    server.close()
    assert isinstance(answer, Answer), answer
    assert gaps and gaps[0] > 5


def test_names_never_leave_the_run_directory(batcher: Batcher, api: Api) -> None:
    rows = [
        {"prompt": f"p{n}", "image_urls": "https://i.invalid/x.png", "n": name}
        for n, name in enumerate(
            [
                "../../../etc/passwd",
                "/etc/passwd",
                "a/../../b",
                "con",
                "..",
                "x\u0000y",
                "~root",
                "\u202egnp.exe",
                "a" * 400,
            ]
        )
    ]
    (batcher.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (batcher.folder / "m.yaml").write_text(f'model: {MODEL}\njobs: rows.jsonl\noutput: {{name: "{{{{ n }}}}"}}\n')
    before = {file for file in batcher.folder.rglob("*") if "runs" not in file.parts}
    done = batcher("run", "m.yaml")
    assert done.code in {0, 65}, done.err
    assert {file for file in batcher.folder.rglob("*") if "runs" not in file.parts} == before
    for file in (batcher.folder / "runs").rglob("*"):
        assert os.path.realpath(file).startswith(str(batcher.folder / "runs"))


def test_requests_and_lock_are_not_followed_through_a_link(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    out = batcher.folder / "runs/jobs"
    precious = batcher.folder / "precious"
    precious.mkdir()
    for name in ("letters.json", "000001-7.json", "book.txt"):
        (precious / name).write_text("precious")
    (out / ".asks").symlink_to(precious)
    assert batcher("resume", "runs/jobs").code == 0
    assert sorted(file.read_text() for file in precious.iterdir()) == ["precious"] * 3
    for name in ("ledger.lock", "ledger.sqlite"):
        aside = (out / name).rename(batcher.folder / "aside")
        (out / name).symlink_to(precious / "book.txt")
        refused = batcher("resume", "runs/jobs")
        assert refused.code in {64, 65} and "bug" not in refused.err, refused.err
        (out / name).unlink()
        aside.rename(out / name)
    assert (precious / "book.txt").read_text() == "precious"


def test_odd_files_among_the_requests_stop_nothing(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "b"], "--limit", "1").code == 0
    odd = batcher.folder / "runs/jobs/.asks"
    (odd / "000001-7.json").mkdir(parents=True)
    (odd / "notes.txt").write_text("mine")
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    assert (odd / "notes.txt").read_text() == "mine"
    strange = os.fsdecode(b"\xff")
    assert batcher("adopt", "runs/jobs", "--job", strange, "--request-id", "r").code == 64
    assert batcher("retry", "runs/jobs", "--job", strange).code == 64


async def test_waking_up_helps_the_others_though_one_limit_has_just_run_out() -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1024)
        await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire = HttpWire(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN)
    calls = [asyncio.create_task(wire.send(Call("POST", "/x", b"{}", timeout=seconds))) for seconds in (0.5, 2.0)]
    await asyncio.sleep(0.2)
    asyncio.get_running_loop().call_later(0.6, wire.on_suspend)
    asyncio.get_running_loop().call_soon(time.sleep, 0.8)  # the first is over when the beat comes
    await asyncio.sleep(2.3)
    assert [call.done() for call in calls] == [True, False]
    calls[1].cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await wire.close()
    over.set()
    server.close()
    await asyncio.sleep(0.01)  # a closed transport closes its socket a turn later
