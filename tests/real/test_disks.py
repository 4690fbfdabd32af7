"""Full and failing disks: what is paid for is saved, the run says so, and goes on when there is room."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from batcher.clock import Clock
from batcher.job import Move, State
from batcher.ledger.database import open_threaded
from batcher.ledger.import_jobs import Choice, import_jobs
from batcher.ledger.ledger import Ledger
from batcher.ledger.reader import Reader
from batcher.ledger.reserved_space import ReservedSpace
from tests.nights.play import Scenario, specs
from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher, Until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root only")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 16 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Fill a disk but for so many bytes."""
    file = folder / "filler"
    free = shutil.disk_usage(folder).free
    with file.open("wb") as opened:
        os.posix_fallocate(opened.fileno(), 0, max(1, free - leave))
    return file


def grow(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@pytest.mark.long
def test_a_run_on_a_disk_that_fills_up_stops_and_goes_on_when_there_is_room(
    batcher: Batcher, api: Api, disk: Path
) -> None:
    api.bulk = 400_000
    prompts = [f"p{n}" for n in range(60)]
    full = batcher.run_csv(prompts, "-o", str(disk / "out"), "-j", "8")
    assert full.code == 75, full.err
    stopped = batcher("status", str(disk / "out"), "--json").json()["stopped"]
    assert stopped["reason"] == "disk"
    accepted = len(api.journal)
    assert 5 < accepted < 60
    assert set(batcher.states(str(disk / "out"))) <= {"pending", "running", "fetching", "done"}
    grow(disk, "64m")
    assert batcher("resume", str(disk / "out")).code == 0
    assert batcher.states(str(disk / "out")) == {"done": 60}
    assert len(api.journal) == 60, "nothing is bought twice, nothing was lost"
    assert batcher("verify", str(disk / "out")).code == 0


def test_a_disk_that_is_full_before_the_start_costs_nothing(batcher: Batcher, api: Api, disk: Path) -> None:
    filler = fill(disk, 600_000)
    done = batcher.run_csv(["a", "b"], "-o", str(disk / "out"))
    assert done.code == 75, done.err
    assert api.journal == []
    filler.unlink()
    assert batcher("run", "jobs.csv", "--model", MODEL, "-o", str(disk / "out")).code == 0


def test_a_disk_without_any_room_is_said_plainly(batcher: Batcher, api: Api, disk: Path) -> None:
    fill(disk, 0)
    done = batcher.run_csv(["a"], "-o", str(disk / "out"))
    assert done.code == 75
    assert "bug" not in done.err
    assert api.journal == []


def test_a_read_only_disk_is_said_plainly(batcher: Batcher, api: Api, disk: Path) -> None:
    assert batcher.run_csv(["a"], "-o", str(disk / "out")).code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = batcher("run", batcher.csv(["a", "b"]), "--model", MODEL, "-o", str(disk / "out"))
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert done.code == 75, done.err
    assert "bug" not in done.err
    assert len(api.journal) == 1


def test_a_disk_out_of_inodes_stops_and_goes_on(batcher: Batcher, api: Api, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=40", "none", str(folder)], check=True)
    try:
        done = batcher.run_csv([f"p{n}" for n in range(30)], "-o", str(folder / "out"), "-j", "4")
        assert done.code == 75, done.err
        assert batcher("status", str(folder / "out"), "--json").json()["stopped"]["reason"] == "disk"
        subprocess.run(["mount", "-o", "remount,nr_inodes=400", str(folder)], check=True)
        assert batcher("resume", str(folder / "out")).code == 0
        assert len(api.journal) == 30
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def ledger_on(disk: Path, *, reserved_space: bool) -> Ledger:
    """Open a ledger with three jobs whose submissions are on their way."""
    ledger = Ledger(await open_threaded(disk / "ledger.sqlite"), Clock())
    await ledger.open()
    named = [(spec, True) for spec in specs(Scenario(jobs=3))]
    await ledger.transact(lambda connection: import_jobs(connection, named, Choice(), 0.0, sure=True), bound=False)
    for job in await ledger.waiting(3):
        await ledger.record(job, Move(State.SUBMITTING))
    if reserved_space:
        ledger.reserved_space = ReservedSpace(disk)
        ledger.reserved_space.load()
        assert (disk / "ledger.ballast").stat().st_size > 1_000_000
    return ledger


async def accept(ledger: Ledger) -> list[str]:
    jobs = await ledger.under_way(State.SUBMITTING)
    moves = [Move(State.RUNNING, request_id=f"r-{n}", message="x" * 20_000) for n in range(len(jobs))]
    moved = await asyncio.gather(*(ledger.record(job, move) for job, move in zip(jobs, moves, strict=True)))
    return [job.request_id or "" for job in moved]


def on_disk(disk: Path) -> list[str]:
    with Reader(disk) as reader:
        return sorted(job.request_id or "" for job, _ in reader.jobs("running"))


async def test_the_ballast_makes_room_for_request_ids(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = await ledger_on(disk, reserved_space=True)
    fill(disk, 0)
    assert await asyncio.wait_for(accept(ledger), 20) == ["r-0", "r-1", "r-2"]
    assert on_disk(disk) == ["r-0", "r-1", "r-2"]
    assert not (disk / "ledger.ballast").exists()
    assert capsys.readouterr().err == ""
    await ledger.close()


async def test_an_id_that_cannot_be_saved_is_printed_and_saved_when_there_is_room(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = await ledger_on(disk, reserved_space=False)
    filler = fill(disk, 0)
    saving = asyncio.create_task(accept(ledger))
    said = ""
    async with asyncio.timeout(20):
        while not all(f"request id r-{n}, which cannot be saved" in said for n in range(3)):
            await asyncio.sleep(0.01)
            said += capsys.readouterr().err
    assert not saving.done()
    with pytest.raises(Exception, match="could not be written"):
        await ledger.record((await ledger.under_way(State.SUBMITTING))[0], Move(State.PENDING, message="y" * 50_000))
    filler.unlink()
    assert sorted(await asyncio.wait_for(saving, 20)) == ["r-0", "r-1", "r-2"]
    assert on_disk(disk) == ["r-0", "r-1", "r-2"]
    await ledger.close()


async def test_an_id_that_the_ledger_refuses_is_printed_once_and_not_said_to_be_tried_again(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger = await ledger_on(disk, reserved_space=False)
    with contextlib.closing(sqlite3.connect(disk / "ledger.sqlite")) as other:
        other.execute("CREATE TRIGGER broken BEFORE UPDATE ON jobs BEGIN SELECT RAISE(ABORT, 'it is broken'); END")
    with pytest.raises(sqlite3.IntegrityError, match="it is broken"):
        await accept(ledger)
    await ledger.close()
    said = capsys.readouterr().err
    assert [said.count(f"request id r-{n}, which cannot be saved (it is broken)") for n in range(3)] == [1, 1, 1]
    assert "tried again" not in said


@pytest.mark.long
def test_a_run_directory_that_is_moved_away_stops_the_run_and_loses_nothing(
    batcher: Batcher, api: Api, until: Until
) -> None:
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(60)]), "--model", MODEL, "-j", "4")
    until(lambda: len(api.journal) >= 10)
    out, elsewhere = batcher.folder / "runs/jobs", batcher.folder / "elsewhere"
    out.rename(elsewhere)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 75, err
    elsewhere.rename(out)
    assert "uncertain" not in batcher.states()
    assert batcher("resume", "runs/jobs").code == 0
    assert batcher.states() == {"done": 60} and len(api.journal) == 60


async def test_a_connection_that_the_disk_failed_is_opened_anew_and_checked(disk: Path) -> None:
    database = await open_threaded(disk / "l.sqlite")
    await database.transact(lambda connection: connection.execute("CREATE TABLE t (x)").rowcount)
    first = database._conn
    filler = fill(disk, 0)
    with pytest.raises(sqlite3.OperationalError):
        await database.transact(
            lambda connection: connection.execute("INSERT INTO t VALUES (zeroblob(900000))").rowcount
        )
    assert database._conn is first
    filler.unlink()
    await database.transact(lambda connection: connection.execute("INSERT INTO t VALUES (zeroblob(900000))").rowcount)
    assert database._conn is not first
    await database.close()
