"""Lets settled jobs go on at the user's word, as the table of states says."""

import json
import sqlite3
from array import array
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from batcher.job import LIFE, Job, Move, State
from batcher.ledger.changes import AppliedMove, apply
from batcher.ledger.rows import job_of, with_attempt
from batcher.ledger.sql import statements


@dataclass(frozen=True, slots=True)
class RetrySelection:
    """Which jobs are meant. `again`: bought anew, whatever came of them. `state` None: whatever their state."""

    state: str | None = "failed"
    kind: str | None = None
    job: str | None = None
    again: bool = False
    only: Mapping[str, int] | None = None
    """The jobs that the user was told of, each with its attempt: what has become so meanwhile is not meant, and what
    was carried out already, and is heard of once more, moves nothing."""
    told_at: int | None = None
    """In the place of `only`, where these are many and none may be billed twice: the last event when they were told of.
    What has moved since is not meant."""

    def moved_since(self, connection: sqlite3.Connection) -> frozenset[str]:
        """Return the jobs that have moved since the user was told."""
        if self.told_at is None:
            return frozenset()
        rows = connection.execute(statements("questions.sql")["moved_since"], {"seq": self.told_at})
        return frozenset(row[0] for row in rows)

    def places(self, connection: sqlite3.Connection) -> "array[int]":
        """Return the places in the ledger of the jobs that may be meant."""
        facts = {"state": self.state, "kind": self.kind, "job": self.job, "listed": None}
        return array("q", (row[0] for row in connection.execute(statements("questions.sql")["places"], facts)))

    def jobs(self, connection: sqlite3.Connection, places: Sequence[int], moved: AbstractSet[str]) -> list[Job]:
        """Return those at these places that are meant and that may go on; `moved`: what has moved since."""
        sql = statements("questions.sql")
        rows = connection.execute(sql["jobs_of"], {"places": json.dumps([*places])}).fetchall()
        jobs = (job for job in map(job_of, rows) if job.spec.id not in moved)
        jobs = (job for job in jobs if self.only is None or self.only.get(job.id) == job.attempt)
        return [_with_attempt(connection, job) for job in jobs if self.target(job)]

    def target(self, job: Job) -> State | None:
        """Return the state that such a job moves to, or None if it stays."""
        facts = LIFE[job.state]
        if self.again:  # a done job only by its name
            return None if job.state is State.DONE and not self.job else facts.again
        target = facts.retry.get(job.kind)
        if target in {State.RUNNING, State.FETCHING} and job.request_id is None:
            return None
        return target

    def buys(self, job: Job) -> bool:
        """Return whether that may be billed twice."""
        return self.again or job.state is State.UNCERTAIN


def _with_attempt(connection: sqlite3.Connection, job: Job) -> Job:
    """Return a job with what its last attempt was billed, lest a bill be counted twice, and how it is asked about."""
    key = {"id": job.id, "number": job.attempt}
    return with_attempt(job, connection.execute(statements("questions.sql")["attempt"], key).fetchone())


def go_on(
    connection: sqlite3.Connection,
    which: RetrySelection,
    places: Sequence[int],
    moved_since: AbstractSet[str],
    now: float,
) -> list[AppliedMove]:
    """Move every job at these places that is meant."""
    landed = []
    for job in which.jobs(connection, places, moved_since):
        target = which.target(job)
        if target is None:
            continue
        if target is State.FETCHING:  # the result is asked anew: what was known of its URLs is no use
            connection.execute(statements("moves.sql")["forget_outputs"], {"id": job.id, "number": job.attempt})
        moved = apply(connection, job, Move(target, message="at the user's word", asked=True), now)
        if moved:
            landed.append(moved)
    return landed
