"""The one writer of the ledger: gathers moves into transactions, and tells listeners after the commit."""

import asyncio
import contextlib
import json
import math
import sqlite3
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Final, TypeVar

from batcher.clock import Clock
from batcher.errors import BatcherError, LedgerBroken, LedgerUnreadable
from batcher.events import Event, Listener, Waiting
from batcher.job import Job, Move, State
from batcher.ledger.adopt import adopt
from batcher.ledger.changes import AppliedMove, apply, apply_all, arrived, walk
from batcher.ledger.database import Database
from batcher.ledger.reconcile import MissedSubmissions, close_gap, knows, unknown
from batcher.ledger.request_register import RequestRegister
from batcher.ledger.reserved_space import ReservedSpace
from batcher.ledger.retry import RetrySelection, go_on
from batcher.ledger.rows import dump, event_row, job_of, output_of, with_attempt
from batcher.ledger.sql import script, statements
from batcher.ledger.submission_journal import JournalEntry, SubmissionJournal

T = TypeVar("T")
MIGRATIONS: Final[Sequence[str]] = (
    "migrations/001_schema.sql",
    "migrations/002_counters.sql",
    "migrations/003_row_turn.sql",
    "migrations/004_files_only.sql",
    "migrations/005_request_class.sql",
    "migrations/006_requests_found.sql",
)
"""Each brings a ledger of version n to n + 1, in one transaction."""


_GATHER: Final = 0.01
"""Seconds between the beginnings of two commits, unless many changes are waiting."""
_MANY: Final = 200
"""Moves that wait, from which a transaction begins at once."""
_PAGE: Final = 1000
"""Jobs that are let go on in one transaction."""
_LONGEST_WAIT: Final = 3600.0
"""Seconds that a job may still wait as a start begins: a clock that was far ahead may have set another day."""


@dataclass(frozen=True, slots=True)
class _Change:
    job: Job
    move: Move
    landed: asyncio.Future[Job]


class Overtaken(BatcherError):
    """A job was moved by someone else in the meantime."""


