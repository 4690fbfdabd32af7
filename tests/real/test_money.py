"""What is spent: never past the cap, for every row first where it is short, and asked for before."""

import shlex
import signal
import sqlite3

import pytest

from tests.real.api import Api, accepts_and_hangs_up, own
from tests.real.conftest import MODEL, Batcher, Until, end


def cheap(batcher: Batcher, jobs: int, price: float, cap: float, *, concurrency: int) -> None:
    """Write a manifest that believes in a price; the server bills 0.12."""
    batcher.csv([f"p{n}" for n in range(jobs)], "rows.csv")
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: rows.csv\nprices: {{1K: {price}}}\n"
        f"limits: {{max_cost_usd: {cap}, concurrency: {concurrency}}}\n"
    )


def test_a_wrong_estimate_passes_the_cap_by_no_more_than_was_in_flight_and_it_is_said(
    batcher: Batcher, api: Api
) -> None:
    cheap(batcher, 60, 0.01, 0.50, concurrency=8)
    done = batcher("run", "m.yaml")
    assert done.code == 75
    cost = batcher("status", "runs/m", "--json").json()["cost_usd"]
    assert cost["billed"] <= 0.50 + 8 * 0.11
    assert f"over the limit of $0.50 by ${cost['worst_case'] - 0.5:.2f}" in done.err
    before = len(api.journal)
    assert batcher("resume", "runs/m").code == 75
    assert len(api.journal) == before, "what was billed before is not forgotten"


def test_what_was_billed_reprices_the_rest_in_a_later_run_too(batcher: Batcher, api: Api) -> None:
    cheap(batcher, 12, 0.01, 9, concurrency=1)
    assert batcher("run", "m.yaml", "--sample", "2").code == 0
    cheap(batcher, 12, 0.01, 0.40, concurrency=8)
    assert batcher("run", "m.yaml").code == 75
    assert len(api.journal) == 3, "0.24 is billed; one more is 0.36, and yet another would be 0.48"


def test_where_money_is_short_every_row_comes_before_a_second_of_any(batcher: Batcher, api: Api) -> None:
    api.delay = 0.01
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: [{{p: a}}, {{p: b}}, {{p: c}}, {{p: d}}]\nmatrix: {{scene: [x, y, z]}}\n"
        'inputs: {prompt: "{{ p }} {{ scene }}", image_urls: ["https://images.invalid/0.png"]}\n'
        "limits: {concurrency: 1}\n"
    )
    assert batcher("run", "m.yaml", "--max-cost", "0.80").code == 75
    assert api.prompts() == ["a x", "b x", "c x", "d x", "a y", "b y"]
    assert batcher("run", "m.yaml", "--max-cost", "80").code == 0
    assert api.prompts()[6:] == ["a z", "b z", "c y", "c z", "d y", "d z"]


def test_the_command_that_goes_on_has_the_amount_in_it(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv([f"p{n}" for n in range(20)], "--max-cost", "1.00").code == 75
    stopped = batcher("status", "runs/jobs", "--json").json()["stopped"]
    words = shlex.split(stopped["next"])
    assert words[:4] == ["batcher", "resume", "runs/jobs", "--max-cost"]
    assert 1.0 < float(words[4]) <= 3.0
    assert batcher(*words[1:]).code == 0


def test_a_selection_that_leaves_nothing_is_said(batcher: Batcher, api: Api) -> None:
    done = batcher.run_csv(["a", "b"], "--where", "prompt == 'z'")
    assert done.code == 65
    assert done.err.startswith("--where:1: selects no job of the manifest: prompt == 'z' is true of none")
    assert api.journal == [] and not (batcher.folder / "runs").exists()


def test_retry_obeys_the_cap(batcher: Batcher, api: Api) -> None:
    prompts = [f"p{n} FAIL" for n in range(6)]
    assert batcher.run_csv(prompts, "--max-cost", "1").code in {1, 75}
    sent = len(api.journal)
    assert batcher("retry", "runs/jobs").code == 0
    batcher("resume", "runs/jobs")
    cost = batcher("status", "runs/jobs", "--json").json()["cost_usd"]
    assert cost["worst_case"] <= 1.0
    assert len(api.journal) - sent <= 8


def test_a_limit_that_is_lowered_holds_what_waits_for_its_turn(batcher: Batcher, api: Api, until: Until) -> None:
    """Jobs that were thought to be affordable waited under `requests_per_second`, and left whatever had become of it."""
    batcher.csv([f"p{n}" for n in range(40)], "rows.csv")
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: rows.csv\nlimits: {{concurrency: 32, requests_per_second: 4, max_cost_usd: 9}}\n"
    )
    process = batcher.start("run", "m.yaml")
    until(lambda: len(api.journal) >= 4)
    assert batcher("set", "runs/m", "max_cost_usd=0.3").code == 0
    accepted = len(api.journal)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert len(api.journal) <= accepted + 1, "one may have been on its way"


