"""The seam to SQLite: run a function in one transaction, whole or not at all. Knows no job."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiosqlite

from batcher.ledger.place import network

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = FILE",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA busy_timeout = 10000",
)


class Database(Protocol):
    """One read-write connection."""

    async def transact(self, work: Work[T]) -> T:
        """Run `work` between BEGIN IMMEDIATE and COMMIT; when it raises, nothing of it stays."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


def prepare(connection: sqlite3.Connection, folder: Path) -> None:
    """Set what every read-write connection needs. A write-ahead log needs memory that processes can share."""
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA journal_mode = {'DELETE' if network(folder) else 'WAL'}").fetchall()
    for pragma in _PRAGMAS:
        connection.execute(pragma).fetchall()


def in_transaction(connection: sqlite3.Connection, work: Work[T]) -> T:
    """Do the work in one transaction on this connection."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


class ThreadedDatabase(aiosqlite.Connection):
    """SQLite on aiosqlite's thread: a transaction is one hop, however many statements it has."""

    async def transact(self, work: Work[T]) -> T:
        """Run `work` in one transaction, on the connection's thread."""
        result: T = await self._execute(in_transaction, self._conn, work)  # type: ignore[no-untyped-call]
        return result

    async def close(self) -> None:
        """Take the write-ahead log into the file, and close."""
        if self._connection is not None:
            await self._execute(fold, self._conn)  # type: ignore[no-untyped-call]
        await super().close()


def fold(connection: sqlite3.Connection) -> None:
    """Take the write-ahead log into the file where nobody reads it: what is left is one file, whole when copied."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def open_threaded(file: Path) -> ThreadedDatabase:
    """Open a ledger file read-write, making it where it is not there."""
    await asyncio.to_thread(lambda: _connected(file).close())  # what is wrong with it is raised here, on no worker
    database = ThreadedDatabase(lambda: _connected(file), iter_chunk_size=64)
    await database
    return database


def _connected(file: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    try:
        prepare(connection, file.parent)
    except BaseException:
        connection.close()
        raise
    return connection


class InlineDatabase:
    """The same on the caller's thread, for time that is not real."""

    def __init__(self, file: Path) -> None:
        self._connection = _connected(file)

    async def transact(self, work: Work[T]) -> T:
        """Run `work` in one transaction, here and now."""
        return in_transaction(self._connection, work)

    async def close(self) -> None:
        """Take the write-ahead log into the file, and close."""
        fold(self._connection)
        self._connection.close()
