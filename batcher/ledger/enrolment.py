"""Takes a manifest's jobs into the ledger, as a stream, all of them or none."""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from batcher.job import Spec
from batcher.ledger.rows import spec_text
from batcher.ledger.sql import statements

_BATCH = 5_000


@dataclass(frozen=True, slots=True)
class Choice:
    """Which of the jobs a run works on: the first `limit`, or `sample` of them spread evenly."""

    limit: int | None = None
    sample: int | None = None


@dataclass(frozen=True, slots=True)
class Enrolled:
    """What came of it."""

    jobs: int
    chosen: int
    unlists_done: int
    """Finished jobs that the manifest no longer names."""
    done: int
    """Finished jobs, before."""


class TooManyUnlisted(Exception):
    """The edit would leave out more than half of what is done."""

    def __init__(self, enrolled: Enrolled) -> None:
        super().__init__(f"{enrolled.unlists_done} of {enrolled.done} finished jobs are no longer named")
        self.enrolled = enrolled


def enrol(
    connection: sqlite3.Connection,
    named: Iterable[tuple[Spec, bool]],
    choice: Choice,
    now: float,
    *,
    sure: bool,
) -> Enrolled:
    """Stage the jobs (each with whether `--where` chose it), then take them over. Raises what the stream raises."""
    sql = statements("moves.sql")
    connection.execute(sql["stage_table"])
    connection.execute(sql["stage_clear"])
    rows = _rows(named)
    while batch := list(islice(rows, _BATCH)):
        connection.executemany(sql["stage"], batch)
    chosen = _choose(connection, choice)
    enrolled = Enrolled(
        jobs=connection.execute("SELECT count(*) FROM temp.named").fetchone()[0],
        chosen=chosen,
        unlists_done=connection.execute(sql["would_unlist"]).fetchone()[0],
        done=connection.execute("SELECT count(*) FROM jobs WHERE listed = 1 AND state = 'done'").fetchone()[0],
    )
    if not sure and enrolled.unlists_done * 2 > enrolled.done:
        raise TooManyUnlisted(enrolled)
    connection.execute(sql["unlist"])
    connection.execute(sql["enrol"], {"now": now})
    connection.execute(sql["stage_clear"])
    return enrolled


def _rows(named: Iterable[tuple[Spec, bool]]) -> Iterator[dict[str, object]]:
    for position, (spec, chosen) in enumerate(named, start=1):
        yield {
            "id": spec.id,
            "position": position,
            "name": spec.name,
            "spec": spec_text(spec),
            "sample": spec.sample,
            "estimated_usd": spec.estimated_usd,
            "chosen": int(chosen),
        }


def _choose(connection: sqlite3.Connection, choice: Choice) -> int:
    found = [row[0] for row in connection.execute("SELECT position FROM temp.named WHERE chosen = 1 ORDER BY position")]
    if choice.limit is None and choice.sample is None:
        return len(found)
    kept = found if choice.limit is None else found[: choice.limit]
    if choice.sample is not None:
        kept = [kept[index] for index in spread(len(kept), choice.sample)]
    connection.execute("UPDATE temp.named SET chosen = 0")
    connection.executemany("UPDATE temp.named SET chosen = 1 WHERE position = ?", [(one,) for one in kept])
    return len(kept)


def spread(total: int, wanted: int) -> list[int]:
    """Choose `wanted` of `total` places evenly, without falling into step with anything that repeats.

    One place in each of `wanted` equal stretches; where in its stretch follows the golden ratio, so that
    every value of a matrix has its turn.
    """
    if wanted >= total:
        return list(range(total))
    golden = (math.sqrt(5) - 1) / 2
    edges = [k * total // wanted for k in range(wanted + 1)]
    return [start + int((k * golden) % 1 * (end - start)) for k, (start, end) in enumerate(pairwise(edges))]
