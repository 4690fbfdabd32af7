"""What makes it quick has the meaning of what is slow: ids, templates, sums; and what is remembered stays exact."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis.strategies import booleans, dictionaries, floats, from_regex, integers, lists, none, recursive, text

from batcher.clock import Clock
from batcher.job import FailureKind, Image, Move, Output, Spec, State
from batcher.ledger.database import InlineDatabase, _connected, in_transaction
from batcher.ledger.import_jobs import Choice, import_jobs
from batcher.ledger.ledger import MIGRATIONS, Ledger, _split, migrate
from batcher.ledger.rows import spec_of
from batcher.ledger.sql import script, statements
from batcher.manifest.job_id import JobIds, canonical, fingerprint
from batcher.manifest.seen_keys import SeenKeys
from batcher.manifest.templates import _ENVIRONMENT, BadTemplate, Template
from tests.bench.books import spec

VALUES = recursive(
    none() | booleans() | integers(-(2**53) + 1, 2**53 - 1) | text() | floats(allow_nan=False, allow_infinity=False),
    lambda inner: lists(inner, max_size=4) | dictionaries(text(), inner, max_size=4),
    max_leaves=12,
)


@given(dictionaries(text(), VALUES, max_size=5))
def test_the_quick_canonical_form_is_the_standards(inputs: dict[str, object]) -> None:
    try:
        wanted = rfc8785.dumps(inputs)  # type: ignore[arg-type]
    except rfc8785.CanonicalizationError:
        return
    assert canonical(inputs) == wanted


@given(dictionaries(text(), VALUES, max_size=3), text(min_size=1), integers(1, 1000))
def test_an_id_is_that_of_the_whole_canonical_form(inputs: dict[str, object], model: str, sample: int) -> None:
    try:
        whole = rfc8785.dumps({"inputs": inputs, "model": model, "sample": sample})  # type: ignore[dict-item]
    except rfc8785.CanonicalizationError:
        return
    assert JobIds(model).of(canonical(inputs), sample) == hashlib.sha256(whole).hexdigest()[:16]


@example(template="a\rb\r\nc", values={})
@example(template="a\r{{ a }}\r\n", values={"a": "\r"})
@given(
    lists(from_regex(r"(?:\{\{ ?[abc_][0-9a-z]? ?\}\}|[^{}]|\n)", fullmatch=True), max_size=6).map("".join),
    dictionaries(
        from_regex(r"[abc_][0-9a-z]?", fullmatch=True), text() | integers() | booleans() | floats(), max_size=6
    ),
)
def test_a_plain_template_fills_in_as_jinja_does(template: str, values: dict[str, object]) -> None:
    ours = Template(template)
    try:
        filled = ours.fill(values)
    except BadTemplate:
        assert set(ours.names) - set(values)
        return
    assert filled == _ENVIRONMENT.from_string(template).render(values)


def test_what_was_seen_stays_exact_beyond_what_is_held_in_memory() -> None:
    seen = SeenKeys(held=700)
    exact: dict[int, int] = {}
    for number in range(20_000):
        key = fingerprint(str(number % 9000).encode())
        assert seen.get(key) == exact.get(key)
        seen.put(key, number)
        exact[key] = number
    assert all(seen.get(key) == number for key, number in exact.items())
    seen.close()


def sums(connection: sqlite3.Connection) -> tuple[object, ...]:
    """Give what the kept sums say."""
    sql = statements("questions.sql")
    return tuple(
        sorted(map(tuple, connection.execute(sql[name]).fetchall()), key=repr) for name in ("states", "money", "files")
    )


def counted(connection: sqlite3.Connection) -> tuple[object, ...]:
    """Give the same, counted from the rows."""
    questions = (
        "SELECT state, listed, selected, kind, count(*) FROM jobs GROUP BY 1, 2, 3, 4",
        "SELECT outcome, count(*), total(billed_usd), total(CASE WHEN billed_usd IS NULL THEN estimated_usd END) "
        "FROM attempts GROUP BY 1",
        "SELECT count(*), coalesce(sum(bytes), 0) FROM outputs WHERE file GLOB 'files/*'",
    )
    return tuple(sorted(map(tuple, connection.execute(one).fetchall()), key=repr) for one in questions)


async def test_sums_are_what_counting_gives_at_every_step(tmp_path: Path) -> None:
    database = InlineDatabase(tmp_path / "ledger.sqlite")
    ledger = Ledger(database, Clock())
    await ledger.open()
    connection = database._connection

    async def take(numbers: range, limit: int | None = None, sample: int | None = None) -> None:
        named = [(spec(n), True) for n in numbers]
        await ledger.transact(lambda c: import_jobs(c, named, Choice(limit, sample), 0.0, sure=True), bound=False)
        assert sums(connection) == counted(connection)

    await take(range(1, 9), limit=5)
    jobs = await ledger.waiting(9)
    assert len(jobs) == 5
    output = Output(1, "https://x.example/a", "files/a.png", 7, "h", "image/png", 1, 1, 0.0)
    lives = (
        [Move(State.SUBMITTING), Move(State.RUNNING, request_id="a"), Move(State.FETCHING, outputs=(output,), billed_usd=0.25),
         Move(State.DONE, outputs=(output,))],
        [Move(State.SUBMITTING), Move(State.PENDING, delay=1.0), Move(State.SUBMITTING), Move(State.UNCERTAIN, FailureKind.LOST, "?")],
        [Move(State.SUBMITTING), Move(State.FAILED, FailureKind.REFUSED, "no")],
        [Move(State.SUBMITTING), Move(State.RUNNING, request_id="b"), Move(State.CANCELLED)],
    )  # fmt: skip
    for job, moves in zip(jobs, lives, strict=False):
        for move in moves:
            job = await ledger.record(job, move)  # noqa: PLW2901
            assert sums(connection) == counted(connection)
    await take(range(2, 12))
    assert [row[0] for row in connection.execute("PRAGMA integrity_check")] == ["ok"]
    await ledger.close()


def test_a_ledger_of_the_first_version_comes_forward_with_its_sums(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "old.sqlite", isolation_level=None)
    for statement in _split(script("migrations/001_schema.sql")):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    for n in range(20):
        connection.execute(
            "INSERT INTO jobs (id, position, name, spec, sample, estimated_usd, state, created_at) "
            "VALUES (?, ?, 'n', '{}', 1, 0.1, 'pending', 0)", (str(n), n))  # fmt: skip
    connection.execute("INSERT INTO attempts VALUES ('3', 1, 'r', 0, 0, 0, 'done', 0.1, 0.3, NULL)")
    connection.execute("INSERT INTO attempts VALUES ('3', 2, 'r2', 0, 0, 0, 'done', 0.1, 0.3, NULL)")
    for job, number, name in (("3", 1, "files/f.png"), ("3", 2, "files/f.png"), ("4", 1, "replaced/4/f.png")):
        connection.execute("INSERT INTO outputs VALUES (?, ?, 1, 'u', ?, 5, 'h', 'm', 1, 1, 0)", (job, number, name))
    connection.execute("BEGIN")
    migrate(connection)
    connection.execute("ROLLBACK")  # a kill on the way leaves it as it was
    assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
    assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'tally'").fetchall()
    connection.execute("UPDATE jobs SET spec = json_object('inputs', json_object('resolution', '4K')) WHERE id = '7'")
    connection.execute("BEGIN")
    migrate(connection)
    connection.execute("COMMIT")
    classes = dict(connection.execute("SELECT id, json_extract(spec, '$.class') FROM jobs"))
    assert (classes["7"], classes["8"]) == ("4K", "")
    assert connection.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)
    assert sums(connection) == counted(connection)
    assert json.dumps(sums(connection)[2]) == "[[1, 5]]", (
        "one lies in files/: of an older attempt and of replaced/ none"
    )
    connection.execute("INSERT INTO outputs VALUES ('3', 3, 1, 'u', 'files/f.png', 7, 'h', 'm', 1, 1, 0)")
    assert json.dumps(sums(connection)[2]) == "[[1, 7]]", "a third attempt's file took its name"
    connection.execute("INSERT INTO outputs VALUES ('3', 4, 1, 'u', NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
    connection.execute("UPDATE outputs SET file = 'files/f.png', bytes = 9 WHERE number = 4")
    assert json.dumps(sums(connection)[2]) == "[[1, 9]]", "and a fourth's, once it came"
    connection.execute("UPDATE outputs SET file = 'replaced/3/f.png' WHERE number = 4")
    assert json.dumps(sums(connection)[2]) == "[[0, 0]]"
    connection.close()


@pytest.mark.parametrize("question", ["waiting", "waiting_broad", "next_due"])
async def test_what_waits_is_read_by_its_index_and_never_sorted(tmp_path: Path, question: str) -> None:
    database = InlineDatabase(tmp_path / "ledger.sqlite")
    ledger = Ledger(database, Clock())
    await ledger.open()
    await ledger.transact(
        lambda c: import_jobs(c, [(spec(n), True) for n in range(50)], Choice(), 0.0, sure=True), bound=False
    )
    asked = f"EXPLAIN QUERY PLAN {statements('questions.sql')[question]}"
    facts = {} if question == "next_due" else {"now": 1.0, "limit": 9}
    plan = " ".join(row[3] for row in database._connection.execute(asked, facts))
    assert "TEMP B-TREE" not in plan
    assert "USING" in plan and "INDEX jobs_" in plan and "by_state" not in plan
    assert len(await ledger.waiting(9)) == len(await ledger.waiting(9, broad=True)) == 9
    await ledger.close()


ODD = [
    Spec(
        "b" * 16,
        'q"uote',
        "m",
        {"prompt": "日本 \\ \" \n 'x'", "n": 2**70, "f": 1.5},
        (),
        ("a.png",),
        {"v": None},
        1,
        1,
    ),
    Spec(
        "a" * 16,
        "ü/ä",
        "m",
        {"image_urls": ["sha256:00"]},
        (Image(("image_urls", 0), "p.png", "00", 5, 64),),
        ("p.png",),
    ),
    Spec("c" * 16, "n~2", "m", {}, (), (), {"deep": {"x": [1, {"y": True}]}}, 2, 2, "r.csv", 0.1),
    Spec("d" * 16, "last", "m", {}, row=2, estimated_usd=0.25),
]


def kept(connection: sqlite3.Connection) -> list[object]:
    """Give all that a ledger says of its jobs, and how it is made."""
    rows = connection.execute("SELECT * FROM jobs ORDER BY position").fetchall()
    made = connection.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    tally = connection.execute("SELECT * FROM tally ORDER BY 1, 2, 3, 4").fetchall()
    bound = connection.execute("PRAGMA foreign_keys").fetchone()[0]
    return [[tuple(row) for row in rows], [tuple(row) for row in made], [tuple(row) for row in tally], bound]


def empty(file: Path, *, of_old: bool = False) -> sqlite3.Connection:
    """Give a new ledger; `of_old`: with the ids of jobs as the first versions kept them."""
    connection = _connected(file)
    if of_old:
        schema = script("migrations/001_schema.sql").replace(
            "  id            TEXT NOT NULL, ", "  id            TEXT PRIMARY KEY, "
        )
        assert "TEXT PRIMARY KEY,             -- of older" in schema
        for statement in _split(schema):
            if "jobs_by_id" not in statement:
                connection.execute(statement)
        connection.execute("PRAGMA user_version = 1")
    in_transaction(connection, migrate)
    return connection


def test_jobs_written_straight_in_are_the_same_as_staged_ones(tmp_path: Path) -> None:
    named = [(one, one.name != "last") for one in ODD]
    direct, staged = empty(tmp_path / "1"), empty(tmp_path / "2")
    one = in_transaction(direct, lambda ledger: import_jobs(ledger, iter(named), Choice(), 5.0, sure=True), bound=False)
    other = in_transaction(
        staged, lambda ledger: import_jobs(ledger, iter(named), Choice(limit=9), 5.0, sure=True), bound=False
    )
    assert one == other
    assert kept(direct) == kept(staged)
    assert [spec_of(row) for row in direct.execute("SELECT * FROM jobs ORDER BY position")] == ODD
    again = in_transaction(
        direct, lambda ledger: import_jobs(ledger, iter(named[1:]), Choice(), 6.0, sure=True), bound=False
    )
    assert (again.jobs, direct.execute("SELECT count(*) FROM jobs WHERE listed").fetchone()[0]) == (3, 3)
    old = empty(tmp_path / "3", of_old=True)
    for choice in (Choice(), Choice(limit=2)):
        for ledger in (old, staged):
            in_transaction(ledger, partial(import_jobs, named=named, choice=choice, now=5.0, sure=True), bound=False)
        assert kept(old)[::2] == kept(staged)[::2], "the same comes of it where ids are a primary key"
    for connection in (direct, staged, old):
        connection.close()


def test_a_stream_that_breaks_off_leaves_an_empty_ledger_as_it_was(tmp_path: Path) -> None:
    connection = empty(tmp_path / "1")
    before = kept(connection)

    def broken() -> Iterator[tuple[Spec, bool]]:
        for number in range(6000):
            yield spec(number), True
        raise KeyError("the manifest")

    with pytest.raises(KeyError):
        in_transaction(connection, lambda ledger: import_jobs(ledger, broken(), Choice(), 0.0, sure=True), bound=False)
    assert kept(connection) == before and not connection.in_transaction and before[-1] == 1
    connection.close()


def test_work_is_done_once_though_a_reader_holds_its_commit_up(tmp_path: Path) -> None:
    """A rollback journal, as on a network folder: jobs come from a stream that can be read once only."""
    writer = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
    writer.execute("PRAGMA busy_timeout = 100")
    writer.execute("CREATE TABLE jobs (name)")
    reader = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None, check_same_thread=False)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM jobs").fetchall()
    end = threading.Timer(0.35, lambda: reader.execute("COMMIT"))
    end.start()
    stream = iter([("a",), ("b",)])
    in_transaction(writer, lambda connection: connection.executemany("INSERT INTO jobs VALUES (?)", stream))
    end.join()
    assert writer.execute("SELECT count(*) FROM jobs").fetchone()[0] == 2
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM jobs").fetchall()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        in_transaction(writer, lambda connection: connection.execute("INSERT INTO jobs VALUES ('c')"))
    reader.execute("COMMIT")
    assert not writer.in_transaction and writer.execute("SELECT count(*) FROM jobs").fetchone()[0] == 2
