"""The bill before the run, the question that it asks, and who cost what after it."""

import os
import pty
import shutil
import signal
import subprocess
import sys

import pytest

from batcher.manifest.row_check import looks_like_many
from tests.faces.conftest import PHOTOS
from tests.faces.test_terminal import on_a_terminal
from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher, Until, end

MANIFEST = f"""model: {MODEL}
inputs: {{prompt: "{{{{ stem }}}} on {{{{ scene }}}}", image_urls: ["{{{{ path }}}}"]}}
jobs: {{glob: "photos/*.jpg"}}
matrix: {{scene: [slate, marble], resolution: [1K, 4K]}}
limits: {{confirm_above_usd: 2}}
"""


@pytest.fixture
def catalogue(batcher: Batcher) -> Batcher:
    shutil.copytree(PHOTOS, batcher.folder / "photos")
    (batcher.folder / "m.yaml").write_text(MANIFEST)
    return batcher


def test_a_plan_is_a_bill(catalogue: Batcher, api: Api) -> None:
    plan = catalogue("plan", "m.yaml", "--json", BATCHER_CONCURRENCY="7").json()
    cost = plan["cost_usd"]
    assert cost["by_class"] == [
        {"class": "1K", "jobs": 12, "each": 0.15},
        {"class": "4K", "jobs": 12, "each": 0.3},
    ]
    assert (cost["estimated"], cost["repriced"], cost["bills"], cost["asks"]) == (5.4, None, 0, True)
    assert (plan["images"], plan["expected"], plan["to_buy"]) == (24, None, 24)
    assert plan["inlined_bytes"] == 4 * sum(file.stat().st_size for file in PHOTOS.glob("*.jpg"))
    assert plan["space"]["free"] > plan["space"]["needed"] > 1e8
    assert plan["settings"]["concurrency"] == {"value": 7, "from": "environment"}
    assert plan["settings"]["confirm_above_usd"] == {"value": 2, "from": "manifest"}
    assert catalogue("plan", "m.yaml", "-j", "7", "--json").json()["settings"]["concurrency"]["from"] == "option"
    said = catalogue("plan", "m.yaml", "--max-cost", "3").out
    for word in ("12 x 1K at $0.15", "12 x 4K at $0.30", "pays for about 13", "first ", "middle ", "last ", "bottle on slate",
                 "next: batcher run m.yaml --max-cost 3 --sample 6"):  # fmt: skip
        assert word in said
    assert api.requests == []


@pytest.mark.long
def test_a_sample_tells_the_price_the_pace_and_the_space_of_the_rest(catalogue: Batcher) -> None:
    assert catalogue("run", "m.yaml", "--sample", "6").code == 0
    plan = catalogue("plan", "m.yaml", "--json").json()
    assert (plan["begun"], plan["to_buy"], plan["cost_usd"]["bills"]) == (6, 18, 6)
    assert plan["cost_usd"]["repriced"] == pytest.approx(18 * 0.12)  # what the server bills, whatever was estimated
    assert plan["space"]["known"]
    assert plan["space"]["needed"] < 1e6
    assert plan["expected"]["from"].endswith("runs/m")
    assert plan["expected"]["seconds"][0] < plan["expected"]["seconds"][1]
    catalogue("run", "m.yaml", "--yes")
    assert "no job would be bought" in catalogue("plan", "m.yaml").out


def test_a_run_asks_once_on_a_terminal_and_takes_no_for_an_answer(catalogue: Batcher, api: Api) -> None:
    said = on_a_terminal(catalogue, "run", "m.yaml", typed=b"n\n")
    assert "24 jobs may cost $5.40. Go on?" in said
    assert "nothing was sent" in said
    assert api.journal == []
    assert not (catalogue.folder / "runs/m/ledger.sqlite").exists()
    for no in (b"\x03", b"\x04"):  # Ctrl-C, and the end of input
        assert "nothing was sent" in on_a_terminal(catalogue, "run", "m.yaml", typed=no)
        assert not (catalogue.folder / "runs/m/ledger.sqlite").exists()
    capped = on_a_terminal(catalogue, "run", "m.yaml", "--max-cost", "2.50", typed=b"n\n")
    assert "and no more than $2.50 in all" in capped
    assert "24 done" in on_a_terminal(catalogue, "run", "m.yaml", typed=b"y\n")
    assert "Go on?" not in on_a_terminal(catalogue, "run", "m.yaml")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long)]
)
def test_a_signal_ends_the_question_and_leaves_nothing_to_buy(
    catalogue: Batcher, api: Api, number: int, code: int
) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "batcher", "run", "m.yaml"],
        cwd=catalogue.folder, env=catalogue.environ, stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    said = b""
    while b"Go on?" not in said:
        said += os.read(master, 4096)
    process.send_signal(number)
    assert process.wait(20) == code
    os.close(master)
    assert not (catalogue.folder / "runs/m/ledger.sqlite").exists() and api.journal == []