class Ledger:
    """Holds the only read-write connection of a run. Its flusher lives from `open` to `close`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._steady = clock.now() - asyncio.get_running_loop().time()
        """What waits is waited for by the loop's clock, whatever jumps the wall's makes."""
        self._queue: list[_Change] = []
        self._wake = asyncio.Event()
        self._flusher: asyncio.Task[None] | None = None
        self._listeners: list[Listener] = []
        self._closing = False
        self._wrote_at = -math.inf
        self.reserved_space: ReservedSpace | None = None
        """Given up when the disk is full and a request id is not on it yet."""
        self.submission_journal: SubmissionJournal | None = None
        """Told of every submission once it is committed, before its request leaves."""
        self.register: RequestRegister | None = None
        """Told of every request id, where lost requests can be found: none is to be another run's."""

    async def open(self) -> None:
        """Bring the file to this version's form, and begin to write. Raises LedgerUnreadable."""
        await self._guard(migrate)
        soon = {"latest": self._steady_now() + _LONGEST_WAIT}
        await self._guard(lambda connection: connection.execute(statements("moves.sql")["come_due"], soon).rowcount)
        self._flusher = asyncio.create_task(self._flush(), name="ledger")

    async def close(self) -> None:
        """Write what is queued, and close the connection."""
        if self._flusher:
            self._closing = True
            self._wake.set()
            await self._flusher
        await self._database.close()
        for file in (self.submission_journal, self.register):
            if file:
                file.close()

    def listen(self, listener: Listener) -> None:
        """Call this listener with every event from now on."""
        self._listeners.append(listener)

    async def record(self, job: Job, move: Move) -> Job:
        """Write a move; return the job as it is once that is on disk. Raises Overtaken, LedgerBroken.

        A move that brings a request id is tried until it is on disk: it stands for what was paid.
        """
        change = _Change(job, move, asyncio.get_running_loop().create_future())
        self._queue.append(change)
        self._wake.set()
        return await change.landed

    async def say(self, event: Event) -> None:
        """Append an event that is no move, then tell the listeners."""
        add = statements("moves.sql")["add_event"]
        await self._guard(lambda connection: connection.execute(add, event_row(event)).rowcount)
        self._tell(event)

    async def wait(self, event: Waiting) -> None:
        """Note what a job waits for, where it does not yet go on, then tell the listeners."""
        sql = statements("moves.sql")
        facts = {"job_id": event.job_id, "request_id": event.request_id, "message": event.message or None}

        def note(connection: sqlite3.Connection) -> bool:
            if not connection.execute(sql["wait"], facts).rowcount:
                return False
            connection.execute(sql["add_event"], event_row(event))
            return True

        if await self._guard(note):
            self._tell(event)

    async def wait_no_more(self) -> None:
        """Forget what jobs waited for: whoever said so is gone."""
        sql = statements("moves.sql")["wait_no_more"]
        await self._guard(lambda connection: connection.execute(sql).rowcount)

    async def ask(self, question: str, **facts: object) -> list[sqlite3.Row]:
        """Ask a named question."""
        sql = statements("questions.sql")[question]
        return await self._guard(lambda connection: connection.execute(sql, facts).fetchall())

    async def transact(self, work: Callable[[sqlite3.Connection], T], *, bound: bool = True) -> T:
        """Do work of another room of the ledger in a transaction of its own; `bound`: held to foreign keys."""
        return await self._guard(work, bound=bound)

    async def waiting(self, limit: int, *, broad: bool = False) -> list[Job]:
        """Return the next jobs to submit, in the manifest's order; `broad`: one of each row before a second of any."""
        question = "waiting_broad" if broad else "waiting"
        return [job_of(row) for row in await self.ask(question, now=self._steady_now(), limit=limit)]

    def _steady_now(self) -> float:
        return self._steady + asyncio.get_running_loop().time()

    async def due_in(self) -> float | None:
        """Return the seconds until a waiting job may go, None if none waits."""
        due = (await self.ask("next_due"))[0][0]
        return None if due is None else max(0.0, due - self._steady_now())

    async def under_way(self, state: State) -> list[Job]:
        """Return the jobs that an earlier process left in this state, with their outputs."""
        return await self._guard(lambda connection: _whole_jobs(connection, "under_way", {"state": state}))

    async def whole(self, ids: Iterable[str]) -> list[Job]:
        """Return these jobs with their outputs."""
        return await self._guard(
            lambda connection: [job for one in ids for job in _whole_jobs(connection, "job", {"id": one})]
        )

    async def retry(self, which: RetrySelection, taken: Callable[[Job], None] = lambda _: None) -> int:
        """Queue settled jobs again at the user's word, and hand each over as it is now; return how many.

        A page of them at a time: request ids that come meanwhile are not kept waiting for a million.
        """
        now, count = self._clock.now(), 0
        moved = await self._guard(which.moved_since)
        places = await self._guard(which.places)
        for start in range(0, len(places), _PAGE):
            landed = await self._guard(partial(_go_on, which, places[start : start + _PAGE], moved, now))
            for one in landed:
                self._tell(one.event)
                taken(one.job)
            count += len(landed)
        if which.state == State.UNCERTAIN:
            await self.decided()
        return count

    async def decided(self) -> None:
        """Note that the user has decided about what is uncertain now: it counts no more against `max_uncertain`."""
        lost = int((await self.ask("uncertain"))[0]["jobs"])
        await self.put_meta({"uncertain_decided": lost})

    async def walk(self, job: Job, moves: Sequence[Move]) -> None:
        """Write several moves of a job in one transaction."""
        now = self._clock.now()
        for one in await self._guard(lambda connection: walk(connection, job, moves, now)):
            self._tell(one.event)

    async def adopt(self, job_id: str, request_id: str) -> tuple[Job, bool]:
        """Continue an uncertain or failed job under a request id that the user found. Raises WrongUse.

        Says too whether that is money more than what was spoken for.
        """
        now = self._clock.now()
        landed, more = await self._guard(lambda connection: adopt(connection, job_id, request_id, now))
        self._tell(landed.event)
        await self.decided()
        return landed.job, more

    async def behind(
        self, sources: Sequence[Iterable[JournalEntry]], last: Sequence[JournalEntry | None], after: str
    ) -> MissedSubmissions | None:
        """Compare with the journals of submissions; what the ledger lacks becomes uncertain. None: it lacks nothing.

        `last`: what each has seen last, which is all that is read where the ledger knows it. `after` (RFC 3339):
        what is older has been settled with the user before.
        """
        now = self._clock.now()

        def work(connection: sqlite3.Connection) -> tuple[MissedSubmissions, list[AppliedMove]] | None:
            if all(knows(connection, one) for one in last):
                return None
            missing = unknown(connection, (one for source in sources for one in source), after)
            return close_gap(connection, missing, now) if missing else None

        found = await self._guard(work)
        if found is None:
            return None
        gap, landed = found
        for one in landed:
            self._tell(one.event)
        return gap

    async def file_moved(self, job_id: str, file: str, to: str) -> None:
        """Note where a job's file is now."""
        moved = statements("moves.sql")["file_moved"]
        facts = {"id": job_id, "file": file, "to": to}
        await self._guard(lambda connection: connection.execute(moved, facts).rowcount)

    async def meta(self) -> dict[str, object]:
        """Return what the ledger knows of its run."""
        return {row["key"]: json.loads(row["value"]) for row in await self.ask("meta")}

    async def put_meta(self, facts: Mapping[str, object]) -> None:
        """Note facts of the run."""
        put = statements("moves.sql")["put_meta"]
        rows = [{"key": key, "value": dump(value)} for key, value in facts.items()]
        await self._guard(lambda connection: connection.executemany(put, rows).rowcount)

    async def _flush(self) -> None:
        while self._queue or not self._closing:
            await self._wake.wait()
            if (wait := self._gather_for()) > 0:
                await asyncio.sleep(wait)
                continue
            self._wake.clear()
            batch, self._queue = self._queue, []
            if not batch:
                continue
            self._wrote_at = asyncio.get_running_loop().time()
            if not await self._write(batch):
                return

    def _gather_for(self) -> float:
        """Return the seconds to wait for more: a commit after a pause goes at once, those in a stream come together."""
        if self._closing or not self._queue or len(self._queue) >= _MANY:
            return 0.0
        return min(_GATHER, self._wrote_at + _GATHER - asyncio.get_running_loop().time())

    async def _write(self, batch: list[_Change]) -> bool:
        """Write a batch in one transaction; return whether the ledger can still be written.

        A change that is itself at fault must not cost the others their request ids: each is then written alone.
        """
        try:
            landed = await self._database.transact(partial(_apply_all, batch, self._clock.now(), self._steady_now()))
        except sqlite3.OperationalError as broken:
            return await self._rescue(batch, broken)
        except Exception as faulty:  # noqa: BLE001 - a value that cannot be written, or an arrow that is not there
            if len(batch) > 1:
                return all([await self._write([change]) for change in batch])
            if batch[0].move.request_id:
                self._tell_unsaved(batch, set(), faulty, "write it down")
            if not batch[0].landed.done():
                batch[0].landed.set_exception(faulty)
            return True
        self._answer(batch, landed)
        return True

    def _answer(self, batch: Sequence[_Change], landed: Sequence[AppliedMove | None]) -> None:
        if self.submission_journal:
            self.submission_journal.note(one.event for one in landed if one)
        if self.register:
            accepted = (one.event for one in landed if one and one.event.to is State.RUNNING)
            self.register.note(one.request_id for one in accepted if one.request_id)
        for change, result in zip(batch, landed, strict=True):
            if result:
                self._tell(result.event)
            if change.landed.cancelled():
                continue
            if result:
                change.landed.set_result(result.job)
            else:
                change.landed.set_exception(Overtaken(f"job {change.job.id} is no longer {change.job.state}"))

    async def _rescue(self, batch: Sequence[_Change], broken: sqlite3.Error) -> bool:
        """Fail everything that can be done again, and write the request ids as soon as there is room for them."""
        precious = self._let_fail(batch, broken)
        told: set[str] = set()
        if self.reserved_space:
            self.reserved_space.drop()
        for tries in count():
            if not precious:
                return True
            try:
                landed = await self._database.transact(
                    partial(_apply_again, precious, self._clock.now(), self._steady_now())
                )
            except sqlite3.Error as again:
                broken = again
            else:
                self._answer(precious, landed)
                return True
            self._tell_unsaved(precious, told, broken, "write it down, it is tried again until there is room")
            if self._closing:
                self._give_up(precious, broken)
                return False
            with contextlib.suppress(TimeoutError):  # a new one, or the end, is not kept waiting
                await asyncio.wait_for(self._wake.wait(), min(10.0, 0.25 * 2**tries))
            self._wake.clear()
            more, self._queue = self._queue, []
            precious += self._let_fail(more, broken)
        raise AssertionError

    def _let_fail(self, batch: Iterable[_Change], broken: Exception) -> list[_Change]:
        """Answer that the ledger cannot be written; return the changes that cannot be done again: with a request id."""
        precious = [change for change in batch if change.move.to is State.RUNNING and change.move.request_id]
        self._give_up((change for change in batch if change not in precious), broken)
        return precious

    def _give_up(self, changes: Iterable[_Change], broken: Exception) -> None:
        for change in changes:
            if not change.landed.done():
                change.landed.set_exception(LedgerBroken(f"the ledger could not be written: {broken}"))

    def _tell_unsaved(self, changes: Iterable[_Change], told: set[str], broken: Exception, advice: str) -> None:
        """Print the request ids that are on no disk, each once: they are the only key to what was paid."""
        for change in changes:
            if change.job.id not in told:
                told.add(change.job.id)
                with contextlib.suppress(OSError):
                    print(  # noqa: T201
                        f"batcher: job {change.job.id} has request id {change.move.request_id}, which cannot be saved "
                        f"({broken}); {advice}",
                        file=sys.stderr,
                        flush=True,
                    )

    def _tell(self, event: Event) -> None:
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 - an observer cannot steer
                self._listeners.remove(listener)
                with contextlib.suppress(OSError):  # standard error may be what went away
                    name = getattr(listener, "__name__", type(listener).__name__)
                    print(f"batcher: {name} no longer listens: {error}", file=sys.stderr)  # noqa: T201

    async def _guard(self, work: Callable[[sqlite3.Connection], T], *, bound: bool = True) -> T:
        try:
            return await self._database.transact(work, bound=bound)
        except sqlite3.Error as error:
            raise unreadable(error) from error