def test_a_job_that_was_turned_away_counts_at_its_price_of_now(batcher: Batcher, api: Api) -> None:
    """Its attempt kept the price of when it was turned away, and the next start had money that was spent."""

    def priced(usd: float) -> None:
        (batcher.folder / "m.yaml").write_text(
            f"model: {MODEL}\nprices: {{1K: {usd}}}\ninputs: {{prompt: x, image_urls: [https://images.invalid/0.png]}}\n"
        )

    priced(0.15)
    api.specials = [own(429, 429001, "too many", {"Retry-After": "600"})]
    assert batcher("run", "m.yaml", "--max-time", "1s").code == 75
    priced(0.60)
    with sqlite3.connect(batcher.folder / "runs/m/ledger.sqlite") as ledger:
        ledger.execute("UPDATE jobs SET not_before = 0")
    assert batcher("run", "m.yaml").code == 0
    with sqlite3.connect(batcher.folder / "runs/m/ledger.sqlite") as ledger:
        assert ledger.execute("SELECT number, estimated_usd FROM attempts").fetchall() == [(1, 0.60)]


@pytest.mark.long
def test_a_job_without_a_price_that_comes_back_is_not_bought_under_a_limit(
    batcher: Batcher, api: Api, until: Until
) -> None:
    rows = "".join(
        f"{prompt},https://images.invalid/0.png,{size}\n"
        for prompt, size in [("FAIL 1", "1K"), ("FAIL 2", "1K"), ("c", "4K"), ("d", "4K")]
    )
    (batcher.folder / "rows.csv").write_text("prompt,image_urls,resolution\n" + rows)
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: rows.csv\nprices: {{4K: 0.3}}\n")
    api.delay = 2
    process = batcher.start("run", "m.yaml", "-j", "1")
    until(lambda: len(api.journal) == 3)
    api.delay = 600
    end(process, signal.SIGTERM)
    process = batcher.start("resume", "runs/m", "--max-cost", "1")
    until(lambda: api.requests[-1][1].startswith("/v1/requests/r-3"))
    asked = len(api.requests)
    until(lambda: len(api.requests) > asked)  # it watches
    assert "2 jobs will go on" in batcher("retry", "runs/m").out
    api.delay = 0.1
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75 and "has no price" in err
    assert api.prompts() == ["FAIL 1", "FAIL 2", "c"], "they come first, and the next waits behind them"


def test_a_pause_holds_what_would_be_submitted_again(batcher: Batcher, api: Api) -> None:
    api.specials = [accepts_and_hangs_up]
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: [https://images.invalid/0.png]}}\n"
    )
    assert batcher("run", "m.yaml").code == 1
    assert batcher("pause", "runs/m").code == 0
    with (batcher.folder / "m.yaml").open("a") as file:
        file.write("retry: {uncertain: resubmit}\n")
    assert batcher("run", "m.yaml").code == 75
    assert len(api.journal) == 1, "a second one may be paid for twice"
    missing = batcher("resume", "runs/m", RUNCOMFY_TOKEN="")
    assert missing.code == 77
    assert batcher("status", "runs/m", "--json").json()["stopped"]["reason"] == "token"
    assert batcher("resume", "runs/m").code == 0 and len(api.journal) == 2, "which is the user's word"
