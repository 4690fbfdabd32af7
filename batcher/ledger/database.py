"""The seam to SQLite: run a function in one transaction, whole or not at all. Knows no job."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, TypeVar

import aiosqlite

from batcher.ledger.filesystem_check import network

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_PRAGMAS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA temp_store = FILE",
    "PRAGMA cache_size = -16384",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA busy_timeout = 10000",
)
_DISK: Final = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM}
)
"""Errors after which a connection is not trusted."""
_BUSY_TRIES: Final = 5
"""Of `busy_timeout` each."""


class Database(Protocol):
    """One read-write connection."""

    async def transact(self, work: Work[T], *, bound: bool = True) -> T:
        """Run `work` between BEGIN IMMEDIATE and COMMIT; when it raises, nothing of it stays.

        `bound`: foreign keys are held to at every step. Without, work may do without the indexes that they want.
        """
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


def in_transaction(connection: sqlite3.Connection, work: Work[T], *, bound: bool = True) -> T:
    """Do the work, once, in one transaction on this connection; `bound`: held to foreign keys."""
    if not bound:  # they are switched between transactions only
        connection.execute("PRAGMA foreign_keys = OFF")
        try:
            return in_transaction(connection, work)
        finally:
            connection.execute("PRAGMA foreign_keys = ON")
    _patiently(connection, "BEGIN IMMEDIATE")
    try:
        result = work(connection)
        _patiently(connection, "COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # what went wrong first is what is told
                connection.execute("ROLLBACK")
        raise
    return result


def _patiently(connection: sqlite3.Connection, statement: str) -> None:
    """Begin or commit. On a rollback journal a reader can keep either from being done: that is waited for longer.

    The work itself is not done again: it may read from what can be read once.
    """
    for last in [False] * _BUSY_TRIES + [True]:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if last or getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
        else:
            return


class FailureLatch:
    """Remembers that the disk failed a connection: nothing is tried on it again.

    After a failed write or fsync nobody knows which pages the system still holds as clean. So the file is opened
    anew, which reads the log with its checksums, and is checked, before anything more is written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.fell = False

    def do(self, connection: sqlite3.Connection, work: Work[T], *, bound: bool) -> T:
        """Do the work in one transaction; notice where it was the disk that failed."""
        try:
            return in_transaction(connection, work, bound=bound)
        except sqlite3.Error as error:
            self.fell = getattr(error, "sqlite_errorcode", 0) & 0xFF in _DISK
            raise

    def reopened(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        """Return a connection that can be trusted: this one, or a fresh one in the place of one that failed."""
        if not self.fell:
            return connection
        with suppress(sqlite3.Error):
            connection.close()
        fresh = _connected(self._file)
        try:
            verdict = fresh.execute("PRAGMA quick_check(1)").fetchone()[0]
        except BaseException:
            fresh.close()
            raise
        if verdict != "ok":
            fresh.close()
            raise sqlite3.DatabaseError(f"database disk image is malformed: {verdict}")
        self.fell = False
        return fresh


class ThreadedDatabase(aiosqlite.Connection):
    """SQLite on aiosqlite's thread: a transaction is one hop, however many statements it has."""

    def __init__(self, file: Path) -> None:
        super().__init__(lambda: _connected(file), iter_chunk_size=64)
        self._latch = FailureLatch(file)

    async def transact(self, work: Work[T], *, bound: bool = True) -> T:
        """Run `work` in one transaction, on the connection's thread."""
        result: T = await self._execute(self._do, work, bound)  # type: ignore[no-untyped-call]
        return result

    def _do(self, work: Work[T], bound: bool) -> T:
        self._connection = self._latch.reopened(self._conn)
        return self._latch.do(self._conn, work, bound=bound)

    async def close(self) -> None:
        """Merge the write-ahead log into the file, and close."""
        if self._connection is not None:
            await self._execute(fold, self._conn)  # type: ignore[no-untyped-call]
        await super().close()


def fold(connection: sqlite3.Connection) -> None:
    """Merge the write-ahead log into the file, if nobody reads it: what is left is one file, whole when copied."""
    with suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


async def open_threaded(file: Path) -> ThreadedDatabase:
    """Open a ledger file read-write, making it where it is not there."""
    await asyncio.to_thread(lambda: _connected(file).close())  # what is wrong with it is raised here, on no worker
    database = ThreadedDatabase(file)
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


def forward(file: Path, work: Work[T]) -> T:
    """Do work in one transaction of a connection of its own, for a ledger that is not to be held any longer."""
    connection = _connected(file)
    try:
        return in_transaction(connection, work)
    finally:
        fold(connection)
        connection.close()


class InlineDatabase:
    """The same on the caller's thread, for time that is not real."""

    def __init__(self, file: Path) -> None:
        self._connection = _connected(file)
        self._latch = FailureLatch(file)

    async def transact(self, work: Work[T], *, bound: bool = True) -> T:
        """Run `work` in one transaction, here and now."""
        self._connection = self._latch.reopened(self._connection)
        return self._latch.do(self._connection, work, bound=bound)

    async def close(self) -> None:
        """Merge the write-ahead log into the file, and close."""
        fold(self._connection)
        self._connection.close()
