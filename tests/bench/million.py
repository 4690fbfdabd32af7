"""A ledger of many jobs with few left: how soon it goes on, and how soon it says where it stands."""

import sqlite3
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.common import Line, ask, batcher, environment, far_side, took, write_manifest

LEFT = 100


def age(file: Path) -> None:
    """Make all jobs done but the last hundred, as a night would have."""
    connection = sqlite3.connect(file)
    connection.execute("UPDATE jobs SET state='done', kind=NULL, message=NULL, settled_at=2, attempt=1, request_id='r'||id, submitted_at=1, "
                       "running_since=1, completed_at=2 WHERE state = 'pending' AND position <= (SELECT count(*) FROM jobs) - ?", (LEFT,))  # fmt: skip
    connection.execute("INSERT OR IGNORE INTO attempts SELECT id, 1, request_id, 1, 1, 2, 'done', estimated_usd, 0.1, NULL "
                       "FROM jobs WHERE state='done'")  # fmt: skip
    connection.execute("INSERT OR IGNORE INTO outputs SELECT id, 1, 1, 'https://x.example/'||id, 'files/'||name||'.png', 9, 'h', "
                       "'image/png', 1, 1, 2 FROM jobs WHERE state='done'")  # fmt: skip
    connection.execute("INSERT INTO events (at, job_id, type, facts) SELECT 2, id, 'Moved', "
                       "'{\"to\":\"done\"}' FROM jobs WHERE state='done'")  # fmt: skip
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def lines(rows: int) -> list[Line]:
    """Measure them. Start-up of the interpreter and imports is in each figure, and beside it."""
    with tempfile.TemporaryDirectory() as name, far_side(64, 0.05) as base:
        folder = Path(name)
        write_manifest(folder, rows)
        env = environment(base)
        batcher("run", "jobs.yaml", "-o", "out", "--quiet", "--max-time", "1s", "--yes", cwd=folder, good=75, env=env)
        age(folder / "out" / "ledger.sqlite")
        ask(f"{base}/reset", post=True)
        begun = time.monotonic()
        batcher("run", "jobs.yaml", "-o", "out", "--quiet", cwd=folder, env=env)
        report = ask(f"{base}/report")
        first = report["first"] - begun
        looked = min((batcher("status", "out", "--json", cwd=folder) for _ in range(5)), key=lambda one: one.wall)
        empty = min((batcher("models", "--help", cwd=folder) for _ in range(5)), key=lambda one: one.wall)
        plain = min((took([sys.executable, "-c", COUNT, str(folder / "out" / "ledger.sqlite")]) for _ in range(3)),
                    key=lambda one: one.wall)  # fmt: skip
    return [
        Line(f"resume of {rows:,} jobs, {LEFT} left: first request", f"{first:.2f} s", f"start-up {empty.wall:.2f} s", f"{first / 0.6:.2f}", "<= 0.6 s", first <= 0.6),
        Line("`status` on it", f"{looked.wall:.2f} s", f"counting rows {plain.wall:.2f} s", f"{looked.wall / plain.wall:.2f}", "<= start-up + 0.2 s", looked.wall <= empty.wall + 0.2),
    ]  # fmt: skip


QUESTION = "select state, count(*), total(estimated_usd) from jobs group by 1"
COUNT = f"import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('{QUESTION}').fetchall())"
