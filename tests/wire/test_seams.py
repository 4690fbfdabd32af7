"""Each seam has one suite of promises, and every implementation keeps it: in memory and real."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from batcher.ledger.database import Database, InlineDatabase, open_threaded


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
