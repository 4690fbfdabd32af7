"""A ledger of an earlier version is killed at each call with which it is brought forward: it is old or new, and whole."""

import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from batcher.ledger.database import in_transaction
from batcher.ledger.ledger import MIGRATIONS, _split, migrate
from batcher.ledger.sql import script
from tests.crashes.batch import ROOT

CALLS = "pwrite64,fdatasync,fsync,ftruncate,unlink,openat"
FORWARD = """
import sys
from pathlib import Path
from batcher.ledger.database import _connected, fold, in_transaction
from batcher.ledger.ledger import migrate
connection = _connected(Path(sys.argv[1]))
in_transaction(connection, migrate)
fold(connection)
connection.close()
"""


def old_ledger(file: Path) -> None:
    connection = sqlite3.connect(file, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("BEGIN")
    for statement in _split(script(MIGRATIONS[0])):
        connection.execute(statement)
    connection.execute("PRAGMA user_version = 1")
    for n in range(40):
        connection.execute(
            "INSERT INTO jobs (id, position, name, spec, sample, estimated_usd, state, attempt, request_id, created_at) "
            "VALUES (?, ?, 'n', '{}', 1, 0.1, 'running', 1, ?, 0)", (str(n), n, f"r{n}"))  # fmt: skip
        connection.execute(
            "INSERT INTO attempts VALUES (?, 1, ?, 0, 0, NULL, 'open', 0.1, NULL, NULL)", (str(n), f"r{n}")
        )
    connection.execute("COMMIT")
    connection.close()


def forward(file: Path, *before: str) -> int:
    command = [*before, sys.executable, "-c", FORWARD, str(file)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False).returncode


@pytest.mark.long
@pytest.mark.skipif(not shutil.which("strace"), reason="strace tells when a call is made")
def test_a_kill_at_any_call_of_a_migration_leaves_the_old_ledger_or_the_new_one(tmp_path: Path) -> None:
    file, trace = tmp_path / "l.sqlite", tmp_path / "trace"
    old_ledger(file)
    watched = [part for name in ("", "-wal", "-shm") for part in ("-P", f"{file}{name}")]
    shutil.copy(file, tmp_path / "kept")
    assert forward(file, "strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={CALLS}", *watched) == 0
    counted = Counter(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    deaths: Counter[int] = Counter()
    for name, number in ((name, n) for name, count in counted.items() for n in range(1, count + 1)):
        for left in tmp_path.glob("l.sqlite*"):
            left.unlink()
        shutil.copy(tmp_path / "kept", file)
        inject = ("-e", f"trace={name}", *watched, f"--inject={name}:signal=SIGKILL:when={number}")
        assert forward(file, "strace", "-f", "-qq", "-o", "/dev/null", *inject) in {-9, 137}, (name, number)
        connection = sqlite3.connect(file, isolation_level=None)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        deaths[version] += 1
        in_transaction(connection, migrate)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], (name, number)
        assert connection.execute("SELECT jobs FROM tally").fetchall() == [(40,)], (name, number)
        kept = connection.execute("SELECT request_id FROM attempts").fetchall()
        assert sorted(kept) == sorted((f"r{n}",) for n in range(40)), (name, number)
        connection.close()
    assert set(deaths) == {1, len(MIGRATIONS)} and sum(deaths.values()) > 20, deaths
