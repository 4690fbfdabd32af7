"""The table of a job's life, against the contract's arrows, and the database's own checks."""

import asyncio
import json
import random
import sqlite3
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis.strategies import booleans, dictionaries, floats, integers, lists, none, recursive, text

from batcher.clock import Clock
from batcher.errors import Bug
from batcher.events import Event
from batcher.job import IN_FLIGHT, LIFE, SETTLED, FailureKind, Job, Move, Output, Spec, State, allowed
from batcher.ledger.changes import apply, apply_all
from batcher.ledger.database import InlineDatabase, in_transaction, prepare
from batcher.ledger.ledger import Ledger, migrate
from batcher.ledger.rows import dump, load

S, K = State, FailureKind
BY_ITSELF = {
    (S.PENDING, S.SUBMITTING, None),
    (S.PENDING, S.FAILED, K.SOURCE),
    (S.PENDING, S.DONE, None),
    (S.SUBMITTING, S.RUNNING, None),
    (S.SUBMITTING, S.PENDING, None),
    *((S.SUBMITTING, S.FAILED, kind) for kind in (K.INVALID, K.REFUSED)),
    *((S.SUBMITTING, S.UNCERTAIN, kind) for kind in (K.LOST, K.CRASH)),
    (S.RUNNING, S.FETCHING, None),
    *((S.RUNNING, S.FAILED, kind) for kind in (K.FAILED, K.REFUSED, K.INVALID, K.TIMEOUT, K.GONE, K.NO_OUTPUT)),
    (S.RUNNING, S.CANCELLED, None),
    (S.FETCHING, S.DONE, None),
    *((S.FETCHING, S.FAILED, kind) for kind in (K.EXPIRED, K.BAD_OUTPUT, K.UNFETCHED)),
    (S.FAILED, S.PENDING, None),
    (S.UNCERTAIN, S.PENDING, None),
    (S.UNCERTAIN, S.RUNNING, None),
}
ASKED = {
    *((S.FAILED, kind, S.RUNNING) for kind in (K.TIMEOUT, K.GONE)),
    *((S.FAILED, kind, S.FETCHING) for kind in (K.EXPIRED, K.BAD_OUTPUT, K.NO_OUTPUT, K.UNFETCHED)),
    *((S.FAILED, kind, S.PENDING) for kind in K),
    *((S.FAILED, kind, S.RUNNING) for kind in K),
    *((S.UNCERTAIN, kind, target) for kind in K for target in (S.PENDING, S.RUNNING)),
    (S.CANCELLED, None, S.PENDING),
    (S.DONE, None, S.PENDING),
    (S.DONE, None, S.FETCHING),
}


@pytest.mark.parametrize("came_from", State)
def test_a_job_goes_by_itself_only_where_the_contract_says(came_from: State) -> None:
    for to, kind in product(State, [None, *FailureKind]):
        move = Move(to, kind)
        assert allowed(came_from, None, move) == ((came_from, to, kind) in BY_ITSELF), (came_from, to, kind)


@pytest.mark.parametrize("came_from", State)
def test_a_job_goes_at_the_users_word_only_where_the_contract_says(came_from: State) -> None:
    for kind, to in product([None, *FailureKind], State):
        if (kind is not None) != (came_from in {S.FAILED, S.UNCERTAIN}):
            continue
        assert allowed(came_from, kind, Move(to, asked=True)) == ((came_from, kind, to) in ASKED), (came_from, kind, to)


def test_only_what_may_have_left_changes_in_a_crash() -> None:
    assert {state for state, facts in LIFE.items() if facts.after_crash} == {S.SUBMITTING}
    assert {S.SUBMITTING, S.RUNNING} == IN_FLIGHT
    assert {S.DONE, S.FAILED, S.UNCERTAIN, S.CANCELLED} == SETTLED


def ledger_with(job: Job) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    prepare(connection, Path())
    in_transaction(connection, migrate)
    connection.execute(
        "INSERT INTO jobs (id, position, name, spec, sample, state, created_at) VALUES (?, 1, 'n', '{}', 1, 'pending', 0)",
        (job.id,),
    )
    return connection


