"""The life of a job, explored exhaustively with its ledger: every reply, every crash, every word of the user.

The model is the server's side (what it accepted) and the process (what it remembers); the ledger is the real one, on
SQLite. From each state every event is tried, up to a depth; states that are equal are looked at once.
"""

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from batcher.engine import rules
from batcher.job import FailureKind, Job, Move, Output, Spec, State
from batcher.ledger.adopt import adopt
from batcher.ledger.changes import apply
from batcher.ledger.retry import RetrySelection, go_on
from batcher.ledger.rows import dump, job_of, spec_facts
from batcher.provider.replies import (
    Accepted,
    Busy,
    Cancelled,
    Finished,
    GenerationFailed,
    Lost,
    Missing,
    SubmitReply,
    TurnedDown,
    Unsent,
)
from batcher.settings import Retry
from tests.rooms.test_life import ledger_with

DEPTH = 11
RETRY = Retry()
SPEC = Spec("job", "name", "model", {}, estimated_usd=0.15)
EXPIRED = Move(State.FAILED, FailureKind.EXPIRED, "dead")
BOUGHT_AGAIN = frozenset(
    {
        RetrySelection("uncertain"),
        RetrySelection("failed"),
        RetrySelection("cancelled"),
        RetrySelection(None, again=True),
    }
)


@dataclass(frozen=True)
class World:
    """What is outside the ledger: requests that the server accepted, and the user's words that allow another."""

    accepted: int = 0
    words: int = 0
    of_last: bool = False
    """The last request accepted is that of the last submission."""
    alive: bool = True


class Breach(AssertionError):
    pass


def job(connection: sqlite3.Connection) -> Job:
    return replace(job_of(connection.execute("SELECT * FROM jobs").fetchone()), spec=SPEC)


def replies(world: World) -> Iterator[tuple[bool, SubmitReply]]:
    """Every kind of answer to a submission, with whether the server accepted it."""
    yield True, Accepted(f"r{world.accepted + 1}")
    yield True, Lost("the answer was lost")
    yield False, Lost("reset")
    yield False, Busy("full", 1.0)
    yield False, Unsent("refused")
    yield False, TurnedDown(FailureKind.INVALID, "no")


def events(connection: sqlite3.Connection, world: World) -> Iterator[tuple[str, World, Callable[[], object]]]:
    """Everything that can happen next: its name, the world after it, and what it does to the ledger."""
    now = job(connection)

    def move(step: Move) -> Callable[[], object]:
        return lambda: apply(connection, now, step, 1.0)

    def recover() -> object:
        step = rules.after_crash(now)
        return move(step)() if step else None

    def say(which: RetrySelection) -> Callable[[], object]:
        return lambda: go_on(connection, which, which.places(connection), frozenset(), 1.0)

    def find(number: int) -> Callable[[], object]:
        return lambda: adopt(connection, "job", f"r{number}", 1.0)

    if not world.alive:
        yield "recovers", replace(world, alive=True), recover
        return
    yield "crashes", replace(world, alive=False), lambda: None
    match now.state:
        case State.PENDING:
            yield "intends", world, move(Move(State.SUBMITTING))
        case State.SUBMITTING:
            for taken, reply in replies(world):
                after = replace(world, accepted=world.accepted + taken, of_last=taken)
                yield f"is answered {reply}", after, move(rules.after_submit(reply, 1.0, proven=True))
                yield f"crashes before it notes {reply}", replace(after, alive=False), lambda: None
        case State.RUNNING:
            watch = rules.Watch(since=0.0, moved_at=0.0, empty_since=0.0, missing_since=0.0)
            for poll in (
                Finished(("u",), 0.1, 1.0),
                Finished((), 0.1, 1.0),
                GenerationFailed(FailureKind.FAILED, "f"),
                Cancelled(),
                Missing("m"),
            ):
                if step := rules.after_poll(poll, watch, RETRY, 1e6):
                    yield f"is seen {poll}", world, move(step)
        case State.FETCHING:
            yield "fetches", world, move(Move(State.DONE, outputs=(Output(1, "u", "files/f.png", sha256="x"),)))
            yield "finds it dead", world, move(EXPIRED)
        case _:
            for which in BOUGHT_AGAIN:
                yield (
                    f"user: {which}",
                    replace(world, words=world.words + 1),
                    say(which),
                )
            known = {row[0] for row in connection.execute("SELECT request_id FROM attempts")}
            for number in range(1, world.accepted + 1):
                if now.state in {State.UNCERTAIN, State.FAILED} and f"r{number}" not in known:
                    if now.state is State.UNCERTAIN and number == world.accepted and world.of_last:
                        listed = Move(State.RUNNING, request_id=f"r{number}", message="found")
                        yield f"the list shows r{number}", world, move(listed)
                    yield (
                        f"user adopts r{number}",
                        world,
                        find(number),
                    )


def check(connection: sqlite3.Connection, world: World, story: list[str]) -> None:
    """Hold the ledger against the world: nothing accepted is unknown or undoubted, nothing is bought unasked."""
    attempts = connection.execute("SELECT request_id, outcome FROM attempts").fetchall()
    known = {row["request_id"] for row in attempts if row["request_id"]}
    unknown = world.accepted - len(known)
    state = job(connection).state
    doubtful = sum(row["request_id"] is None and row["outcome"] in {"uncertain", "open"} for row in attempts)
    if unknown > doubtful:
        raise Breach(f"{unknown} accepted requests are not known, {doubtful} attempts are in doubt: {story}")
    if world.accepted > 1 + world.words:
        raise Breach(f"bought {world.accepted} times at {world.words} words of the user: {story}")
    if world.alive and state is not State.SUBMITTING and any(row["outcome"] == "open" for row in attempts):
        open_ = [row for row in attempts if row["outcome"] == "open"]
        if state not in {State.RUNNING, State.FETCHING} or len(open_) > 1:
            raise Breach(f"an attempt is open in a job that is {state}: {story}")


def explore(depth: int = DEPTH) -> int:
    """Try every story up to this many events; give the number of states seen. Raises Breach."""
    connection = ledger_with(Job(SPEC))
    connection.execute("UPDATE jobs SET id = 'job', spec = ?", [dump(spec_facts(SPEC))])
    seen: dict[object, int] = {}

    def go(world: World, left: int, story: list[str]) -> None:
        check(connection, world, story)
        rows = connection.execute("SELECT state, kind, attempt, request_id FROM jobs").fetchone()
        key = (tuple(rows), *map(tuple, connection.execute("SELECT number, request_id, outcome FROM attempts")), world)
        if seen.get(key, -1) >= left or left == 0:
            return
        seen[key] = left
        for name, after, act in list(events(connection, world)):
            connection.execute(f"SAVEPOINT d{left}")
            act()
            go(after, left - 1, [*story, name])
            connection.execute(f"ROLLBACK TO d{left}")
            connection.execute(f"RELEASE d{left}")

    go(World(), depth, [])
    return len(seen)


def test_no_story_loses_a_request_or_buys_one_unasked() -> None:
    assert explore() > 400
