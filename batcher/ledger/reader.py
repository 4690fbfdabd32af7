"""Questions to a ledger from any process: a connection that cannot write. Knows no run at work."""

import json
import os
import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Self

from batcher.errors import LedgerInUse, LedgerUnreadable, NotFound, Stopped
from batcher.job import Job, Output
from batcher.ledger.database import forward
from batcher.ledger.ledger import MIGRATIONS, migrate, newer, unreadable
from batcher.ledger.lock import Lock
from batcher.ledger.rows import job_of, output_of, stopped_of, with_attempt
from batcher.ledger.sql import statements
from batcher.settings import Destination

_IDS: Final = 10_000
"""Ids that are asked for at once."""
_PAGE: Final = 500
"""Jobs that are read at once."""


class Reader:
    """A read-only look at `OUT/ledger.sqlite`. Use as a context manager."""

    def __init__(self, out: Path) -> None:
        self.out = out
        file = out / "ledger.sqlite"
        if not has_ledger(out):
            raise no_ledger(out)
        try:
            self._connection, version = _opened(file, "mode=ro")
        except sqlite3.OperationalError as error:
            if _may_have_more(file):
                raise unreadable(error) from error
            self._connection, version = self._opened_as_it_is(file)
        except sqlite3.Error as error:
            raise unreadable(error) from error
        if 0 < version < len(MIGRATIONS):
            self._connection.close()
            bring_forward(out)
            self._connection, version = _opened(file, "mode=ro")
        self._connection.row_factory = sqlite3.Row
        if version != len(MIGRATIONS):
            self._connection.close()
            raise _unfit(version, out)

    @staticmethod
    def _opened_as_it_is(file: Path) -> tuple[sqlite3.Connection, int]:
        """Open a ledger on a disk that cannot be written, where a reader cannot say that it is there."""
        try:
            return _opened(file, "immutable=1")
        except sqlite3.Error as error:
            raise unreadable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._connection.close()

    def ask(self, question: str, **facts: object) -> list[sqlite3.Row]:
        """Ask a named question."""
        try:
            return self._connection.execute(statements("questions.sql")[question], facts).fetchall()
        except sqlite3.Error as error:
            raise unreadable(error) from error

    def left_out(self, ids: Sequence[str] | None) -> int:
        """Count those among these jobs that wait, and that no start sends as things are; None: among all once sent."""
        if ids is None:
            return int(self.ask("left_out_of_all")[0][0])
        pages = (json.dumps(ids[start : start + _IDS]) for start in range(0, len(ids), _IDS))
        return sum(int(self.ask("left_out", ids=page)[0][0]) for page in pages)

    def waiting_ids(self) -> Iterator[list[str]]:
        """Return the ids of jobs that would be bought, in pages."""
        after = 0
        while rows := self.ask("waiting_ids", after=after, limit=_IDS):
            yield [row["id"] for row in rows]
            after = rows[-1]["rowid"]

    def count_done(self, ids: Sequence[str]) -> int:
        """Count the jobs among these that are done."""
        counts = (self.ask("count_done", ids=json.dumps(ids[n : n + _IDS]))[0][0] for n in range(0, len(ids), _IDS))
        return sum(counts)

    def states_of(self, pages: Iterable[Sequence[str]]) -> Iterator[Mapping[str, tuple[str, bool]]]:
        """Yield, for each page of ids, the state of each job that the ledger knows, and whether the manifest names it.

        Ids that come in the manifest's order mostly stand in the ledger's rows one after the other: these are read in
        one go, and only the others are looked for, at ten times the price.
        """
        place = 1
        for ids in pages:
            rows = self.ask("states_at", first=place, last=place + len(ids) - 1)
            states = {row["id"]: (row["state"], bool(row["listed"])) for row in rows}
            place += len(ids)
            if missing := [one for one in ids if one not in states]:
                found = self.ask("states_of", ids=json.dumps(missing))
                states |= {row["id"]: (row["state"], bool(row["listed"])) for row in found}
                by_id = {row["id"]: row["place"] for row in found}
                if (last := ids[-1]) in by_id:
                    place = by_id[last] + 1
            yield {one: states[one] for one in ids if one in states}

    def meta(self) -> dict[str, object]:
        """Return what the ledger knows of its run."""
        return {row["key"]: json.loads(row["value"]) for row in self.ask("meta")}

    def models(self) -> dict[str, object]:
        """Return the catalogue's entries that this run has looked up."""
        return {row["id"]: json.loads(row["entry"]) for row in self.ask("models")}

    def jobs(
        self,
        state: str | None = None,
        kind: str | None = None,
        job: str | None = None,
        *,
        listed: bool | None = None,
    ) -> Iterator[tuple[Job, list[str]]]:
        """Yield jobs in the order of the manifest with their files; `listed`: only those it names, or the others."""
        for row in self._pages("jobs_of", self._places(state, kind, job, listed)):
            yield job_of(row), json.loads(row["files"])

    def places_by_row(self, state: str | None, kind: str | None, *, listed: bool) -> "array[int]":
        """Return the places of jobs in the table, in the order of their rows in the manifest."""
        return self._numbers("places_by_row", state=state, kind=kind, listed=listed)

    def jobs_at(self, places: "array[int]") -> Iterator[Job]:
        """Yield the jobs at these places."""
        return map(job_of, self._pages("jobs_of", places))

    def jobs_of_rows(self, numbers: Iterable[int]) -> int:
        """Count the jobs that these rows of the manifest make; their numbers ascend."""
        rows, place, count = self._numbers("listed_rows"), 0, 0
        for number in numbers:
            place = bisect_left(rows, number, place)
            beyond = bisect_right(rows, number, place)
            count, place = count + beyond - place, beyond
        return count

    def listed_places(self) -> "array[int]":
        """Return the places of all jobs that the manifest names, in its order."""
        return self._numbers("listed_places")

    def shown(self, places: "array[int]") -> Iterator[tuple[Job, list[Output]]]:
        """Yield the jobs at these places, each as its last attempt left it, with its outputs."""
        for n in range(0, len(places), _PAGE):
            page = json.dumps(places[n : n + _PAGE].tolist())
            attempts = {row["job_id"]: row for row in self.ask("attempts_at", places=page)}
            outputs: dict[str, list[Output]] = {}
            for row in self.ask("outputs_at", places=page):
                outputs.setdefault(row["job_id"], []).append(output_of(row))
            for row in self.ask("jobs_of", places=page):
                yield with_attempt(job_of(row), attempts.get(row["id"])), outputs.get(row["id"], [])

    def owner(self) -> Destination | None:
        """Return whose results the run directory holds, None where nothing was begun."""
        meta = self.meta()
        return Destination(str(meta["provider"]), str(meta["vendor"])) if meta.get("provider") else None

    def images(self) -> Iterator[sqlite3.Row]:
        """Yield the local images that the ledger knows: path, size, time of change in nanoseconds."""
        after = ""
        while rows := self.ask("images_after", after=after, limit=_IDS):
            yield from rows
            after = rows[-1]["path"]

    def known_files(self) -> Iterator[sqlite3.Row]:
        """Return every file that the ledger knows, with its job's state."""
        return self._pages("known_files", self._places(None, None, None, None))

    def _places(self, state: str | None, kind: str | None, job: str | None, listed: bool | None) -> "array[int]":
        """Return the places of jobs in the table, in the manifest's order: eight bytes each."""
        facts = {"state": state, "kind": kind, "job": job, "listed": listed}
        return self._numbers("places", **facts)

    def _numbers(self, question: str, **facts: object) -> "array[int]":
        """Return the one number of each row of an answer, which may have millions."""
        try:
            return array(
                "q", (row[0] for row in self._connection.execute(statements("questions.sql")[question], facts))
            )
        except sqlite3.Error as error:
            raise unreadable(error) from error

    def _pages(self, question: str, places: "array[int]") -> Iterator[sqlite3.Row]:
        """Ask about some jobs at a time: a question that is open for long can keep the writer from its commit."""
        for n in range(0, len(places), _PAGE):
            yield from self.ask(question, places=json.dumps(places[n : n + _PAGE].tolist()))

    def outputs(self, job: Job) -> list[Output]:
        """Return the outputs of a job's last attempt."""
        return [output_of(row) for row in self.ask("outputs", id=job.id, number=job.attempt)]

    def stopped(self) -> Stopped | None:
        """Return why the last run on this directory stopped, None if it ended by itself."""
        rows = self.ask("last_ended")
        return stopped_of(rows[0]["facts"]) if rows else None


