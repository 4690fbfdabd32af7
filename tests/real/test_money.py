"""What is spent: never past the cap, for every row first where it is short, and asked for before."""

import shlex

from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher


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
    assert "the selection leaves no job of the manifest" in done.err
    assert "2 jobs more of the manifest are not selected" in done.err
    assert api.journal == []


def test_retry_obeys_the_cap(batcher: Batcher, api: Api) -> None:
    prompts = [f"p{n} FAIL" for n in range(6)]
    assert batcher.run_csv(prompts, "--max-cost", "1").code in {1, 75}
    sent = len(api.journal)
    assert batcher("retry", "runs/jobs").code == 0
    batcher("resume", "runs/jobs")
    cost = batcher("status", "runs/jobs", "--json").json()["cost_usd"]
    assert cost["worst_case"] <= 1.0
    assert len(api.journal) - sent <= 8
