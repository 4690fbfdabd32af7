"""What a journal of submissions has and the ledger does not: it may have been paid for, so it is uncertain here."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from batcher.clock import rfc3339
from batcher.job import LIFE, FailureKind, Job, Move, State
from batcher.ledger.changes import AppliedMove, walk
from batcher.ledger.rows import job_of
from batcher.ledger.sql import statements
from batcher.ledger.submission_journal import JournalEntry

WHY: Final = "submitted by another copy of this run on this machine; what came of it is not known here"


@dataclass(frozen=True, slots=True)
class MissedSubmissions:
    """How many jobs were submitted that the ledger does not know of."""

    uncertain: int
    """It would have submitted these again."""
    others: int
    """It does not name these, or has got on without them."""


def knows(connection: sqlite3.Connection, last: JournalEntry | None) -> bool:
    """Return whether the ledger has the submission that a journal has last: then it has all of them."""
    if last is None:
        return True
    key = {"id": last.job_id, "number": last.attempt}
    row = connection.execute(statements("questions.sql")["attempt"], key).fetchone()
    return row is not None and rfc3339(row["submitted_at"]) == last.at


def unknown(connection: sqlite3.Connection, seen: Iterable[JournalEntry], after: str) -> list[JournalEntry]:
    """Return the submissions that the ledger has not, among those later than `after` (RFC 3339)."""
    known = {(row[0], rfc3339(row[1])) for row in connection.execute(statements("questions.sql")["submissions"])}
    found: dict[tuple[str, str], JournalEntry] = {}
    for one in seen:
        if one.at > after and (one.job_id, one.at) not in known:
            found[one.job_id, one.at] = one
    return list(found.values())


def close_gap(
    connection: sqlite3.Connection, missing: Sequence[JournalEntry], now: float
) -> tuple[MissedSubmissions, list[AppliedMove]]:
    """Make the waiting jobs among them uncertain, as they were submitted elsewhere."""
    landed: list[AppliedMove] = []
    jobs = dict.fromkeys(one.job_id for one in missing)
    for job_id in jobs:
        row = connection.execute(statements("questions.sql")["job"], {"id": job_id}).fetchone()
        if row is not None and (moves := _to_uncertain(job_of(row))):
            landed += walk(connection, job_of(row), moves, now)
    uncertain = len({one.job.id for one in landed})
    return MissedSubmissions(uncertain, len(jobs) - uncertain), landed


def _to_uncertain(job: Job) -> list[Move]:
    """Return the steps that lead there, none for a job that this copy has got on with."""
    steps = [Move(State.SUBMITTING, message=WHY), Move(State.UNCERTAIN, FailureKind.CRASH, WHY)]
    if job.state is State.PENDING:
        return steps
    if LIFE[job.state].retry.get(job.kind) is State.PENDING and job.state is not State.UNCERTAIN:
        return [Move(State.PENDING, message=WHY, asked=True), *steps]
    return []
