"""Takes a manifest's jobs into the ledger, as a stream, all of them or none."""

import math
import sqlite3
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Final

from batcher.job import Spec
from batcher.ledger.rows import dump, spec_facts
from batcher.ledger.sql import statements

_BATCH = 2_500
"""Jobs that one statement writes."""
LEAST_UNLISTED: Final = 20
"""Finished jobs that an edit must leave out before it is asked about: fewer are a sample that is tried again."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the jobs a run works on: the first `limit`, or `sample` of them spread evenly."""

    limit: int | None = None
    sample: int | None = None
    partly: Callable[[], bool] = field(default=lambda: False, compare=False)
    """Tells, once all are read, whether some that the manifest names could not be made: then none is unlisted."""


@dataclass(frozen=True, slots=True)
class ImportedJobs:
    """What came of it."""

    jobs: int
    chosen: int
    unlists_done: int
    """Finished jobs that the manifest no longer names."""
    done: int
    """Finished jobs, before."""


class NothingSelected(Exception):
    """The manifest names jobs, and the selection leaves none of them."""


class TooManyUnlisted(Exception):
    """The edit would leave out more than half of what is done."""

    def __init__(self, imported: ImportedJobs) -> None:
        super().__init__(f"{imported.unlists_done} of {imported.done} finished jobs are no longer named")
        self.imported = imported


def unlists_most(unlisted: int, done: int) -> bool:
    """Return whether an edit leaves out so much of what is done that it may be a slip."""
    return unlisted * 2 > done and unlisted >= LEAST_UNLISTED


def import_jobs(
    connection: sqlite3.Connection,
    named: Iterable[tuple[Spec, bool]],
    choice: Choice,
    now: float,
    *,
    sure: bool,
) -> ImportedJobs:
    """Import the jobs (each with whether `--where` chose it), staged first where there are some, or some are chosen.

    Memory does not grow with the jobs; indexes and sums are made anew, all at once. Into a ledger that knows jobs
    the others go in the order of their ids, so that the index of ids is written from its beginning to its end.
    The transaction is one that is not bound to foreign keys: they want the index of ids at each step.
    Raises what the stream raises, NothingSelected and TooManyUnlisted.
    """
    sql = statements("moves.sql")
    if choice == Choice() and not _one(connection, "SELECT count(*) FROM (SELECT 1 FROM jobs LIMIT 1)"):
        with _set_aside(connection):
            _written(connection, sql["import_first"], named, now)
        jobs = _one(connection, "SELECT total(jobs) FROM tally")
        chosen = _one(connection, "SELECT total(jobs) FROM tally WHERE selected = 1")
        if jobs and not chosen:
            raise NothingSelected
        return ImportedJobs(jobs, chosen, 0, 0)
    connection.execute(sql["stage_drop"])
    connection.execute(sql["stage_table"])
    _written(connection, sql["stage"], named, now)
    connection.execute(sql["stage_index"])
    _choose(connection, choice)
    imported = ImportedJobs(
        jobs=_one(connection, "SELECT count(*) FROM temp.named"),
        chosen=_one(connection, "SELECT total(chosen) FROM temp.named"),
        unlists_done=0 if choice.partly() else _one(connection, sql["would_unlist"]),
        done=_one(connection, "SELECT total(jobs) FROM tally WHERE listed = 1 AND state = 'done'"),
    )
    if imported.jobs and not imported.chosen:
        raise NothingSelected
    if not sure and unlists_most(imported.unlists_done, imported.done):
        raise TooManyUnlisted(imported)
    with _set_aside(connection, but="jobs_by_id"):
        if not choice.partly():
            connection.execute(sql["unlist"])
        connection.execute(sql["import_staged"], {"now": now})
    connection.execute(sql["stage_drop"])
    return imported


@contextmanager
def _set_aside(connection: sqlite3.Connection, but: str = "") -> Iterator[None]:
    """Do without indexes and sums of jobs for a while, then make them anew."""
    sql = statements("moves.sql")
    aside = [found for found in connection.execute(sql["apart"]).fetchall() if found["name"] != but]
    for kind, name, _ in aside:
        connection.execute(f"DROP {kind} {name}")
    yield
    for _, _, again in aside:
        connection.execute(again)
    connection.execute(sql["forget_tally"])
    connection.execute(sql["count_tally"])


def _written(connection: sqlite3.Connection, insert: str, named: Iterable[tuple[Spec, bool]], now: float) -> None:
    """Write the jobs many at a time, each lot in another thread while the next is read."""
    rows = _rows(named)
    with ThreadPoolExecutor(1, "import") as writer:
        last = None
        while batch := list(islice(rows, _BATCH)):
            text = dump(batch)
            if last:
                last.result()
            last = writer.submit(connection.execute, insert, {"jobs": text, "now": now})
        if last:
            last.result()


def _one(connection: sqlite3.Connection, question: str) -> int:
    return int(connection.execute(question).fetchone()[0])


def _rows(named: Iterable[tuple[Spec, bool]]) -> Iterator[tuple[object, ...]]:
    turn, row = 0, None
    for position, (spec, chosen) in enumerate(named, start=1):
        turn, row = (turn + 1 if spec.row == row else 1), spec.row
        yield (
            position,
            spec.id,
            spec.name,
            spec_facts(spec),
            spec.sample,
            spec.row,
            spec.estimated_usd,
            int(chosen),
            turn,
        )


def _choose(connection: sqlite3.Connection, choice: Choice) -> None:
    if choice.limit is not None:
        connection.execute(statements("moves.sql")["choose_first"], {"limit": choice.limit})
    if choice.sample is None:
        return
    positions, rows = array("q"), array("q")
    for position, row in connection.execute("SELECT position, row FROM temp.named WHERE chosen = 1 ORDER BY position"):
        positions.append(position)
        rows.append(row)
    kept = spread(rows, choice.sample)
    connection.execute("UPDATE temp.named SET chosen = 0")
    connection.executemany(
        "UPDATE temp.named SET chosen = 1 WHERE position = ?", ((positions[place],) for place in kept)
    )


def spread(rows: Sequence[int], wanted: int) -> list[int]:
    """Choose `wanted` of the jobs whose rows these are, as places in ascending order, spread evenly over the rows.

    Each row gives its share; which of a row's jobs are taken follows the golden ratio from row to row, so that every
    value of a matrix has its turn.
    """
    if wanted >= len(rows):
        return list(range(len(rows)))
    starts = [place for place, row in enumerate(rows) if place == 0 or row != rows[place - 1]]
    groups = [range(start, end) for start, end in pairwise([*starts, len(rows)])]
    if wanted < len(groups):
        groups = [groups[(2 * k + 1) * len(groups) // (2 * wanted)] for k in range(wanted)]
    shares = [wanted // len(groups) + (k < wanted % len(groups)) for k in range(len(groups))]
    golden = (math.sqrt(5) - 1) / 2
    chosen: set[int] = set()
    for turn, (group, share) in enumerate(zip(groups, shares, strict=True)):
        count, offset = len(group), int(turn * golden % 1 * len(group))
        chosen |= {group[(offset + k * count // share) % count] for k in range(min(share, count))}
    rest = (place for place in range(len(rows)) if place not in chosen)  # rows of few jobs leave some to the others
    chosen |= set(islice(rest, wanted - len(chosen)))
    return sorted(chosen)
