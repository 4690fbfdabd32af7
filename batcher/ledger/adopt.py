"""Gives a job the request id that its user found in the vendor's history."""

import sqlite3
from dataclasses import replace
from typing import Final

from batcher.errors import WrongUse
from batcher.job import Job, Move, State
from batcher.ledger.changes import AppliedMove, apply
from batcher.ledger.rows import job_of
from batcher.ledger.sql import statements

_FREE: Final = frozenset({"turned_away", "refused"})
"""Outcomes of attempts that nothing is paid for."""
_FROM: Final = frozenset({State.UNCERTAIN, State.FAILED})


def adoptable(connection: sqlite3.Connection, job_id: str, request_id: str) -> Job:
    """Return the job that may adopt the request. Raises WrongUse where it may not, and says why."""
    row = connection.execute(statements("questions.sql")["job"], {"id": job_id}).fetchone()
    if row is None:
        raise WrongUse(f"no job has the id {job_id}")
    job = job_of(row)
    if job.state not in _FROM:
        raise WrongUse(f"job {job_id} is {job.state}: only uncertain and failed jobs adopt a request")
    facts = {"request_id": request_id}
    holder = connection.execute(statements("moves.sql")["holder_of_request"], facts).fetchone()
    if holder and (holder["job_id"], holder["number"]) != (job_id, job.attempt):
        raise WrongUse(f"request {request_id} is the one of job {holder['job_id']} already")
    return job


def adopt(connection: sqlite3.Connection, job_id: str, request_id: str, now: float) -> tuple[AppliedMove, bool]:
    """Continue the job under that request id; return whether that is more money than was reserved. Raises WrongUse.

    An attempt that has an id of its own keeps it: the adopted one is an attempt more.
    """
    job = adoptable(connection, job_id, request_id)
    held = connection.execute(statements("questions.sql")["attempt"], {"id": job_id, "number": job.attempt}).fetchone()
    another = held is None or held["request_id"] not in {None, request_id}
    more = another or held["outcome"] in _FREE
    if another:
        estimated = job.spec.estimated_usd
        facts = {"id": job_id, "number": job.attempt + 1, "now": now, "estimated_usd": estimated, "seed": None}
        connection.execute(statements("moves.sql")["open_attempt"], facts)
        connection.execute(statements("moves.sql")["one_more_attempt"], facts)
        job = replace(job, attempt=job.attempt + 1)
    move = Move(State.RUNNING, message="adopted at the user's word", request_id=request_id, asked=True)
    landed = apply(connection, job, move, now)
    if landed is None:
        raise WrongUse(f"job {job_id} has just moved on")
    return landed, more