def unreadable(error: sqlite3.Error) -> BatcherError:
    """Name what SQLite says of a ledger."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return LedgerUnreadable(
            f"the ledger is damaged ({error}); it was left as it is",
            "restore ledger.sqlite from a backup; or run the manifest into a new directory with --reuse and this one: "
            "its files are taken over by their sidecars, and not bought again",
        )
    return LedgerBroken(f"the ledger could not be read or written: {error}", "free space on the disk, then run again")


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a ledger forward to this version. Raises LedgerUnreadable where it is of a newer one."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise newer(version)
    for step in MIGRATIONS[version:]:
        for statement in _split(script(step)):
            connection.execute(statement)
    if version < len(MIGRATIONS):
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")


def newer(version: int) -> LedgerUnreadable:
    """Name a ledger that this version is too old for."""
    return LedgerUnreadable(
        f"the ledger has version {version}, written by a newer batcher; this one knows {len(MIGRATIONS)}",
        "use the newer batcher: pip install --upgrade image-batcher",
    )


def _split(script: str) -> list[str]:
    """Split a script into statements; `executescript` would commit first."""
    found, statement = [], ""
    for line in script.splitlines(keepends=True):
        statement += line
        if ";" in line and sqlite3.complete_statement(statement):
            found.append(statement)
            statement = ""
    return found


def _apply_all(
    batch: Sequence[_Change], now: float, steady: float, connection: sqlite3.Connection
) -> list[AppliedMove | None]:
    return apply_all(connection, [(change.job, change.move) for change in batch], now, steady)


def _go_on(
    which: RetrySelection, places: Sequence[int], moved: frozenset[str], now: float, connection: sqlite3.Connection
) -> list[AppliedMove]:
    return go_on(connection, which, places, moved, now)


def _apply_again(
    batch: Sequence[_Change], now: float, steady: float, connection: sqlite3.Connection
) -> list[AppliedMove | None]:
    """Write what is not there yet: a commit that was said to have failed may have reached the disk."""
    return [
        arrived(connection, change.job, change.move, now) or apply(connection, change.job, change.move, now, steady)
        for change in batch
    ]


def _whole_jobs(connection: sqlite3.Connection, question: str, facts: Mapping[str, object]) -> list[Job]:
    sql = statements("questions.sql")
    jobs = []
    for row in connection.execute(sql[question], facts).fetchall():
        key = {"id": row["id"], "number": row["attempt"]}
        outputs = tuple(output_of(found) for found in connection.execute(sql["outputs"], key))
        jobs.append(with_attempt(job_of(row, outputs), connection.execute(sql["attempt"], key).fetchone()))
    return jobs