def test_every_path_through_life_can_be_written_down() -> None:
    """Walk every sequence of moves of up to five steps, on a real database with its checks."""
    start = Job(Spec("a" * 16, "n", "m", {}))
    paths = 0

    def walk(connection: sqlite3.Connection, job: Job, depth: int) -> None:
        nonlocal paths
        paths += 1
        if depth == 0:
            return
        for to, kind, asked in product(State, [None, *FailureKind], [False, True]):
            request = f"r{job.attempt}" if to is S.RUNNING else None
            move = Move(to, kind, "why", request_id=job.request_id or request, asked=asked)
            if not allowed(job.state, job.kind, move) or (to is S.FETCHING and not job.request_id):
                continue
            if to is S.RUNNING and job.attempt == 0:
                continue
            connection.execute("SAVEPOINT step")
            landed = apply(connection, job, move, 1.0)
            assert landed is not None
            walk(connection, landed.job, depth - 1)
            connection.execute("ROLLBACK TO step")
            connection.execute("RELEASE step")

    connection = ledger_with(start)
    connection.execute("BEGIN")
    walk(connection, start, 5)
    assert paths > 300


def test_a_move_lands_only_where_the_job_was() -> None:
    job = Job(Spec("a" * 16, "n", "m", {}))
    connection = ledger_with(job)
    assert apply(connection, job, Move(S.SUBMITTING), 1.0)
    assert apply(connection, job, Move(S.SUBMITTING), 1.0) is None
    with pytest.raises(Bug):
        apply(connection, job, Move(S.RUNNING, request_id="r"), 1.0)


