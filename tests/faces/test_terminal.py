"""What people and programs are told on the command line."""

import csv
import fcntl
import json
import os
import pty
import sqlite3
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher


@pytest.mark.parametrize(
    "command",
    ["", "run", "plan", "resume", "status", "jobs", "retry", "cancel", "models", "sandbox", "init"],
)
def test_every_command_has_help(batcher: Batcher, command: str) -> None:
    done = batcher(*command.split(), "--help")
    assert done.code == 0
    assert len(done.out.splitlines()) > 5


def test_a_wrong_argument_is_64_and_names_the_right_one(batcher: Batcher) -> None:
    assert batcher("run", "--concurency", "3").code == 64
    assert batcher("rnu").code == 64
    assert batcher("run", "gone.yaml").code == 66
    assert batcher("status", "gone").code == 66
    assert batcher("resume", "gone").code == 66
    assert batcher("retry", "gone").code == 66
    assert batcher("cancel", "gone").code == 66
    assert "did you mean `failed`?" in batcher("jobs", "gone", "--state", "faled").err
    assert batcher("jobs", "gone", "--kind", "odd").code == 64
    assert batcher("retry", "gone", "--state", "done").code == 64
    assert batcher("run", "m.csv", "--set", "oops").code == 64
    assert batcher("--version").out.startswith("batcher ")