@pytest.mark.long
def test_what_was_not_agreed_to_is_asked_again_by_resume(catalogue: Batcher, api: Api) -> None:
    """The directory had been begun: what its last `run` was told no for was bought by `resume` without a word."""
    assert catalogue("run", "m.yaml", "--limit", "1").code == 0
    assert "nothing was sent" in on_a_terminal(catalogue, "run", "m.yaml", typed=b"n\n")
    refused = catalogue("resume", "runs/m")
    assert refused.code == 64 and "nobody can be asked" in refused.err
    assert "nothing was sent" in on_a_terminal(catalogue, "resume", "runs/m", typed=b"n\n")
    assert len(api.journal) == 1
    assert catalogue("resume", "runs/m", "--yes").code == 0 and len(api.journal) == 24


@pytest.mark.long
def test_no_question_where_nobody_is_asked_or_little_is_spent(catalogue: Batcher, api: Api) -> None:
    assert "Go on?" not in on_a_terminal(catalogue, "run", "m.yaml", "--max-cost", "1.5")
    assert "Go on?" not in on_a_terminal(catalogue, "run", "m.yaml", "--yes", "-o", "b")
    refused = catalogue("run", "m.yaml", "-o", "c")
    assert refused.code == 64 and "24 jobs may cost $5.40, more than $2.00" in refused.err, refused.err
    assert "--yes" in refused.err and "--max-cost 5.40" in refused.err
    assert not (catalogue.folder / "c").exists() and catalogue("run", "m.yaml", "-o", "c", BATCHER_YES="1").code == 64
    accepted = len(api.journal)
    assert catalogue("run", "m.yaml", "-o", "c", "--max-cost", "6").code == 0, "a cap is answer enough"
    assert len(api.journal) == accepted + 24
    (catalogue.folder / "m.yaml").write_text(MANIFEST.replace("confirm_above_usd: 2", "confirm_above_usd: 0"))
    assert "Go on?" not in on_a_terminal(
        catalogue, "run", "m.yaml", "--sandbox", "--limit", "1", BATCHER_SANDBOX_ARGS="--speed 50"
    )


def test_cost_and_ends_by_any_variable_or_input(catalogue: Batcher) -> None:
    (catalogue.folder / "m.yaml").write_text(MANIFEST.replace("marble", "FAIL"))
    assert catalogue("run", "m.yaml", "--yes").code == 1
    by = catalogue("status", "runs/m", "--by", "scene", "--json").json()["by"]
    slate, fails = by["values"]
    assert (by["variable"], slate["value"], slate["jobs"], slate["done"], slate["billed_usd"]) == (
        "scene",
        "slate",
        12,
        12,
        1.44,
    )
    assert (fails["value"], fails["failed"], fails["done"], fails["billed_usd"]) == ("FAIL", 12, 0, 0)
    for name, count in (("resolution", 2), ("stem", 6), ("original", 6), ("model", 1), ("sample", 1), ("kind", 2)):
        assert len(catalogue("status", "runs/m", "--by", name, "--json").json()["by"]["values"]) == count
    assert "did you mean `scene`?" in catalogue("status", "runs/m", "--by", "scnee").err
    assert catalogue("status", "runs/m", "--by", "scnee").code == 64
    lines = catalogue("status", "runs/m", "--by", "scene").out.splitlines()
    assert lines[-2].split() == ["slate", "12", "12", "0", "$1.44"]


def test_a_row_of_many_products_is_warned_about(catalogue: Batcher) -> None:
    photos = ", ".join(f'"photos/{name}.jpg"' for name in ("mug", "vase", "bowl", "jar", "candle"))
    (catalogue.folder / "one.yaml").write_text(f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [{photos}]}}\n")
    assert (
        "row 1 has 5 images that look like 5 products: one request makes one picture"
        in catalogue("plan", "one.yaml").out
    )
    assert "look like" not in catalogue("plan", "m.yaml").out


