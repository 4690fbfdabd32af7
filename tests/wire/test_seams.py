"""Each seam has one suite of promises, and every implementation keeps it: in memory and real."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from batcher.clock import Clock
from batcher.ledger.database import Database, InlineDatabase, open_threaded
from batcher.provider.calls import Answer, Download, Wire, WireFault
from batcher.provider.provider import Reference
from batcher.provider.replies import (
    Accepted,
    Broken,
    CancelDone,
    CancelTooLate,
    Finished,
    Lost,
    Missing,
    Queued,
    TurnedDown,
    Unavailable,
    Working,
)
from batcher.provider.runcomfy import RUNCOMFY
from batcher.provider.wire import HttpWire
from batcher.sandbox.server import load_models
from batcher.sandbox.world import Conditions, World
from tests.nights.memory import MemoryWire

MODEL = "google/nano-banana/pro/text-to-image"


@asynccontextmanager
async def memory(folder: Path, mishaps: dict[str, float]) -> AsyncIterator[Wire]:
    world = World(Conditions(slots=1, latency=0.5, sigma=0.1, faults=mishaps), load_models())
    yield MemoryWire(world, folder / "journal", Clock().now, lambda _: None, seed=1)


@asynccontextmanager
async def http(folder: Path, mishaps: dict[str, float]) -> AsyncIterator[Wire]:
    options = [part for name, share in mishaps.items() for part in (f"--{name}", str(share))]
    command = [sys.executable, "-m", "batcher.sandbox", "--dir", str(folder), "--until-stdin-ends", *options]
    command += ["--slots", "1", "--latency", "0.5", "--sigma", "0.1"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout and process.stdin
    wire = HttpWire((await process.stdout.readline()).decode().strip(), "sandbox")
    yield wire
    await wire.close()
    process.stdin.close()
    await process.wait()


WIRES = pytest.mark.parametrize("way", [memory, http], ids=["memory", "http"])


async def submit(wire: Wire, prompt: str) -> object:
    body = json.dumps({"prompt": prompt, "output_format": "jpeg"}).encode()
    return RUNCOMFY.read_submit(await wire.send(RUNCOMFY.submit(MODEL, body)), 0.0)


async def result(wire: Wire, request_id: str) -> object:
    return RUNCOMFY.read_poll(await wire.send(RUNCOMFY.result(Reference(MODEL, request_id))), 0.0, request_id)


async def settled(wire: Wire, request_id: str) -> object:
    for _ in range(400):
        reply = await result(wire, request_id)
        if not isinstance(reply, Queued | Working | Unavailable):
            return reply
        await asyncio.sleep(0.05)
    return reply


async def downloaded(wire: Wire, url: str) -> bytes:
    async with wire.download(url) as download:
        assert isinstance(download, Download)
        assert download.status == 200
        content = b"".join([block async for block in download.blocks])
        assert download.length == len(content)
        return content


@WIRES
async def test_a_job_goes_all_the_way(tmp_path: Path, way: type) -> None:
    async with way(tmp_path, {}) as wire:
        first, second = await submit(wire, "a"), await submit(wire, "b")
        assert isinstance(first, Accepted) and isinstance(second, Accepted)
        asked = await wire.send(RUNCOMFY.status(Reference(MODEL, second.request_id)))
        standing = RUNCOMFY.read_poll(asked, 0.0, second.request_id)
        assert standing == Queued(1)
        assert isinstance(await result(wire, first.request_id), Working)
        cancelled = await wire.send(RUNCOMFY.cancel(Reference(MODEL, first.request_id)))
        assert isinstance(RUNCOMFY.read_cancel(cancelled, 0.0, first.request_id), CancelTooLate)
        cancelled = await wire.send(RUNCOMFY.cancel(Reference(MODEL, second.request_id)))
        assert isinstance(RUNCOMFY.read_cancel(cancelled, 0.0, second.request_id), CancelDone)
        done = await settled(wire, first.request_id)
        assert isinstance(done, Finished)
        assert (len(done.urls), done.billed_usd) == (1, 0.15)
        content = await downloaded(wire, done.urls[0])
        assert content == await downloaded(wire, done.urls[0]), "the same URL gave other bytes"
        assert wire.sent >= 6


@WIRES
async def test_what_is_wrong_is_answered_so(tmp_path: Path, way: type) -> None:
    async with way(tmp_path, {}) as wire:
        refused = RUNCOMFY.read_submit(await wire.send(RUNCOMFY.submit("no/such", b"{}")), 0.0)
        assert isinstance(refused, TurnedDown)
        refused = RUNCOMFY.read_submit(await wire.send(RUNCOMFY.submit(MODEL, b"{}")), 0.0)
        assert isinstance(refused, TurnedDown) and "422" in refused.message
        assert isinstance(await result(wire, "../../nobody"), Missing)
        known = await wire.send(RUNCOMFY.catalogue(MODEL))
        assert isinstance(known, Answer) and known.status == 200


@WIRES
async def test_a_lost_answer_is_a_fault_after_the_first_byte(tmp_path: Path, way: type) -> None:
    async with way(tmp_path, {"lose": 1.0}) as wire:
        assert isinstance(await submit(wire, "a"), Lost)


@WIRES
async def test_polls_stumble_and_generations_fail(tmp_path: Path, way: type) -> None:
    async with way(tmp_path, {"fail": 1.0, "stumble": 0.3}) as wire:
        accepted = await submit(wire, "a")
        assert isinstance(accepted, Accepted)
        assert isinstance(await settled(wire, accepted.request_id), Broken)


@WIRES
async def test_a_torn_download_raises_where_it_breaks(tmp_path: Path, way: type) -> None:
    async with way(tmp_path, {"tear": 1.0}) as wire:
        accepted = await submit(wire, "a")
        assert isinstance(accepted, Accepted)
        done = await settled(wire, accepted.request_id)
        assert isinstance(done, Finished)
        with pytest.raises(ConnectionError):
            await downloaded(wire, done.urls[0])


async def test_a_connection_that_is_refused_has_sent_nothing() -> None:
    wire = HttpWire("http://127.0.0.1:9", "t")
    fault = await wire.send(RUNCOMFY.submit(MODEL, b"{}"))
    assert isinstance(fault, WireFault) and not fault.sent
    async with wire.download("http://127.0.0.1:9/x") as download:
        assert isinstance(download, WireFault)
    await wire.close()
    wire = HttpWire("http://no-such-host.invalid", "t")
    fault = await wire.send(RUNCOMFY.submit(MODEL, b"{}"))
    assert isinstance(fault, WireFault) and not fault.sent
    await wire.close()


@pytest.fixture(params=["threaded", "inline"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    file = tmp_path / "d.sqlite"
    opened: Database = await open_threaded(file) if request.param == "threaded" else InlineDatabase(file)
    yield opened
    await opened.close()


async def test_a_transaction_is_whole_or_nothing(database: Database) -> None:
    await database.transact(lambda connection: connection.execute("CREATE TABLE t (x)").rowcount)

    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (1)")
        raise RuntimeError("half-way")

    with pytest.raises(RuntimeError):
        await database.transact(half)
    count = await database.transact(lambda connection: connection.execute("SELECT count(*) FROM t").fetchone()[0])
    assert count == 0
    await asyncio.gather(
        *(
            database.transact(lambda connection: connection.execute("INSERT INTO t VALUES (1)").rowcount)
            for _ in range(50)
        )
    )
    count = await database.transact(lambda connection: connection.execute("SELECT count(*) FROM t").fetchone()[0])
    assert count == 50


async def test_every_commit_is_flushed_to_the_disk(database: Database) -> None:
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        return [
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]

    assert await database.transact(pragmas) == ["wal", 2, 1]
