"""A manifest and a ledger of many jobs: what each command of a user takes, beside the same of a tenth of them."""

import shutil
import sqlite3
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench.common import Line, Took, ask, batcher, environment, far_side, took, write_manifest

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


def fail_half(file: Path) -> None:
    """Make every second job that is done one that failed."""
    connection = sqlite3.connect(file)
    connection.execute(
        "UPDATE jobs SET state='failed', kind='failed', message='the generation failed: internal' "
        "WHERE state = 'done' AND position % 2 = 0"
    )
    connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


MOST_MB: Final = 150
MOST_RATIO: Final = 1.2
"""Of the peak at the whole number of jobs to that at a tenth."""


def lines(rows: int) -> list[Line]:
    """Measure each command at so many jobs, and at a tenth of them."""
    (tenth, _), (whole, rest) = (measured(count) for count in (rows // 10, rows))
    found = []
    for name, took_whole in whole.items():
        ratio = took_whole.peak_mb / tenth[name].peak_mb
        found.append(
            Line(
                f"`{name}` at {rows:,} jobs, peak memory",
                f"{took_whole.peak_mb:.0f} MB, {took_whole.wall:.1f} s",
                f"at {rows // 10:,}: {tenth[name].peak_mb:.0f} MB, {tenth[name].wall:.1f} s",
                f"{ratio:.2f}",
                f"<= {MOST_RATIO}, <= {MOST_MB} MB",
                ratio <= MOST_RATIO and took_whole.peak_mb <= MOST_MB,
            )
        )
    return [*found, *rest]


def measured(rows: int) -> tuple[dict[str, Took], list[Line]]:
    """Run each command as a user gives it; say too how soon a night that is nearly over goes on."""
    with tempfile.TemporaryDirectory() as name, far_side(64, 0.05) as base:
        folder = Path(name)
        write_manifest(folder, rows)
        env = environment(base)

        def command(*words: str, good: int = 0) -> Took:
            return batcher(*words, cwd=folder, good=good, env=env)

        took_by = {"plan": command("plan", "jobs.yaml", "-o", "none")}
        took_by["run, taking all in"] = command(
            "run", "jobs.yaml", "-o", "out", "--quiet", "--max-time", "1s", "--yes", good=75
        )
        age(folder / "out" / "ledger.sqlite")
        ask(f"{base}/reset", post=True)
        begun = time.monotonic()
        took_by[f"run, {LEFT} left"] = command("run", "jobs.yaml", "-o", "out", "--quiet")
        first = ask(f"{base}/report")["first"] - begun
        took_by["plan of what is begun"] = command("plan", "jobs.yaml", "-o", "out")
        took_by["status"] = min((command("status", "out", "--json") for _ in range(5)), key=lambda one: one.wall)
        took_by["status --by"] = command("status", "out", "--by", "color")
        took_by["jobs"] = command("jobs", "out")
        took_by["jobs --json"] = command("jobs", "out", "--json")
        took_by["report"] = command("report", "out")
        shutil.copytree(folder / "out", folder / "failed")
        fail_half(folder / "failed" / "ledger.sqlite")
        took_by["jobs --rows, half of them"] = command("jobs", "failed", "--state", "failed", "--rows", "again.csv")
        took_by["retry, half of them"] = command("retry", "failed")
        empty = min((command("models", "--help") for _ in range(5)), key=lambda one: one.wall)
        plain = min((took([sys.executable, "-c", COUNT, str(folder / "out" / "ledger.sqlite")]) for _ in range(3)),
                    key=lambda one: one.wall)  # fmt: skip
    status = took_by["status"]
    return took_by, [
        Line(f"resume of {rows:,} jobs, {LEFT} left: first request", f"{first:.2f} s", f"start-up {empty.wall:.2f} s", f"{first / 0.6:.2f}", "<= 0.6 s", first <= 0.6),
        Line("`status` on it", f"{status.wall:.2f} s", f"counting rows {plain.wall:.2f} s", f"{status.wall / plain.wall:.2f}", "<= start-up + 0.2 s", status.wall <= empty.wall + 0.2),
    ]  # fmt: skip


QUESTION = "select state, count(*), total(estimated_usd) from jobs group by 1"
COUNT = f"import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('{QUESTION}').fetchall())"