class KnownImages:
    """What a ledger knows of local images, asked for one by one, from any one thread at a time."""

    def __init__(self, out: Path) -> None:
        self._file = out / "ledger.sqlite"
        self._connection: sqlite3.Connection | None = None

    def get(self, path: str, /) -> tuple[int, int, str] | None:
        """Return an image's size, time of change and facts; None where the ledger does not know it."""
        try:
            if self._connection is None:
                address = f"{self._file.absolute().as_uri()}?mode=ro"
                self._connection = sqlite3.connect(address, uri=True, check_same_thread=False)
            row = self._connection.execute(statements("questions.sql")["image"], {"path": path}).fetchone()
        except (sqlite3.Error, UnicodeError):  # then it is looked at anew
            return None
        return None if row is None else (row[0], row[1], row[2])

    def close(self) -> None:
        """Close the ledger."""
        if self._connection is not None:
            self._connection.close()


def has_ledger(out: Path) -> bool:
    """Return whether a directory is one of a run; a name that can be none, or that nobody may look at, is not."""
    return os.path.isfile(out / "ledger.sqlite")  # noqa: PTH113 - of a Path it may raise


def no_ledger(out: Path) -> NotFound:
    """Return the error of a directory that is none of a run, with one that may have been meant."""
    return NotFound(f"{out} is not a run directory: there is no ledger.sqlite in it{_near(out)}")