@pytest.mark.parametrize(
    ("images", "many"),
    [
        (["a/mug-front.jpg", "a/mug-back.jpg", "a/mug-top.jpg", "a/mug-side.jpg"], False),
        (["mug.jpg", "vase.jpg", "bowl.jpg"], False),
        (["IMG_1.jpg", "IMG_2.jpg", "IMG_3.jpg", "IMG_14.jpg"], True),
        (
            ["https://x.example/1/mug.jpg?a=1", "https://x.example/2/vase.jpg", "https://x.example/3/jar.jpg", "d.png"],
            True,
        ),
        (["data:image/png;base64,AA"] * 5, False),
    ],
)
def test_names_tell_views_of_one_thing_from_many_things(images: list[str], many: bool) -> None:
    assert looks_like_many(images) is many


@pytest.mark.parametrize("columns", [80, pytest.param(160, marks=pytest.mark.long)])
def test_the_board_is_drawn_on_a_terminal_of_any_width(batcher: Batcher, api: Api, columns: int) -> None:
    api.delay = 0.6
    drawn = on_a_terminal(
        batcher,
        "run",
        batcher.csv([f"p{n}" for n in range(9)] + ["FAIL"]),
        "--model",
        MODEL,
        "-j",
        "3",
        columns=columns,
    )
    for stage in ("submitted", "running", "fetched", "done", "failed", "uncertain"):
        assert f"  {stage}" in drawn
    assert "of 3" in drawn and "billed so far" in drawn
    plain = on_a_terminal(batcher, "run", batcher.csv(["q"], "b.csv"), "--model", MODEL, columns=columns, NO_COLOR="1")
    assert "\x1b[3" not in plain.replace("\x1b[?25", "")


def test_status_shows_a_run_at_work_as_it_shows_itself(batcher: Batcher, api: Api, until: Until) -> None:
    api.delay = 600
    process = batcher.start("run", batcher.csv([f"p{n}" for n in range(6)]), "--model", MODEL, "-j", "2")
    until(lambda: len(api.journal) == 2)
    found = batcher("status", "runs/jobs", "--json").json()
    assert set(found["pace"]) == {"per_minute", "left_seconds"}
    said = batcher("status", "runs/jobs").out
    assert "a run is at work on this directory" in said
    assert "0 of 6 settled (0 %)" in said
    assert "next:" not in said
    drawn = on_a_terminal(batcher, "status", "runs/jobs", columns=100)
    assert "submitted" in drawn and "of 2" in drawn
    end(process)


