"""What a run says when something went otherwise, and the lists from which its user goes on."""

import csv
import json
import re
import shlex
import signal
import time
from itertools import pairwise
from pathlib import Path

import pytest
from aiohttp import web

from tests.real.api import Api, own
from tests.real.conftest import MODEL, Batcher, Until, end


def left(batcher: Batcher) -> list[str]:
    return sorted(str(file.relative_to(batcher.folder)) for file in batcher.folder.rglob("*"))


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "m.yaml"], 65, "m.yaml:2: jobs: nowhere.csv does not exist"),
        (["run", "folder.yaml"], 65, "folder.yaml:2: jobs:"),
        (["run", "closed.yaml"], 65, "closed.yaml:2: jobs:"),
        (["run", "jobs.csv", "--model", MODEL, "-o", "/proc/foo"], 64, "/proc/foo cannot be made"),
        (["run", "jobs.csv", "--model", MODEL, "-o", "jobs.csv"], 64, "jobs.csv"),
        (["run", "jobs.csv", "--model", MODEL, "-o", "jobs.csv/deep"], 64, "jobs.csv/deep cannot be made"),
        (["run", "jobs.csv", "--model", MODEL, "-o", "x" * 300], 64, "cannot be made: File name too long"),
        (["plan", "jobs.csv", "--model", MODEL, "-o", "x" * 300], 64, "File name too long"),
        (["status", "x" * 300], 66, "is not a run directory"),
        (["resume", "x" * 300], 66, "is not a run directory"),
        (["cancel", "jobs.csv"], 66, "is not a run directory"),
        (["run", "jobs.csv", "--model", MODEL, "--where", "1==2"], 65, "selects no job of the manifest"),
        (["plan", "jobs.csv", "--model", MODEL, "--where", "1==2"], 65, "selects no job of the manifest"),
    ],
)  # fmt: skip
def test_a_file_that_the_user_named_is_no_matter_of_the_disk_and_nothing_stays_behind(
    batcher: Batcher, api: Api, arguments: list[str], code: int, says: str
) -> None:
    batcher.csv(["a"])
    (batcher.folder / "folder").mkdir()
    for name, rows in (("m", "nowhere.csv"), ("folder", "folder"), ("closed", "/proc/1/mem.csv")):
        (batcher.folder / f"{name}.yaml").write_text(f"model: {MODEL}\njobs: {rows}\n")
    before = left(batcher)
    done = batcher(*arguments)
    assert done.code == code and says in done.err, (done.code, done.err)
    assert "make room" not in done.err
    assert left(batcher) == before and api.journal == []


def test_after_a_kill_status_says_that_nothing_is_at_work_and_what_is_at_the_server(
    batcher: Batcher, api: Api, until: Until
) -> None:
    name = batcher.csv(["a", "b", "c"])
    assert batcher("run", name, "--model", MODEL, "-j", "1", "--max-cost", "0.15").code == 75
    api.queued = True
    process = batcher.start("resume", "runs/jobs", "--max-cost", "1", "-j", "2")
    until(lambda: batcher.states().get("running") == 2)
    end(process, signal.SIGKILL)
    stopped = batcher("status", "runs/jobs", "--json").json()["stopped"]
    assert stopped["reason"] == "interrupted" and stopped["retryable"]
    assert (
        stopped["message"]
        == "nothing is at work: the last run ended unexpectedly (killed, or a crash); 2 run on at the server"
    )
    assert "budget" not in batcher("status", "runs/jobs").out
    assert "nothing is at work" in batcher("status", "runs/jobs").out
    api.queued = False
    assert batcher(*shlex.split(stopped["next"])[1:]).code == 0
    assert batcher("status", "runs/jobs", "--json").json()["stopped"] is None


@pytest.mark.long
def test_what_is_being_fetched_is_not_said_to_run_at_the_server(batcher: Batcher, api: Api, until: Until) -> None:
    api.slow_files = {"r-1/1": 60.0, "r-2/1": 60.0}
    process = batcher.start("run", batcher.csv(["a", "b QUEUED"]), "--model", MODEL)
    until(
        lambda: (batcher.folder / "runs/jobs/ledger.sqlite").exists() and {*batcher.states()} == {"fetching", "running"}
    )
    end(process, signal.SIGTERM)
    message = batcher("status", "runs/jobs", "--json").json()["stopped"]["message"]
    assert "1 runs on at the server" in message
    assert "1 has ended there, and is fetched by the next start" in message