def test_a_request_id_is_never_overwritten_and_events_only_grow() -> None:
    job = Job(Spec("a" * 16, "n", "m", {}))
    connection = ledger_with(job)
    landed = apply(connection, job, Move(S.SUBMITTING), 1.0)
    assert landed and apply(connection, landed.job, Move(S.RUNNING, request_id="r1"), 2.0)
    for statement in (
        "UPDATE attempts SET request_id = 'r2'",
        "UPDATE attempts SET request_id = NULL",
        "DELETE FROM events",
        "UPDATE events SET at = 0",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("UPDATE jobs SET request_id = NULL")


def ids_of(connection: sqlite3.Connection, count: int) -> list[Job]:
    jobs = [Job(Spec(f"{n:016x}", "n", "m", {}, estimated_usd=0.1)) for n in range(count)]
    for job in jobs:
        connection.execute(
            "INSERT INTO jobs (id, position, name, spec, sample, state, created_at, estimated_usd) "
            "VALUES (?, 1, 'n', '{}', 1, 'pending', 0, 0.1)",
            (job.id,),
        )
    return jobs


def books(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    tables = ("jobs", "attempts", "outputs", "tally", "spending", "stored")
    rows = [tuple(row) for name in tables for row in connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2")]  # noqa: S608
    return rows + [tuple(row) for row in connection.execute("SELECT at, job_id, type, facts FROM events ORDER BY 2, 4")]


def any_move(job: Job, chance: random.Random) -> Move:
    moves = [
        Move(to, kind, "why", request_id=f"r-{job.id}-{job.attempt}" if to is S.RUNNING else None, delay=2.0,
             outputs=(Output(1, f"https://h/{job.id}"),) if to in {S.FETCHING, S.DONE} else (), billed_usd=0.2)
        for to, kind in product(State, [None, *FailureKind])
    ]  # fmt: skip
    return chance.choice([move for move in moves if allowed(job.state, job.kind, move)])


@pytest.mark.parametrize("seed", range(6))
def test_many_moves_at_once_leave_the_books_as_one_by_one(seed: int) -> None:
    """The same moves, some of them of jobs that are elsewhere by now, and some under an id that another has."""
    chance = random.Random(seed)
    together, alone = ledger_with(Job(Spec("z", "n", "m", {}))), ledger_with(Job(Spec("z", "n", "m", {})))
    jobs, ids_of_alone = ids_of(together, 12), ids_of(alone, 12)
    assert jobs == ids_of_alone
    for turn in range(12):
        moving = [job for job in jobs if LIFE[job.state].then and chance.random() < 0.8]
        if turn % 4 == 2 and moving:
            moving.append(replace(moving[0], attempt=moving[0].attempt + 7))  # overtaken
        changes = [(job, any_move(job, chance)) for job in moving]
        if turn % 4 == 3:
            changes = [(job, replace(move, request_id="same") if move.request_id else move) for job, move in changes]
        stamp = float(turn)
        at_once = in_transaction(together, partial(apply_all, changes=changes, now=stamp, steady=stamp))
        one_by_one = in_transaction(
            alone, lambda c, changes=changes, stamp=stamp: [apply(c, job, move, stamp, stamp) for job, move in changes]  # type: ignore[misc]
        )  # fmt: skip
        assert at_once == one_by_one
        assert books(together) == books(alone)
        landed = {one.job.id: one.job for one in at_once if one}
        jobs = [landed.get(job.id, job) for job in jobs]
    assert {job.state for job in jobs} - {S.PENDING}


async def test_a_listener_that_raises_is_dropped_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(event: Event) -> None:
        raise RuntimeError("an observer's own trouble")

    ledger = Ledger(InlineDatabase(tmp_path / "l.sqlite"), Clock())
    await ledger.open()
    await ledger.transact(
        lambda connection: (
            connection.execute(
                "INSERT INTO jobs (id, position, name, spec, sample, state, created_at) VALUES ('a', 1, 'n', '{}', 1, 'pending', 0)"
            ).rowcount
        )
    )
    ledger.listen(broken)
    job = await ledger.record(Job(Spec("a", "n", "m", {})), Move(S.SUBMITTING))
    assert job.state is S.SUBMITTING
    job = await ledger.record(job, Move(S.RUNNING, request_id="r"))
    assert job.state is S.RUNNING
    await ledger.close()
    assert capsys.readouterr().err.count("no longer listens") == 1


async def test_a_move_that_cannot_be_written_costs_the_others_nothing(tmp_path: Path) -> None:
    ledger = Ledger(InlineDatabase(tmp_path / "l.sqlite"), Clock())
    await ledger.open()
    for job_id in "abc":
        await ledger.transact(
            lambda connection, job_id=job_id: (
                connection.execute(  # type: ignore[misc]
                    "INSERT INTO jobs (id, position, name, spec, sample, state, created_at) VALUES (?, 1, 'n', '{}', 1, 'pending', 0)",
                    (job_id,),
                ).rowcount
            )
        )
    jobs = [await ledger.record(Job(Spec(job_id, "n", "m", {})), Move(S.SUBMITTING)) for job_id in "abc"]
    moves = [
        Move(S.RUNNING, request_id="r1"),
        Move(S.FAILED, K.INVALID, "half \ud83d"),
        Move(S.RUNNING, request_id="r3"),
    ]
    first, second, third = await asyncio.gather(*map(ledger.record, jobs, moves), return_exceptions=True)
    assert isinstance(second, UnicodeEncodeError)
    assert isinstance(first, Job) and isinstance(third, Job)
    assert (first.request_id, third.request_id) == ("r1", "r3")
    rows = await ledger.ask("under_way", state="running")
    assert [row["request_id"] for row in rows] == ["r1", "r3"]
    await ledger.close()


@given(recursive(none() | booleans() | integers() | floats(allow_nan=False, allow_infinity=False) | text(),
                 lambda inner: lists(inner) | dictionaries(text(), inner), max_leaves=12))  # fmt: skip
def test_what_the_ledger_keeps_is_read_as_it_was_written(value: object) -> None:
    assert repr(load(dump(value))) == repr(value), "a number remains of its kind"


def test_half_a_character_and_a_long_number_are_read_as_they_were_written() -> None:
    assert load(json.dumps({"a\ud800": "\ud800"})) == {"a\ud800": "\ud800"}
    assert load(dump([2**64, -(2**63) - 1, 10**18])) == [2**64, -(2**63) - 1, 10**18]