def test_a_job_without_a_price_is_a_fault_where_the_cost_is_limited(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [https://images.invalid/a.png]}}\nprices: {{4K: 0.3}}\n"
    )
    refused = batcher("run", "m.yaml", "--max-cost", "0.2")
    assert refused.code == 65 and "has no price" in refused.err
    assert api.journal == []
    assert batcher("run", "m.yaml").code == 0


def test_a_dry_run_that_the_environment_asks_for_buys_nothing(batcher: Batcher, api: Api) -> None:
    (batcher.folder / ".env").write_bytes(b"NAME=M\xfcller\n")
    assert batcher("run", batcher.csv(["a"]), "--model", MODEL, BATCHER_DRY_RUN="1").code == 0
    assert api.journal == []


def test_what_comes_next_is_what_was_priced(catalogue: Batcher) -> None:
    def then(*options: str) -> str:
        return str(catalogue("plan", "m.yaml", *options, "--json").json()["next"])

    assert then("--where", "stem == 'mug'") == "batcher run m.yaml --where 'stem == '\"'\"'mug'\"'\"''"
    assert then("--limit", "3", "-o", "other") == "batcher run m.yaml --out other --limit 3"
    assert then("--set", "output_format=png") == "batcher run m.yaml --set=output_format=png --sample 6"
    assert catalogue("run", "m.yaml", "--sample", "4").code == 0
    assert then() == "batcher run m.yaml", "the sample has been seen"
    summary = catalogue("status", "runs/m").out
    assert "20 jobs more of the manifest are not selected" in summary
    assert summary.rstrip().endswith("next: batcher run m.yaml")
    none = catalogue("plan", "m.yaml", "--where", "stem == 'mog'")
    assert none.code == 65 and "selects no job of the manifest: stem == 'mog' is true of none" in none.err
    alone = catalogue("plan", "m.yaml", "--where", "stem == 'jar'", "--json").json()
    assert alone["selected"] == 4
    assert alone["images"] == alone["to_buy"] == 4 - alone["begun"]


def test_a_word_that_is_near_is_offered_wherever_it_stands(catalogue: Batcher) -> None:
    assert "did you mean `m.yaml`?" in catalogue("plan", "n.yaml").err
    catalogue("run", "m.yaml", "--limit", "1")
    assert "did you mean `runs/m`?" in catalogue("status", "runs/mm").err
    assert "in it are: runs/m" in catalogue("status", "runs").err
    assert "did you mean" in catalogue("plan", "m.yaml", "--model", MODEL + "s", RUNCOMFY_TOKEN="").err
    typo = catalogue("run", "m.yaml", "--sandbox", BATCHER_SANDBOX_ARGS="--fault fial=0.1")
    assert typo.code == 64
    assert "fial" in typo.err


def test_a_question_is_asked_though_what_is_said_goes_into_a_pipe(catalogue: Batcher, api: Api) -> None:
    """`run 2>&1 | tee log` spent $50 at once: the question was for a terminal that was no longer there."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "batcher", "run", "m.yaml"],
        cwd=catalogue.folder, env=catalogue.environ, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    os.close(slave)
    said = b""
    while b"Go on?" not in said:
        said += os.read(master, 4096)
    os.write(master, b"n\n")
    out, _ = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == 64 and b"Go on?" not in out and b"nothing was sent" in out
    assert api.journal == []


@pytest.mark.parametrize(
    "options",
    [("--max-cost", "9", "--max-cost", "99"), ("-j", "2", "-j", "3"), ("--model", "a", "--model", "b"), ("-q", "-q")],
)
def test_an_option_that_is_repeated_is_refused(catalogue: Batcher, api: Api, options: tuple[str, ...]) -> None:
    done = catalogue("run", "m.yaml", *options)
    assert done.code == 64 and "stands 2 times" in done.err and api.journal == []
    assert catalogue("run", "m.yaml", "--set", "prompt=a", "--set", "prompt=b").code == 64


def test_results_are_taken_over_from_each_run_that_is_named(batcher: Batcher, api: Api) -> None:
    def rows(prompts: str) -> None:
        lines = "".join(f"{prompt},https://images.invalid/0.png\n" for prompt in prompts)
        (batcher.folder / "jobs.csv").write_text("prompt,image_urls\n" + lines)

    for prompts, out in (("ab", "runs/one"), ("cd", "runs/two")):
        rows(prompts)
        assert batcher("run", "jobs.csv", "--model", MODEL, "-o", out).code == 0
    rows("abcde")
    both = ("--model", MODEL, "--reuse", "runs/one", "--reuse", "runs/two", "-o", "runs/all")
    assert batcher("plan", "jobs.csv", *both, "--json").json()["reused"] == 4
    assert batcher("run", "jobs.csv", *both).code == 0
    assert api.prompts() == ["a", "b", "c", "d", "e"], "the second was dropped, and bought again"
    assert batcher("run", "jobs.csv", "--model", MODEL, "-o", "x", BATCHER_REUSE="runs/one:runs/two").code == 0
    assert len(api.journal) == 6


@pytest.mark.long
def test_resume_says_which_limits_it_keeps(batcher: Batcher, api: Api) -> None:
    api.delay = 3
    assert batcher.run_csv(["a", "b"], "-j", "1", "--max-time", "1s", "--max-cost", "9").code == 75
    said = batcher("resume", "runs/jobs").err
    assert "kept from the last start: --max-cost 9, --max-time 1s" in said
    assert "kept" not in batcher("resume", "runs/jobs", "--max-time", "1h", "--max-cost", "10").err


@pytest.mark.parametrize("option", ["--max-time", "--patience"])
def test_a_duration_needs_its_unit(batcher: Batcher, api: Api, option: str) -> None:
    done = batcher.run_csv(["a"], option, "8")
    assert done.code == 64 and "write 8h, 8m or 8s" in done.err and api.journal == []


@pytest.mark.parametrize("factor", [2.0, 9.0])
def test_a_cap_holds_though_bills_are_a_multiple_of_the_estimate(batcher: Batcher, api: Api, factor: float) -> None:
    """A cap of $5 ended at $9.90 to $14.09: the whole of it had left before the first bill came."""
    batcher.csv([f"p{n}" for n in range(200)])
    price = 0.12 / factor
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: jobs.csv\nprices: {{1K: {price}}}\nlimits: {{max_cost_usd: 5, concurrency: 64}}\n"
    )
    api.delay = 0.3
    assert batcher("run", "m.yaml").code == 75
    cost = batcher("status", "runs/m", "--json").json()["cost_usd"]
    assert 4.8 < cost["billed"] <= 5.0 + 1e-6, cost
    assert cost["worst_case"] <= 5.0 + 1e-6


def test_a_limit_that_rests_on_estimates_says_so(batcher: Batcher, api: Api) -> None:
    api.bills = False
    done = batcher.run_csv([f"p{n}" for n in range(20)], "--max-cost", "2.00", "-j", "16")
    assert done.code == 75, done.err
    assert "came without a bill: there the limit rests on estimates" in done.err
    assert len(api.journal) == 13