def hangs_up(api: Api, request: web.Request, body: dict[str, object]) -> web.StreamResponse | None:
    api.accept(body)
    assert request.transport is not None
    request.transport.close()
    return web.Response()


def test_a_guard_on_uncertain_jobs_is_not_reset_by_a_rerun(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: rows.csv\nlimits: {{concurrency: 1}}\nretry: {{max_uncertain: 2}}\n"
    )
    batcher.csv([f"p{n}" for n in range(12)], "rows.csv")
    api.specials = [hangs_up] * 30
    assert batcher("run", "m.yaml").code == 75
    first = batcher.states("runs/m")["uncertain"]
    stopped = batcher("status", "runs/m", "--json").json()["stopped"]
    assert (stopped["reason"], stopped["retryable"]) == ("uncertain", False)
    sent = len(api.journal)
    for _ in range(3):
        assert batcher("resume", "runs/m").code == 75
    assert batcher.states("runs/m")["uncertain"] == first and len(api.journal) == sent, "three reruns bought none"
    assert batcher("retry", "runs/m", "--state", "uncertain").code == 64, "nobody can be asked"
    assert batcher("resume", "runs/m").code == 75 and len(api.journal) == sent
    assert batcher("retry", "runs/m", "--state", "uncertain", "--yes").code == 0
    api.specials = []
    assert batcher("resume", "runs/m").code == 0


