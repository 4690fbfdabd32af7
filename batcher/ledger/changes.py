"""What one move writes, inside a transaction: the job's row, its attempt, its outputs, its event."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final

from batcher.errors import Bug
from batcher.events import Moved
from batcher.job import ASIDE, LIFE, NO_URLS, FailureKind, Job, Move, State, allowed
from batcher.ledger.rows import dump, event_row
from batcher.ledger.sql import statements

_OUTCOMES: Final[Mapping[State, str]] = {
    State.DONE: "done",
    State.FAILED: "failed",
    State.UNCERTAIN: "uncertain",
    State.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class AppliedMove:
    """A move that is on disk: the job as it is now, and what listeners are told."""

    job: Job
    event: Moved


def apply(
    connection: sqlite3.Connection, job: Job, move: Move, now: float, steady: float | None = None
) -> AppliedMove | None:
    """Write a move if the job still is where it was; None if it is not.

    `now` stamps it; `steady`, by default the same, is what a delay is counted from. Both in seconds since 1970.
    """
    if not allowed(job.state, job.kind, move):
        raise _no_arrow(job, move)
    if move.to is State.RUNNING and (holder := _other_holder(connection, job, move.request_id)):
        move = _alarm(move, holder)
    sql = statements("moves.sql")
    columns = _columns(job, move, now) | {"not_before": _not_before(move, now if steady is None else steady)}
    if connection.execute(sql["move"], columns).rowcount != 1:
        return None
    moved = _after(job, move, now)
    if step := _attempt_step(job, moved, move, now):
        connection.execute(sql[step[0]], step[1])
    connection.executemany(sql["put_output"], _output_rows(moved, move))
    event = _event(job, moved, move, now)
    connection.execute(sql["add_event"], event_row(event))
    return AppliedMove(moved, event)


def apply_all(
    connection: sqlite3.Connection, changes: Sequence[tuple[Job, Move]], now: float, steady: float
) -> list[AppliedMove | None]:
    """Write moves of many jobs as `apply` does, each kind of statement once for all of them.

    Where one of them does not land, or has a request id that is known already, each is written by itself.
    """
    if len(changes) > 1 and _all_will_land(connection, changes):
        return [*_apply_together(connection, changes, now, steady)]
    return [apply(connection, job, move, now, steady) for job, move in changes]


def _all_will_land(connection: sqlite3.Connection, changes: Sequence[tuple[Job, Move]]) -> bool:
    """Return whether every job is where it was and takes no id that is known; a savepoint would copy every page."""
    ids = [move.request_id for _, move in changes if move.to is State.RUNNING and move.request_id]
    jobs = {job.id: (job.state, job.attempt) for job, _ in changes}
    if len(jobs) < len(changes) or len(set(ids)) < len(ids):
        return False
    sql = statements("moves.sql")
    if ids and connection.execute(sql["any_holder"], {"ids": dump(ids)}).fetchone():
        return False
    there = connection.execute(sql["whereabouts"], {"ids": dump([*jobs])}).fetchall()
    return len(there) == len(jobs) and all(jobs[id_] == (state, attempt) for id_, state, attempt in there)


def _apply_together(
    connection: sqlite3.Connection, changes: Sequence[tuple[Job, Move]], now: float, steady: float
) -> list[AppliedMove]:
    for job, move in changes:
        if not allowed(job.state, job.kind, move):
            raise _no_arrow(job, move)
    sql = statements("moves.sql")
    moves = (_columns(job, move, now) | {"not_before": _not_before(move, steady)} for job, move in changes)
    if connection.executemany(sql["move"], moves).rowcount != len(changes):
        raise Bug("a job was moved within a transaction of the ledger")
    landed: list[AppliedMove] = []
    rows: dict[str, list[Mapping[str, object]]] = {}
    for job, move in changes:
        moved = _after(job, move, now)
        if step := _attempt_step(job, moved, move, now):
            rows.setdefault(step[0], []).append(step[1])
        rows.setdefault("put_output", []).extend(_output_rows(moved, move))
        landed.append(AppliedMove(moved, _event(job, moved, move, now)))
    rows["add_event"] = [event_row(one.event) for one in landed]
    for name, batch in rows.items():
        connection.executemany(sql[name], batch)
    return landed


def walk(connection: sqlite3.Connection, job: Job, moves: Iterable[Move], now: float) -> list[AppliedMove]:
    """Write several moves of one job, one after the other; what does not land ends the walk."""
    landed: list[AppliedMove] = []
    for move in moves:
        step = apply(connection, landed[-1].job if landed else job, move, now)
        if step is None:
            break
        landed.append(step)
        if step.job.state is not move.to:  # an alarm, for one
            break
    return landed


def arrived(connection: sqlite3.Connection, job: Job, move: Move, now: float) -> AppliedMove | None:
    """Return a move that is on disk although its commit was said to have failed; None if it is not there."""
    row = connection.execute(statements("questions.sql")["job"], {"id": job.id}).fetchone()
    moved = _after(job, move, now)
    there = row is not None and (row["state"], row["attempt"], row["request_id"]) == (
        moved.state,
        moved.attempt,
        moved.request_id,
    )
    return AppliedMove(moved, _event(job, moved, move, now)) if there else None


def _no_arrow(job: Job, move: Move) -> Bug:
    return Bug(f"job {job.id}: no arrow leads from {job.state} ({job.kind}) to {move.to} ({move.kind})")


def _output_rows(moved: Job, move: Move) -> list[Mapping[str, object]]:
    return [
        {"id": moved.id, "number": moved.attempt, **asdict(output), "url": _short(output.url)}
        for output in move.outputs
    ]


def _other_holder(connection: sqlite3.Connection, job: Job, request_id: str | None) -> str | None:
    if request_id is None:
        return None
    row = connection.execute(statements("moves.sql")["holder_of_request"], {"request_id": request_id}).fetchone()
    return None if row is None or (row["job_id"], row["number"]) == (job.id, job.attempt) else str(row["job_id"])


def _alarm(move: Move, holder: str) -> Move:
    why = f"ALARM: the server answered with request id {move.request_id}, which job {holder} already has"
    return Move(
        State.UNCERTAIN, FailureKind.LOST, why, evidence={**(move.evidence or {}), "request_id": move.request_id}
    )


def _columns(job: Job, move: Move, now: float) -> dict[str, object]:
    return {
        "id": job.id,
        "from": job.state,
        "attempt": job.attempt,
        "to": move.to,
        "kind": move.kind,
        "message": move.message,
        "attempts": _attempts(job, move),
        "request_id": move.request_id,
        "completed_at": move.completed_at,
        "settled": LIFE[move.to].settled,
        "asked": move.asked,
        "now": now,
    }


def _not_before(move: Move, steady: float) -> float:
    return steady + move.delay if move.to is State.PENDING and move.delay else 0.0


def _attempts(job: Job, move: Move) -> int:
    """Count submissions: one more with the intent, one less where it was certainly turned away."""
    if move.to is State.SUBMITTING:
        return 1
    return -1 if job.state is State.SUBMITTING and move.to is State.PENDING else 0


def _after(job: Job, move: Move, now: float) -> Job:
    fresh = move.to in {State.PENDING, State.SUBMITTING}
    return replace(
        job,
        state=move.to,
        kind=move.kind,
        message=move.message,
        attempt=job.attempt + _attempts(job, move),
        request_id=None if fresh else (move.request_id or job.request_id),
        submitted_at=now if move.to is State.SUBMITTING else job.submitted_at,
        running_since=job.running_since if move.to is not State.RUNNING else None if move.asked else now,
        completed_at=None if move.to is State.PENDING else (move.completed_at or job.completed_at),
        billed_usd=None if fresh else (job.billed_usd if move.billed_usd is None else move.billed_usd),
        outputs=() if fresh else (move.outputs or job.outputs),
        follow=NO_URLS if fresh else (move.follow or job.follow),
        seed=move.seed if fresh else job.seed,
    )


def _attempt_step(job: Job, moved: Job, move: Move, now: float) -> tuple[str, Mapping[str, object]] | None:
    """Return the statement that writes what a move makes of its attempt, and what it is told."""
    facts: dict[str, object] = {
        "id": job.id,
        "number": max(job.attempt, moved.attempt),
        "now": now,
        "request_id": moved.request_id,
        "estimated_usd": job.spec.estimated_usd,
        "billed_usd": move.billed_usd,
        "evidence": dump(move.evidence) if move.evidence else None,
        "seed": move.seed,
        "took": move.took,
        "follow": dump(dict(move.follow)) if move.follow else None,
    }
    submitting = job.state is State.SUBMITTING
    match move.to:
        case State.SUBMITTING:
            return "open_attempt", facts
        case State.RUNNING:
            return "accept_attempt", facts
        case State.PENDING if submitting:
            return "end_attempt", {**facts, "outcome": "turned_away"}
        case State.FETCHING:
            return "end_attempt", {**facts, "outcome": "open"}
        case State.FAILED if submitting:
            return "end_attempt", {**facts, "outcome": "refused"}
        case State.DONE | State.FAILED | State.UNCERTAIN | State.CANCELLED if job.attempt:
            return "end_attempt", {**facts, "outcome": _OUTCOMES[move.to]}
        case _:  # back to the queue by retry: what became of the attempt stays
            return None


def _short(url: str) -> str:
    if url.startswith(ASIDE):
        return "data:,"
    return url if not url.startswith("data:") else url.partition(",")[0] + ","


def _event(job: Job, moved: Job, move: Move, now: float) -> Moved:
    return Moved(
        at=now,
        job_id=job.id,
        name=job.spec.name,
        came_from=job.state,
        to=moved.state,
        kind=moved.kind,
        message=moved.message,
        request_id=moved.request_id,
        attempt=moved.attempt,
        billed_usd=move.billed_usd,
        files=len(move.outputs) if moved.state is State.DONE else 0,
        bytes=sum(output.bytes or 0 for output in move.outputs) if moved.state is State.DONE else 0,
    )