def _near(out: Path) -> str:
    """Name the run directories that may have been meant: one of a near name, else those inside."""
    beside = sorted(file.parent for file in out.absolute().parent.glob("*/ledger.sqlite"))
    if near := get_close_matches(out.name, [one.name for one in beside], n=1, cutoff=0.6):
        return f"; did you mean `{out.parent / near[0]}`?"
    inside = sorted(str(file.parent) for file in out.glob("*/ledger.sqlite")) if os.path.isdir(out) else []  # noqa: PTH112
    return f"; in it are: {', '.join(inside[:8])}" if inside else ""


def _opened(file: Path, how: str) -> tuple[sqlite3.Connection, int]:
    """Open a file; return its version too. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True)
    try:
        return connection, int(connection.execute("PRAGMA user_version").fetchone()[0])
    except BaseException:
        connection.close()
        raise


def _may_have_more(file: Path) -> bool:
    """Return whether a ledger's last changes are in its log, or its folder can be written, so that it may change."""
    log = file.with_name(f"{file.name}-wal")
    return os.access(file.parent, os.W_OK) or (log.exists() and log.stat().st_size > 0)


def bring_forward(out: Path) -> None:
    """Bring a ledger of an older batcher to this one's form. Raises LedgerUnreadable."""
    lock = Lock(out)
    try:
        lock.take()
    except (LedgerInUse, OSError) as error:
        raise LedgerUnreadable(
            f"the ledger is of an older version, and cannot be brought forward now: {error}",
            "where a run is at work, wait for its end; where the directory cannot be written, copy it",
        ) from None
    try:
        forward(out / "ledger.sqlite", migrate)
    except sqlite3.Error as error:
        raise unreadable(error) from error
    finally:
        lock.free()


def _unfit(version: int, out: Path) -> LedgerUnreadable | NotFound:
    """Name a ledger that is empty, older or newer than what can be read."""
    if version == 0:
        return NotFound(f"{out} is not a run directory yet: its ledger.sqlite has nothing in it")
    return newer(version)