def test_failures_are_grouped_with_an_example_and_only_what_helps_is_advised(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a", "INVALID b", "INVALID c", "FAILED d"]).code == 1
    said = batcher("status", "runs/jobs").out.splitlines()
    (at,) = [n for n, line in enumerate(said) if line.startswith("2 invalid: ")]
    assert "edit their rows" in said[at] and "prompt is not to our liking" in said[at + 1]
    assert said[-1] == "next: batcher retry runs/jobs --kind failed && batcher resume runs/jobs"
    api.specials = [own(400, 400017, "violates our content policy")]
    assert batcher("run", batcher.csv(["x"], "only.csv"), "--model", MODEL).code == 1
    following = batcher("status", "runs/only").out.splitlines()[-1].removeprefix("next: ")
    assert following == "batcher jobs runs/only --state failed --rows failed-rows.csv"
    assert batcher(*shlex.split(following)[1:]).code == 0
    assert (batcher.folder / "failed-rows.csv").read_text().startswith("prompt,image_urls,reason\n")


def test_kinds_and_counts_are_named_where_one_is_wrong(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    assert "kinds: bad_output, crash, expired" in batcher("jobs", "runs/jobs", "--kind", "weird").err
    done = batcher("plan", "jobs.csv", "--model", MODEL, "--set", "num_outputs=2")
    assert (
        done.code == 65
        and "--set:1: num_outputs: is not an input of google/nano-banana/pro/edit; did you mean `num_images`?"
        in done.err
    )


def test_jobs_are_a_table_of_what_the_manifest_lists(batcher: Batcher, api: Api) -> None:
    batcher.csv(["FAILED a", "INVALID b"])
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 1
    batcher.csv(["a calm sea, seen from a window of the old house"])
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    lines = batcher("jobs", "runs/jobs").out.splitlines()
    assert lines[0].split() == ["JOB", "STATE", "NAME", "PROMPT", "REQUEST", "WHY"]
    assert len(lines) == 2 and "a calm sea, seen" in lines[1]
    assert lines[1].index("done") == lines[0].index("STATE")
    unlisted = batcher("jobs", "runs/jobs", "--unlisted", "--json").lines()
    assert [job["error"]["kind"] for job in unlisted] == ["failed", "invalid"]
    (job,) = batcher("jobs", "runs/jobs", "--json").lines()
    assert job["row"] == 1 and job["inputs"]["prompt"].startswith("a calm sea") and job["attempts"] == 1
    assert batcher("jobs", "runs/jobs", "--state", "failed").err == "no such jobs\n"


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_rows_come_back_as_they_were_once_each_and_are_a_manifest_again(
    batcher: Batcher, api: Api, ending: str
) -> None:
    (batcher.folder / "rows.csv").write_text(
        'prompt,image_urls,SKU\n"a, good",https://i.invalid/1.png,007\n'
        '"INVALID ""b""",https://i.invalid/2.png,008\n-INVALID c,https://i.invalid/3.png,\n'
    )
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: rows.csv\nmatrix: {{scene: [sea, wood]}}\n"
        "inputs: {prompt: '{{ row.prompt }} {{ scene }}'}\n"
    )
    assert batcher("run", "m.yaml").code == 1
    file = f"again.{ending}"
    done = batcher("jobs", "runs/m", "--state", "failed", "--rows", file)
    assert done.out == f"wrote {file}: 2 rows of 4 jobs\n"
    text = (batcher.folder / file).read_text()
    rows = [*csv.DictReader(text.splitlines())] if ending == "csv" else [json.loads(line) for line in text.splitlines()]
    assert [row["prompt"] for row in rows] == ['INVALID "b"', "-INVALID c"]
    assert rows[0]["SKU"] == "008" and "prompt is not to our liking" in rows[0]["reason"]
    assert batcher("jobs", "runs/m", "--rows", file).code == 64, "never over a file"
    (batcher.folder / file).write_text(text.replace("INVALID", "mended"))
    assert batcher("run", file, "--model", MODEL).code == 0
    one = batcher("jobs", "runs/m", "--kind", "invalid", "--rows", f"b.{ending}", "--json").json()
    assert (one["rows"], one["selected"], one["jobs"]) == (2, 4, 4)
    (batcher.folder / "rows.csv").write_text("prompt,image_urls\nother,https://i.invalid/1.png\n")
    changed = batcher("jobs", "runs/m", "--state", "failed", "--rows", f"c.{ending}")
    assert changed.code == 64 and "has changed since" in changed.err
    assert not (batcher.folder / f"c.{ending}").exists()


def test_rows_of_some_jobs_of_a_matrix_say_how_many_they_make(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: [{{image_urls: https://i.invalid/1.png}}]\nmatrix: {{scene: [sea, INVALID, wood]}}\n"
        "inputs: {prompt: '{{ scene }}'}\n"
    )
    assert batcher("run", "m.yaml").code == 1
    done = batcher("jobs", "runs/m", "--state", "failed", "--rows", "again.jsonl")
    assert done.out == "wrote again.jsonl: 1 row of 1 job; these rows make 3 jobs\n"
    assert batcher("jobs", "runs/m", "--rows", "again.txt").code == 64


def test_without_a_directory_the_newest_run_is_meant_and_resume_takes_the_only_one(batcher: Batcher, api: Api) -> None:
    for command in ("status", "jobs", "report", "resume"):
        done = batcher(command)
        assert done.code in {64, 66} and "runs/" in done.err, command
    assert batcher("run", batcher.csv(["a"], "first.csv"), "--model", MODEL).code == 0
    assert batcher("run", batcher.csv(["a", "b"], "second.csv"), "--model", MODEL, "--max-cost", "0.15").code == 75
    for command in ("status", "jobs", "report"):
        done = batcher(command)
        assert done.code == 0 and done.err.startswith("runs/second (the newest run):"), (command, done.err)
    assert "runs/second (the only run that is unfinished):" in batcher("resume").err
    third = batcher.csv(["a", "b"], "third.csv")
    assert batcher("run", third, "--model", MODEL, "--max-cost", "0.15").code == 75
    both = batcher("resume")
    assert both.code == 64 and "2 runs under runs/ are unfinished: runs/second, runs/third" in both.err
    assert Path(batcher.folder / "runs/second/report.html").exists()


@pytest.mark.long
def test_what_a_job_waits_for_is_seen_wherever_the_run_is_seen(batcher: Batcher, api: Api, until: Until) -> None:
    api.file_statuses = {"r-1/1": 500}
    process = batcher.start("run", batcher.csv(["a", "b"]), "--model", MODEL)

    def told() -> bool:
        listed = batcher("jobs", "runs/jobs", "--state", "fetching", "--json")
        return any(job["waits"] and "try 3 " in job["waits"] for job in listed.lines() if listed.code == 0)

    until((batcher.folder / "runs/jobs/ledger.sqlite").exists)
    until(told)
    (job,) = batcher("jobs", "runs/jobs", "--state", "fetching", "--json").lines()
    assert (
        "waits for its output: try 3 brought HTTP 500; again at " in job["waits"] and ", given up at " in job["waits"]
    )
    assert job["waits"] in batcher("jobs", "runs/jobs").out
    assert "waits for its output: try " in batcher("status", "runs/jobs").out
    log = [json.loads(line) for line in (batcher.folder / "runs/jobs/run.jsonl").read_text().splitlines()]
    waits = [one for one in log if one["event"] == "Waiting"]
    assert waits and all(one["level"] == "warning" and one["job_id"] == job["job_id"] for one in waits)
    api.file_statuses = {}
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert all(job["waits"] is None for job in batcher("jobs", "runs/jobs", "--json").lines())


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        pytest.param(
            (500, {"error_code": 500001, "error_message": "no such shard"}),
            "word of its request: try N brought no such",
            marks=pytest.mark.long,
        ),
        pytest.param(
            (404, {"error_code": 404001, "error_message": "not here"}),
            "word of its request: try N brought not here",
            marks=pytest.mark.long,
        ),
        ((200, {"status": "completed"}), "its outputs: try N brought that it is completed, without outputs"),
        pytest.param(
            (200, {"status": "dreaming"}),
            "word of its request: try N brought the request is said to be",
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_job_that_nothing_is_heard_of_says_so_and_when_it_is_heard_of_says_no_more(
    batcher: Batcher, api: Api, until: Until, answers: tuple[int, dict[str, object]], says: str
) -> None:
    status, body = answers

    def poll(api: Api, request: web.Request) -> web.StreamResponse:
        if request.match_info["id"] != "r-1" and status >= 500:  # the API answers, but of this one
            return web.json_response({"request_id": request.match_info["id"], "status": "in_progress"})
        return web.json_response(body, status=status)

    api.on_poll = poll
    process = batcher.start("run", batcher.csv(["a", "b"] if status >= 500 else ["a"]), "--model", MODEL)
    until((batcher.folder / "runs/jobs/ledger.sqlite").exists)
    until(lambda: says in re.sub(r"try \d+", "try N", batcher("jobs", "runs/jobs").out))
    api.on_poll = lambda api, request: web.json_response(
        {"request_id": request.match_info["id"], "status": "in_progress"}
    )
    if status != 500:
        until(lambda: "waits for" not in batcher("jobs", "runs/jobs").out)
    api.on_poll = None
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


@pytest.mark.long
def test_off_a_terminal_a_line_comes_while_anything_is_waited_for(batcher: Batcher, api: Api, until: Until) -> None:
    api.file_statuses = {"r-1/1": 500}
    process = batcher.start("run", batcher.csv(["a"]), "--model", MODEL)
    assert process.stderr
    begun, lines = time.monotonic(), []
    while time.monotonic() - begun < 75:
        lines.append((process.stderr.readline(), time.monotonic()))
    assert max(later - at for (_, at), (_, later) in pairwise(lines)) < 31
    assert sum("waits for its output: try" in line for line, _ in lines) >= 2, lines
    end(process)


@pytest.mark.parametrize(("status", "code"), [(404, 65), (403, 77), (429, 69), (503, 69)])
def test_a_catalogue_that_does_not_answer_is_not_one_without_the_model(
    batcher: Batcher, api: Api, status: int, code: int
) -> None:
    api.catalogue_status = status
    done = batcher("run", batcher.csv(["a"]), "--model", "some/model")
    assert done.code == code and ("is not a model" in done.err) == (status == 404), done.err
    assert not (batcher.folder / "runs").exists()