def test_faults_go_to_standard_error_and_into_the_plan(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\ninptus: {{}}\n")
    done = batcher("run", "m.yaml")
    assert (done.code, done.out) == (65, "")
    assert "m.yaml:2: inptus: is not a key of a manifest; did you mean `inputs`?" in done.err
    plan = batcher("plan", "m.yaml", "--json")
    assert plan.code == 65
    assert plan.json()["fault_count"] == 1
    assert plan.json()["faults"][0]["line"] == 2
    assert not (batcher.folder / "runs").exists() or not any((batcher.folder / "runs").iterdir())
    assert api.requests == []
    (batcher.folder / "n.yaml").write_text("inputs: {}\n")
    assert "model: is missing" in batcher("run", "n.yaml").err
    (batcher.folder / "c.yaml").write_text("model: a/b\ninputs: {}\nlimits: {max_cost_usd: 1}\n")
    api.catalogue["a/b"] = {"model_id": "a/b", "input_schema": {"type": "object", "properties": {}}}
    assert "the price of a/b is not known" in batcher("run", "c.yaml").err


def test_a_plan_with_a_bad_row_still_says_whose_it_is(batcher: Batcher) -> None:
    batcher.csv(["a", "b"])
    with (batcher.folder / "jobs.csv").open("a") as file:
        file.write("c,nowhere.png\n")
    plan = batcher("plan", "jobs.csv", "--model", MODEL, "--json").json()
    assert (plan["name"], plan["jobs"], plan["fault_count"]) == ("jobs", 2, 1)


def test_faults_leave_a_run_that_is_there_as_it_was(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    (batcher.folder / "jobs.csv").write_text("prompt,image_urls\nb,nowhere.png\n")
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 65
    assert batcher.states() == {"done": 1}
    assert batcher("status", "runs/jobs", "--json").json()["unlisted"] == 0


def test_a_plan_says_what_a_run_would_do_and_makes_nothing(batcher: Batcher, api: Api) -> None:
    manifest = batcher.csv(["a", "b"])
    with (batcher.folder / manifest).open("a") as file:
        file.write("a,https://images.invalid/0.png\n")
    done = batcher("plan", manifest, "--model", MODEL, "-j", "7")
    assert done.code == 0
    for words in (
        "3 jobs from 3 rows",
        "1 equal to earlier rows",
        "$0.45",
        "assumed",
        "concurrency = 7  (from the option)",
    ):
        assert words in done.out
    sampled = batcher("run", "--dry-run", manifest, "--model", MODEL, "--sample", "2", "--json").json()
    assert (sampled["jobs"], sampled["selected"], sampled["cost_usd"]["estimated"]) == (3, 2, 0.3)
    assert not (batcher.folder / "runs").exists()
    assert api.requests == []


def test_bad_rows_are_set_aside_with_their_reasons(batcher: Batcher) -> None:
    batcher.csv(["a"])
    with (batcher.folder / "jobs.csv").open("a") as file:
        file.write("=HYPERLINK(1),nowhere.png\n")
    done = batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid")
    assert done.code == 0, done.err
    lines = (batcher.folder / "runs/jobs/rejected.csv").read_text().splitlines()
    assert lines == ["prompt,image_urls,reason", "'=HYPERLINK(1),nowhere.png,image_urls: nowhere.png does not exist"]
    assert batcher("status", "runs/jobs", "--json").json()["rejected"] == 1


def test_reasons_stay_where_every_row_was_rejected(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "rows.jsonl").write_text('{"prompt": "a"\n[1]\n{"prompt": "b"}\n')
    done = batcher("run", "rows.jsonl", "--model", MODEL, "--skip-invalid")
    assert done.code == 65 and "every row was rejected" in done.err
    with (batcher.folder / "runs/rows/rejected.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows] == ["row", '{"prompt": "a"', "[1]", '{"prompt": "b"}']
    assert "is missing" in rows[3][1]
    assert [one.name for one in (batcher.folder / "runs/rows").iterdir()] == ["rejected.csv"]


def test_a_start_that_is_refused_leaves_the_reasons_of_an_earlier_one(batcher: Batcher, api: Api) -> None:
    batcher.csv([f"p{n}" for n in range(20)])
    with (batcher.folder / "jobs.csv").open("a") as file:
        file.write("b,nowhere.png\n")
    assert batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid").code == 0
    reasons = (batcher.folder / "runs/jobs/rejected.csv").read_text()
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 65
    (batcher.folder / "jobs.csv").write_text("prompt,image_urls\nother,https://i.invalid/1.png\nc,nowhere.png\n")
    assert batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid").code == 64, "it would unlist what is done"
    assert (batcher.folder / "runs/jobs/rejected.csv").read_text() == reasons
    assert not (batcher.folder / "runs/jobs/.rejected.csv").exists()


@pytest.mark.long
def test_a_reader_that_goes_away_changes_no_exit_code(batcher: Batcher) -> None:
    assert batcher.run_csv([f"p{n}" for n in range(30)]).code == 0
    for command in ("jobs runs/jobs", "plan jobs.csv --model " + MODEL, "verify runs/jobs --json", "--help"):
        shell = ["bash", "-c", f'set -o pipefail; "$0" -m batcher {command} | true', sys.executable]
        done = subprocess.run(shell, cwd=batcher.folder, env=batcher.environ, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b""), command


@pytest.mark.parametrize("wrong", [["--bogus"], ["-j", "0"], ["--set", "foo"], ["--max-time", "0"]])
def test_arguments_that_are_wrong_end_with_an_event_too(batcher: Batcher, wrong: list[str]) -> None:
    done = batcher.run_csv(["a"], "--json", *wrong)
    (event,) = done.lines()
    assert (done.code, event["exit_code"], event["stopped"]["reason"]) == (64, 64, "usage")


def test_cells_beyond_the_header_are_kept_with_the_reason(batcher: Batcher, api: Api) -> None:
    batcher.csv(["a"])
    with (batcher.folder / "jobs.csv").open("a") as file:
        file.write("b,https://i.invalid/1.png,this,that\n")
    assert batcher("run", "jobs.csv", "--model", MODEL, "--skip-invalid").code == 0
    last = (batcher.folder / "runs/jobs/rejected.csv").read_text().splitlines()[-1]
    assert last == 'b,https://i.invalid/1.png,"has 4 cells, the header has 2 (beyond it: this, that)"'


def test_json_is_utf_8_whatever_the_terminal_speaks(batcher: Batcher) -> None:
    done = batcher.run_csv(["Größe"], "--json", PYTHONIOENCODING="ascii")
    assert done.code == 0 and "größe" in done.lines()[1]["name"]


def test_a_run_that_cannot_be_written_can_be_read(batcher: Batcher) -> None:
    """An archive, or another user's; root may write anything, so the disk itself is made read-only."""
    if os.geteuid() != 0:
        pytest.skip("mounted by root only")
    assert batcher.run_csv(["a", "b"]).code == 0
    out = batcher.folder / "runs/jobs"
    for options in (["--bind", str(out), str(out)], ["-o", "remount,bind,ro", str(out)]):
        subprocess.run(["mount", *options], check=True)
    try:
        assert batcher.states() == {"done": 2}
        assert len(batcher("jobs", "runs/jobs").out.splitlines()) >= 2
        assert batcher("verify", "runs/jobs").code == 0
        assert batcher("retry", "runs/jobs", "--again", "--yes").code == 75, "and not be written"
    finally:
        subprocess.run(["umount", "-l", str(out)], check=True)


def test_a_plan_says_that_the_directory_is_anothers(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    (batcher.folder / "sub").mkdir()
    assert batcher("run", "sub/../jobs.csv", "--model", MODEL).code == 0, "the same file by another way"
    (batcher.folder / "sub/jobs.csv").write_text((batcher.folder / "jobs.csv").read_text())
    assert batcher("run", "sub/jobs.csv", "--model", MODEL).code == 64
    assert "runs/jobs belongs to" in batcher("plan", "sub/jobs.csv", "--model", MODEL).out


def test_what_cannot_work_is_said_at_once(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"], "--reuse", "nowhere").code == 66
    bare = batcher.run_csv(["a"], RUNCOMFY_MODEL_API_BASE="api.example/v1")
    assert bare.code == 64 and "does not begin with https://" in bare.err
    assert not (batcher.folder / "runs").exists() or not any((batcher.folder / "runs").iterdir())


def test_a_retry_of_what_is_not_selected_says_so(batcher: Batcher) -> None:
    assert batcher.run_csv(["FAIL", "b"]).code == 1
    assert batcher("run", "jobs.csv", "--model", MODEL, "--where", "prompt == 'b'").code == 0
    done = batcher("retry", "runs/jobs")
    assert "1 job of these wait until `run` selects them" in done.out


def test_a_manifest_can_come_from_standard_input(batcher: Batcher) -> None:
    text = f"model: {MODEL}\nname: piped\ninputs: {{prompt: a, image_urls: [https://i.invalid/1.png]}}\n"
    assert batcher("run", "-", stdin=text).code == 0
    assert batcher.states("runs/piped") == {"done": 1}
    assert batcher("run", "-", stdin=text.replace("name: piped\n", "")).code == 64


def test_another_manifest_on_the_same_directory_is_refused_unless_named(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    other = batcher.folder / "other"
    other.mkdir()
    (other / "jobs.csv").write_text("prompt,image_urls\nb,https://i.invalid/1.png\n")
    assert batcher("run", "other/jobs.csv", "--model", MODEL).code == 64
    assert batcher("run", "other/jobs.csv", "--model", MODEL, "-o", "runs/jobs", "--yes").code == 0


def test_a_ledger_that_cannot_be_trusted_is_named_and_left_alone(batcher: Batcher) -> None:
    assert batcher.run_csv(["a"]).code == 0
    ledger = batcher.folder / "runs/jobs/ledger.sqlite"
    connection = sqlite3.connect(ledger)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    newer = batcher("resume", "runs/jobs")
    assert newer.code == 65
    assert "newer batcher" in newer.err
    assert batcher("status", "runs/jobs").code == 65
    ledger.write_bytes(b"not a database, but long enough to look at" * 100)
    damaged = ledger.read_bytes()
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 65
    assert batcher("status", "runs/jobs").code == 65
    assert ledger.read_bytes() == damaged
    ledger.unlink()
    lost = batcher("run", "jobs.csv", "--model", MODEL)
    assert lost.code == 64
    assert "no ledger that says what they cost" in lost.err


def test_ledger_and_log_are_private_and_the_log_is_json(batcher: Batcher) -> None:
    assert batcher.run_csv(["a\x1b[31m evil"]).code == 0
    out = batcher.folder / "runs/jobs"
    for name in ("ledger.sqlite", "run.jsonl"):
        assert (out / name).stat().st_mode & 0o777 == 0o600
    entries = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in entries][:2] == ["Started", "Moved"]
    assert {"at", "level", "job_id", "request_id", "to"} <= entries[2].keys()
    summary = json.loads((out / "summary.json").read_text())
    assert summary == batcher("status", "runs/jobs", "--json").json()


def test_status_and_jobs_speak_to_people_too(batcher: Batcher) -> None:
    batcher.run_csv(["a", "b FAIL"])
    status = batcher("status", "runs/jobs").out
    assert "1 done, 1 failed" in status
    assert "next: batcher retry runs/jobs && batcher resume runs/jobs" in status
    assert "failed: the model fell over" in batcher("jobs", "runs/jobs").out


def test_models_are_listed_and_shown(batcher: Batcher) -> None:
    shown = batcher("models", MODEL).out
    assert "image_urls: array  (required, minItems 1, maxItems 20)" in shown
    assert "4K $0.3" in shown
    alone = batcher("models", RUNCOMFY_TOKEN="")
    assert (alone.code, alone.out.split()[0]) == (0, MODEL)
    assert batcher("models", "no/such", RUNCOMFY_TOKEN="").code == 77
    listed = batcher("models", "--sandbox", "--json").json()
    assert {entry["model_id"] for entry in listed} >= {MODEL, "sandbox/turntable/image-to-video"}
    assert batcher("models", "sandbox/turntable/image-to-video", "--sandbox").code == 0


def test_the_starter_manifest_is_valid_and_never_overwrites(batcher: Batcher) -> None:
    assert batcher("init").code == 0
    assert batcher("init").code == 64
    assert batcher("plan", "batch.yaml", "--json").json()["fault_count"] == 0


def on_a_terminal(batcher: Batcher, *arguments: str, columns: int = 80, typed: bytes = b"", **more: str) -> str:
    """Run on a real pseudo-terminal; give what was drawn."""
    ours, theirs = pty.openpty()
    environ = {**batcher.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "24", **more}
    command = [sys.executable, "-m", "batcher", *arguments]
    with subprocess.Popen(
        command,
        cwd=batcher.folder,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - so that a typed Ctrl-C is a signal
    ) as process:
        os.close(theirs)
        if typed != b"\x03":
            os.write(ours, typed)
        drawn = b""
        while True:
            try:
                block = os.read(ours, 65536)
            except OSError:
                break
            if not block:
                break
            drawn += block
            if typed == b"\x03" and b"[y/N]" in drawn:
                os.write(ours, typed)  # once it is asked: before, it would end the start
                typed = b""
        process.wait(60)
    os.close(ours)
    return drawn.decode("utf-8", "replace")


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(batcher: Batcher, api: Api) -> None:
    api.delay = 1.0
    manifest = batcher.csv(["a", "b"])
    drawn = on_a_terminal(batcher, "run", manifest, "--model", MODEL)
    assert "\x1b[" in drawn
    assert "2/2" in drawn or "0/2" in drawn
    assert "2 done" in drawn
    piped = batcher("run", batcher.csv(["c"], "more.csv"), "--model", MODEL)
    assert "\x1b" not in piped.err
    assert batcher("run", "more.csv", "--model", MODEL, "--quiet").err == ""


def test_a_token_beside_the_manifest_is_used_and_chooses_no_host(batcher: Batcher, api: Api) -> None:
    (batcher.folder / ".env").write_text(
        f"RUNCOMFY_TOKEN={batcher.environ['RUNCOMFY_TOKEN']}\nRUNCOMFY_MODEL_API_BASE=http://127.0.0.1:9\n"
    )
    done = batcher("run", batcher.csv(["a"]), "--model", MODEL, RUNCOMFY_TOKEN="")
    assert done.code == 0, done.err
    assert api.strangers == []


def test_the_vendors_token_file_is_used(batcher: Batcher, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/token.json").write_text(json.dumps({"token": batcher.environ["RUNCOMFY_TOKEN"]}))
    done = batcher(
        "run", batcher.csv(["a"]), "--model", MODEL, RUNCOMFY_TOKEN="", RUNCOMFY_CONFIG_DIR=str(tmp_path / "config")
    )
    assert done.code == 0, done.err


def test_a_setting_that_is_no_input_is_a_fault_and_no_bug(batcher: Batcher) -> None:
    done = batcher("plan", batcher.csv(["a"]), "--model", MODEL, "--set", "resolutoin=4K")
    assert done.code == 65, done.err
    assert "resolution" in done.err
    assert "bug" not in done.err
