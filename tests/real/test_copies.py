"""A run directory that is copied, restored or shared stays honest: what another copy bought is not bought again."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from batcher.ledger.filesystem_check import network, synced, warnings
from batcher.ledger.submission_journal import JournalEntry, in_log, in_state_file
from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher, Until, end

PROMPTS = [f"p{n}" for n in range(6)]

pytestmark = pytest.mark.long


def stopped(batcher: Batcher) -> dict[str, object]:
    found: dict[str, object] = batcher("status", "runs/jobs", "--json").json()["stopped"]
    return found


def half_done(batcher: Batcher) -> Path:
    """Do two of six jobs; give a copy of the run directory as it was then."""
    assert batcher.run_csv(PROMPTS, "--limit", "2").code == 0
    backup = batcher.folder / "backup"
    shutil.copytree(batcher.folder / "runs/jobs", backup)
    return backup


@pytest.mark.parametrize("whole", [True, False], ids=["the whole directory", "the ledger alone"])
def test_an_older_backup_is_not_gone_on_with_unasked(batcher: Batcher, api: Api, whole: bool) -> None:
    backup = half_done(batcher)
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    assert len(api.journal) == 6
    out = batcher.folder / "runs/jobs"
    if whole:
        shutil.rmtree(out)
        shutil.copytree(backup, out)
    else:
        shutil.copy(backup / "ledger.sqlite", out / "ledger.sqlite")
    restored = batcher("run", "jobs.csv", "--model", MODEL)
    assert restored.code == 75, restored.err
    assert stopped(batcher)["reason"] == "moved"
    assert "resume runs/jobs --accept-moved" in str(stopped(batcher)["next"])
    assert "older copy" in restored.err
    assert batcher.states() == {"done": 2, "uncertain": 4}
    assert batcher("resume", "runs/jobs").code == 75, "it stands until it is accepted"
    assert len(api.journal) == 6, "nothing was bought twice"
    assert batcher("resume", "runs/jobs", "--yes").code == 75, "that answers another question"
    assert batcher("resume", "runs/jobs", "--accept-moved").code == 1
    assert batcher("resume", "runs/jobs").code == 1
    assert len(api.journal) == 6
    assert batcher("retry", "runs/jobs", "--state", "uncertain", "--yes").code == 0
    assert batcher("resume", "runs/jobs").code == 0
    assert len(api.journal) == 10


def test_a_ledger_without_its_log_of_changes_is_noticed(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 600
    process = batcher.start("run", batcher.csv(PROMPTS), "--model", MODEL, "-j", "4")
    until(lambda: len(api.journal) == 4)
    end(process)
    out = batcher.folder / "runs/jobs"
    assert (out / "ledger.sqlite-wal").exists()
    (out / "ledger.sqlite-wal").unlink()
    (out / "ledger.sqlite-shm").unlink(missing_ok=True)
    api.delay = 0.1
    found = batcher("run", "jobs.csv", "--model", MODEL)
    assert found.code == 75, found.err
    assert stopped(batcher)["reason"] == "moved"
    assert len(api.journal) == 4


@pytest.mark.long
def test_two_machines_that_both_went_on_are_told_apart(batcher: Batcher, api: Api) -> None:
    backup = half_done(batcher)
    other = {"HOME": str(batcher.folder / "other-home")}
    theirs = batcher("resume", str(backup), **other)  # selection of two: all done
    assert theirs.code == 0
    assert batcher("run", "jobs.csv", "--model", MODEL, "-o", str(backup), **other).code == 0
    assert len(api.journal) == 6
    log = [json.loads(line) for line in (backup / "run.jsonl").read_text().splitlines()]
    assert any("no record" in one.get("message", "") for one in log if one["event"] == "Noted")
    assert batcher("run", "jobs.csv", "--model", MODEL, "--limit", "3").code == 0  # one is bought here too, unknowingly
    assert len(api.journal) == 7
    shutil.rmtree(batcher.folder / "runs/jobs")
    shutil.copytree(backup, batcher.folder / "runs/jobs")
    back = batcher("run", "jobs.csv", "--model", MODEL)
    assert back.code == 75, "this machine's journal knows of a submission that their ledger lacks"
    assert batcher("resume", "runs/jobs", "--accept-moved").code == 0, "all was done there"


def test_a_copy_of_a_run_at_work_does_not_go_on_beside_it(batcher: Batcher, api: Api, until: Until) -> None:
    """Both bought what waited, and both ended well."""
    api.delay = 600
    process = batcher.start("run", batcher.csv(PROMPTS), "--model", MODEL, "-j", "2")
    until(lambda: len(api.journal) == 2)
    shutil.copytree(batcher.folder / "runs/jobs", batcher.folder / "copy")
    other = batcher("run", "jobs.csv", "--model", MODEL, "-o", "copy")
    assert other.code == 75 and "another copy" in other.err
    for command in ("pause", "retry", "cancel"):
        said = batcher(command, "copy")
        assert said.code == 75 and "another copy" in said.err, "its requests are read by nobody"
    api.delay = 0.1
    process.communicate(timeout=60)
    assert process.returncode == 0 and len(api.journal) == 6


@pytest.mark.parametrize("command", ["status", "resume", "verify", "report"])
def test_a_ledger_of_an_older_version_is_brought_forward_by_whoever_opens_it(batcher: Batcher, command: str) -> None:
    assert batcher.run_csv(["a"]).code == 0
    with sqlite3.connect(batcher.folder / "runs/jobs/ledger.sqlite") as ledger:
        for kind, name in (
            ("INDEX", "jobs_broad"),
            ("INDEX", "jobs_unlisted"),
            ("TRIGGER", "name_taken_insert"),
            ("TRIGGER", "name_taken_update"),
        ):
            ledger.execute(f"DROP {kind} {name}")
        ledger.execute("ALTER TABLE jobs DROP COLUMN turn")
        for column in ("seed", "follow", "took"):
            ledger.execute(f"ALTER TABLE attempts DROP COLUMN {column}")
        ledger.execute("DELETE FROM meta WHERE key = 'vendor'")
        ledger.execute("PRAGMA user_version = 2")
    assert batcher(command, "runs/jobs").code == 0
    assert batcher.states() == {"done": 1}


def test_an_empty_home_each_night_stops_nothing(batcher: Batcher, api: Api) -> None:
    half_done(batcher)
    again = batcher("run", "jobs.csv", "--model", MODEL, HOME=str(batcher.folder / "empty"))
    assert again.code == 0
    assert "witness" not in again.err
    unwritable = batcher("run", batcher.csv([*PROMPTS, "x"]), "--model", MODEL, XDG_STATE_HOME="/proc/nowhere")
    assert unwritable.code == 0
    assert len(api.journal) == 7


def test_a_clean_end_leaves_one_file_that_is_whole_when_copied(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    out = batcher.folder / "runs/jobs"
    assert not (out / "ledger.sqlite-wal").exists()
    with sqlite3.connect(f"file:{out}/ledger.sqlite?mode=ro&immutable=1", uri=True) as ledger:
        assert ledger.execute("SELECT count(*) FROM jobs WHERE state = 'done'").fetchone() == (1,)


def test_journals_are_read_from_either_end_and_survive_a_cut_line(tmp_path: Path) -> None:
    file = tmp_path / "w"
    seen = [JournalEntry(f"2026-11-24T00:00:{n % 60:02d}.{n:03d}Z", f"{n:016x}", 1 + n % 3) for n in range(900)]
    lines = [f"{one.at} {one.job_id} {one.attempt}\n" for one in seen]
    file.write_text("".join(lines) * 12 + lines[0][:30])
    assert list(in_state_file(file))[-900:] == seen
    assert list(in_state_file(file, backwards=True))[:900] == seen[::-1]
    assert list(in_state_file(tmp_path / "none")) == list(in_log(tmp_path / "none")) == []
    log = tmp_path / "run.jsonl"
    log.write_text(
        '{"to": "submitting", "at": "A", "job_id": "j", "attempt": 2}\n{"to":"done"}\nnot "submitting" json\n'
    )
    assert list(in_log(log)) == list(in_log(log, backwards=True)) == [JournalEntry("A", "j", 2)]


def test_network_and_synced_folders_are_known(tmp_path: Path) -> None:
    mounts = f"/dev/sda / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\n//nas/y {tmp_path}/a\\040b cifs rw 0 0\n"
    assert network(tmp_path / "runs", mounts) == "nfs4"
    assert network(tmp_path / "a b" / "runs", mounts) == "cifs"
    assert network(Path("/"), mounts) is None
    assert synced(tmp_path / "Dropbox (Studio)" / "runs") == "Dropbox (Studio)"
    assert synced(tmp_path / "dropped") is None
    assert "another program copies" in warnings(tmp_path / "OneDrive")[0]


def test_a_synced_folder_is_warned_about(batcher: Batcher) -> None:
    done = batcher.run_csv(["a"], "-o", "Dropbox/run")
    assert done.code == 0
    assert "Dropbox" in done.err and "copies" in done.err


def test_results_of_another_run_are_taken_over_and_not_bought(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(PROMPTS, "--limit", "4", "--set", "num_images=2").code == 0
    (batcher.folder / "renamed.csv").write_bytes((batcher.folder / "jobs.csv").read_bytes())
    same = ("renamed.csv", "--model", MODEL, "--set", "num_images=2")
    planned = batcher("plan", *same, "--json").json()
    assert any("runs/jobs has results of 4" in one for one in planned["warnings"])
    would = batcher("plan", *same, "--reuse", "runs/jobs", "--json").json()
    assert (would["reused"], would["cost_usd"]["estimated"]) == (4, 0.6)
    damaged = min((batcher.folder / "runs/jobs/files").glob("*-1.png"))
    damaged.write_bytes(b"scribbled over")
    done = batcher("run", *same, "--reuse", "runs/jobs")
    assert done.code == 0, done.err
    assert "3 jobs taken over from runs/jobs; 1 job with damaged files" in done.err
    assert len(api.journal) == 4 + 2, "what was paid for is fetched again, and not bought"
    states = batcher("status", "runs/renamed", "--json").json()
    assert states["states"]["done"] == 6
    assert states["cost_usd"]["billed"] == pytest.approx(3 * 0.24), "what was taken over whole costs nothing here"
    found = [json.loads(file.read_text()) for file in (batcher.folder / "runs/renamed/files").glob("*.json")]
    assert len(found) == 12
    taken = [one for one in found if "reused" in one]
    assert len(taken) == 6
    for one in taken:
        assert one["cost_usd"] == {"estimated": 0.0, "billed": 0.0}
        assert one["reused"]["directory"] == str((batcher.folder / "runs/jobs").resolve())
        there = (batcher.folder / "runs/jobs" / one["reused"]["file"]).read_bytes()
        assert (batcher.folder / "runs/renamed" / one["output"]["file"]).read_bytes() == there
    assert batcher("verify", "runs/renamed").code == 0
    assert batcher("run", *same, "--reuse", "runs/nowhere").code == 66
    assert not list((batcher.folder / "runs/renamed").glob(".*"))


def test_a_run_says_when_another_has_its_results(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(PROMPTS[:2]).code == 0
    (batcher.folder / "again.csv").write_bytes((batcher.folder / "jobs.csv").read_bytes())
    assert "runs/jobs has results of 2 jobs" in batcher("run", "again.csv", "--model", MODEL, "--max-cost", "0").err
    assert len(api.journal) == 2


def test_a_lost_ledger_is_rebuilt_from_the_sidecars(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(PROMPTS, "--limit", "4").code == 0
    out = batcher.folder / "runs/jobs"
    (out / "ledger.sqlite").unlink()
    refused = batcher("run", "jobs.csv", "--model", MODEL)
    assert refused.code == 64
    assert "--reuse runs/jobs -o runs/jobs" in refused.err
    assert not (out / "ledger.sqlite").exists()
    rebuilt = batcher("run", "jobs.csv", "--model", MODEL, "--reuse", "runs/jobs", "-o", "runs/jobs", "--limit", "4")
    assert len(api.journal) == 4
    found = batcher("status", "runs/jobs", "--json").json()
    assert found["states"]["done"] == 4
    assert found["cost_usd"]["billed"] == pytest.approx(0.48), "what it cost is known again"
    assert rebuilt.code == 0, "all that its log knows to be submitted is there again"
    assert batcher("run", "jobs.csv", "--model", MODEL, "-o", "runs/jobs").code == 0
    assert len(api.journal) == 6
    (out / "ledger.sqlite").unlink()
    next(iter((out / "files").glob("*.png"))).unlink()
    again = batcher("run", "jobs.csv", "--model", MODEL, "--reuse", "runs/jobs", "-o", "runs/jobs")
    assert again.code == 0, again.err
    assert batcher.states() == {"done": 6}
    assert len(api.journal) == 6, "the file that was lost is fetched again, and not bought"
    (out / "ledger.sqlite").unlink()
    lost = next(iter((out / "files").glob("*.json")))
    lost.unlink()
    lost.with_suffix(".png").unlink()
    forgotten = batcher("run", "jobs.csv", "--model", MODEL, "--reuse", "runs/jobs", "-o", "runs/jobs")
    assert forgotten.code == 75, (
        "nothing but the log knows of one: it may have been paid for, and is not bought unasked"
    )
    assert batcher.states() == {"done": 5, "uncertain": 1}
    assert len(api.journal) == 6
    sidecars = [json.loads(file.read_text()) for file in (out / "files").glob("*.json")]
    assert {one["cost_usd"]["billed"] for one in sidecars} == {0.12}


def test_a_job_with_a_file_or_a_sidecar_missing_is_fetched_again_and_not_bought(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(PROMPTS[:2], "--set", "num_images=2").code == 0
    files = batcher.folder / "runs/jobs/files"
    min(files.glob("*-1.png")).unlink()
    max(files.glob("*-2.json")).unlink()
    odd = json.loads(min(files.glob("*-1.json")).read_text())
    (files / "odd.json").write_text(json.dumps({**odd, "timing": "x", "output": {**odd["output"], "width": "wide"}}))
    done = batcher("run", "jobs.csv", "--model", MODEL, "--set", "num_images=2", "-o", "new", "--reuse", "runs/jobs")
    assert done.code == 0, done.err
    assert batcher.states("new") == {"done": 2}
    assert len(api.journal) == 2
    assert batcher("verify", "new").code == 0


def test_what_is_taken_over_makes_no_other_job_give_way(batcher: Batcher, api: Api) -> None:
    manifest = (
        f"model: {MODEL}\ninputs: {{image_urls: ['https://i.invalid/x.png']}}\noutput: {{name: '{{{{ n }}}}'}}\njobs:\n"
    )
    two, one = "  - {prompt: a, n: a, num_images: 2}\n", "  - {prompt: b, n: a-1}\n"
    (batcher.folder / "old.yaml").write_text(manifest + two)
    (batcher.folder / "new.yaml").write_text(manifest + one)
    assert batcher("run", "old.yaml").code == 0
    assert batcher("run", "new.yaml").code == 0
    taken = (batcher.folder / "runs/new/files/a-1.png").read_bytes()
    (batcher.folder / "new.yaml").write_text(manifest + one + two)
    assert batcher("run", "new.yaml", "--reuse", "runs/old").code in {0, 65}
    assert (batcher.folder / "runs/new/files/a-1.png").read_bytes() == taken
    assert batcher("verify", "runs/new").code == 0
    assert len(api.journal) == 2


def test_an_older_copy_is_accepted_though_the_clock_was_ahead(batcher: Batcher, api: Api) -> None:
    backup = half_done(batcher)
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    out = batcher.folder / "runs/jobs"
    ahead = (out / "run.jsonl").read_text().replace('"at": "20', '"at": "21')
    witness = next(iter((batcher.folder.parent / "home/.local/state/batcher").iterdir()))
    witness.write_text("".join("21" + line[2:] for line in witness.read_text().splitlines(keepends=True)))
    shutil.copy(backup / "ledger.sqlite", out / "ledger.sqlite")
    (out / "run.jsonl").write_text(ahead)
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 75
    assert batcher("resume", "runs/jobs", "--accept-moved").code == 1
    assert batcher("resume", "runs/jobs").code == 1, "once accepted, it stays so"
    assert len(api.journal) == 6


async def test_a_slow_reader_keeps_no_writer_from_its_commit(tmp_path: Path) -> None:
    """Where there is no shared memory the journal is rolled back, and an open question holds the writer."""
    from batcher.clock import Clock
    from batcher.ledger.database import open_threaded
    from batcher.ledger.import_jobs import Choice, import_jobs
    from batcher.ledger.ledger import Ledger
    from batcher.ledger.reader import Reader
    from tests.nights.play import Scenario, specs

    ledger = Ledger(await open_threaded(tmp_path / "ledger.sqlite"), Clock())
    await ledger.open()
    named = [(spec, True) for spec in specs(Scenario(jobs=1200))]
    await ledger.transact(lambda connection: import_jobs(connection, named, Choice(), 0.0, sure=True), bound=False)
    database = ledger._database
    await database._execute(lambda: database._conn.execute("PRAGMA journal_mode = DELETE").fetchall())  # type: ignore[attr-defined]
    with Reader(tmp_path) as reader:
        jobs = reader.jobs()
        first = next(jobs)
        await ledger.put_meta({"written": "while it is read"})
        assert [job.spec.row for job, _ in [first, *jobs]] == list(range(1, 1201))
    await ledger.close()
