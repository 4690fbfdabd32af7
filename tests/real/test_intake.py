"""What people bring to the command line: folders of mixed photos, shops' tables, images that are none."""

import json
from datetime import datetime, timedelta

import pytest
from PIL import Image

from batcher.ledger.reader import Reader
from tests.damaged import damaged_png
from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher


def test_a_damaged_photo_fails_before_anything_is_sent(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "a.png").write_bytes(damaged_png())
    Image.effect_noise((50, 50), 90).convert("RGB").save(batcher.folder / "b.png")
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: x, image_urls: ['{{{{ path }}}}']}}\njobs: {{glob: '*.png'}}\n"
    )
    done = batcher("run", "m.yaml")
    assert done.code == 1, done.err
    jobs = {job["name"]: job for job in batcher("jobs", "runs/m", "--json").lines()}
    assert sorted(job["state"] for job in jobs.values()) == ["done", "failed"]
    (failed,) = (job for job in jobs.values() if job["state"] == "failed")
    assert failed["error"]["kind"] == "source" and "a.png cannot be decoded" in failed["error"]["message"]
    assert failed["attempts"] == 0 and len(api.journal) == 1


def test_a_table_becomes_a_manifest_beside_it_and_nothing_is_written_over(batcher: Batcher, api: Api) -> None:
    table = batcher.folder / "products_export.csv"
    table.write_text(
        "Handle,Title,Image Src,Image Position\n"
        "mug,Stone Mug,https://i.invalid/1.png,1\nmug,,https://i.invalid/2.png,2\nmug,,,\n"
    )
    before = table.read_bytes()
    done = batcher("init", "products_export.csv")
    assert done.code == 0 and "--where 'row[\"Image Src\"]'" in done.out, done.out + done.err
    assert table.read_bytes() == before
    assert batcher("init", "products_export.csv").code == 64
    plan = batcher("plan", "products_export.yaml", "--where", 'row["Image Src"]', "--json").json()
    assert (plan["jobs"], plan["fault_count"]) == (4, 0), plan
    assert {one["inputs"]["prompt"].partition(" on ")[0] for one in plan["samples"]} == {"Put the Stone Mug"}
    assert batcher("init", "nowhere.csv").code == 66
    assert batcher("run", "products_export.yaml", "--where", 'row["Image Src"]').code == 0
    assert len(api.journal) == 4


def test_a_folder_of_mixed_photos_is_counted_by_what_they_are(batcher: Batcher) -> None:
    (batcher.folder / "photos").mkdir()
    for name in ("a.jpg", "b.JPG", "c.jpeg", "d.webp", "e.png", "f.tif"):
        kind = {"JPG": "JPEG"}.get(name[2:])
        Image.effect_noise((50, 50), 90).convert("RGB").save(batcher.folder / "photos" / name, kind)
    (batcher.folder / "photos/g.heic").write_bytes(b"\0\0\0\x18ftypheic" + b"\0" * 64)
    (batcher.folder / "photos/h.jpg").write_bytes((batcher.folder / "photos/a.jpg").read_bytes()[:900])
    counted = "8 photos: 5 usable, 1 HEIC, 1 TIFF, 1 broken"
    done = batcher("init", "-v")
    assert counted in done.out and "HEIC: photos/g.heic" in done.out and "--skip-invalid" in done.out, done.out
    bad = batcher("plan", "batch.yaml")
    assert bad.code == 65 and counted in bad.err and "photos/g.heic:1: image_urls: is a HEIC photo" in bad.err, bad.err
    good = batcher("plan", "batch.yaml", "--skip-invalid", "-v")
    assert good.code == 0 and "8: 5 usable, 1 HEIC, 1 TIFF, 1 broken" in good.out and "broken: photos/h.jpg" in good.out
    plan = batcher("plan", "batch.yaml", "--skip-invalid", "--json").json()
    assert plan["photos"]["named"]["TIFF"] == ["photos/f.tif"] and plan["photos"]["usable"] == 5


def test_an_image_url_on_this_machine_is_a_fault_but_where_the_server_is_here_too(batcher: Batcher, api: Api) -> None:
    rows = "prompt,image_urls\na,http://127.0.0.1:9/a.png\n"
    (batcher.folder / "jobs.csv").write_text(rows)
    away = {"RUNCOMFY_MODEL_API_BASE": "https://model-api.invalid"}
    bad = batcher("plan", "jobs.csv", "--model", MODEL, **away)
    assert bad.code == 65 and "jobs.csv:2: image_urls: http://127.0.0.1:9/a.png is at 127.0.0.1" in bad.err
    assert batcher("plan", "jobs.csv", "--model", MODEL).code == 0, "the API is on this machine"
    assert batcher("plan", "jobs.csv", "--model", MODEL, "--sandbox", **away).code == 0
    (batcher.folder / "jobs.csv").write_text(rows.replace("127.0.0.1", "10.0.0.1"))
    assert batcher("plan", "jobs.csv", "--model", MODEL, "--sandbox").code == 65


def test_a_time_of_day_is_an_option_and_a_setting_and_is_kept(batcher: Batcher, api: Api) -> None:
    assert "write 03:00" in batcher.run_csv(["a"], "--until", "3am").err
    (batcher.folder / "m.yaml").write_text(f"model: {MODEL}\njobs: jobs.csv\nlimits: {{until: 9:05}}\n")
    plan = batcher("plan", "m.yaml", "--json").json()
    assert plan["settings"]["until"] == {"value": "09:05", "from": "manifest"}
    plan = batcher("plan", "m.yaml", "--json", BATCHER_UNTIL="21:30").json()
    assert plan["settings"]["until"] == {"value": "21:30", "from": "environment"}
    hour_ago = (datetime.now() - timedelta(hours=1)).strftime("%H:%M")  # noqa: DTZ005 - this machine's time
    assert batcher.run_csv(["a"], "--until", hour_ago).code == 0, "it is tomorrow's"
    again = batcher("resume", "runs/jobs")
    assert again.code == 0 and f"kept from the last start: --until {hour_ago}" in again.err, again.err


@pytest.mark.long
def test_nothing_is_submitted_after_a_time_of_day(batcher: Batcher, api: Api) -> None:
    api.delay = 3.0
    soon = (datetime.now() + timedelta(seconds=70)).strftime("%H:%M")  # noqa: DTZ005
    done = batcher.run_csv([f"p{n}" for n in range(100)], "-j", "1", "--until", soon)
    assert done.code == 75 and f"it is {soon}, the time set" in done.err, done.err
    stopped = batcher("status", "runs/jobs", "--json").json()["stopped"]
    assert (stopped["reason"], stopped["retryable"]) == ("time", True)
    assert datetime.now().strftime("%H:%M") == soon and len(api.journal) < 30  # noqa: DTZ005


def test_a_doctor_names_every_image_that_is_none(batcher: Batcher, api: Api) -> None:
    assert batcher.run_csv(["a"]).code == 0
    good = f"{api.base}/files/r-1/1"
    urls = [good, f"{api.base}/sign-in", f"{api.base}/redirect?to=/sign-in", f"{api.base}/files/nowhere/1"]
    rows = "".join(f"p{n},{url}\n" for n, url in enumerate(urls))
    (batcher.folder / "jobs.csv").write_text("prompt,image_urls\n" + rows + "bad,nowhere.png\n")
    done = batcher("doctor", "jobs.csv", "--model", MODEL, "--skip-invalid", "--json")
    checks = {one["check"]: one for one in done.json()}
    assert checks["manifest"]["message"] == "4 jobs, 4 outputs; 1 row with faults would be skipped"
    assert len(checks["images"]["each"]) == 3 and "web page" in checks["images"]["each"][-1], checks["images"]


def test_a_plan_knows_what_is_begun_however_the_manifest_was_turned_about(batcher: Batcher, api: Api) -> None:
    prompts = [f"p{n}" for n in range(12)]
    assert batcher.run_csv(prompts).code == 0
    jobs = [job["job_id"] for job in batcher("jobs", "runs/jobs", "--json").lines()]
    turned = [*jobs[5:], "0" * 16, *reversed(jobs[:5])]
    with Reader(batcher.folder / "runs/jobs") as reader:
        for width in (1, 3, 5, 40):
            pages = [turned[start : start + width] for start in range(0, len(turned), width)]
            found = list(reader.states_of(pages))
            assert [set(page) - {"0" * 16} for page in pages] == [set(states) for states in found]
            assert {state for states in found for state in states.values()} == {("done", True)}
    batcher.csv(["new", *prompts[3:], "newer"])
    plan = batcher("plan", "jobs.csv", "--model", MODEL, "--json").json()
    assert (plan["begun"], plan["to_buy"]) == (0, 11), "the image of each row is another: its number is in its name"
    (batcher.folder / "jobs.csv").write_text(
        "prompt,image_urls\nnew,https://images.invalid/n.png\n"
        + "".join(f'"p{n}",https://images.invalid/{n}.png\n' for n in reversed(range(3, 12)))
    )
    plan = batcher("plan", "jobs.csv", "--model", MODEL, "--json").json()
    assert (plan["begun"], plan["to_buy"]) == (9, 1)
    assert any("3 finished jobs are no longer named" in said for said in plan["warnings"]), plan["warnings"]
    narrow = batcher("plan", "jobs.csv", "--model", MODEL, "--where", "prompt == 'p3'", "--json").json()
    assert any("3 finished jobs are no longer named" in said for said in narrow["warnings"]), narrow["warnings"]


def test_a_photo_that_was_added_later_is_taken_in_by_the_same_command(batcher: Batcher, api: Api) -> None:
    Image.effect_noise((50, 50), 90).convert("RGB").save(batcher.folder / "a.png")
    (batcher.folder / "rows.csv").write_text("what,photo\none,a.png\ntwo,later.png\n")
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: rows.csv\ninputs: {{prompt: '{{{{ what }}}}', image_urls: ['{{{{ photo }}}}']}}\n"
    )
    assert batcher("run", "m.yaml", "--skip-invalid").code == 0 and len(api.journal) == 1
    (batcher.folder / "later.png").write_bytes((batcher.folder / "a.png").read_bytes())
    assert batcher("run", "m.yaml", "--skip-invalid").code == 0
    assert sorted(api.prompts()) == ["one", "two"] and batcher.states("runs/m") == {"done": 2}


def test_a_narrowed_run_unlists_nothing_that_it_could_not_look_at(batcher: Batcher, api: Api) -> None:
    rows = "what,photo\n"
    for n in range(6):
        Image.effect_noise((50, 50), 90).convert("RGB").save(batcher.folder / f"{n}.png")
        rows += f"w{n},{n}.png\n"
    (batcher.folder / "rows.csv").write_text(rows)
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: rows.csv\ninputs: {{prompt: '{{{{ what }}}}', image_urls: ['{{{{ photo }}}}']}}\n"
    )
    assert batcher("run", "m.yaml", "--where", "index <= 4").code == 0
    for n in range(4):
        (batcher.folder / f"{n}.png").rename(batcher.folder / f"away-{n}.png")
    done = batcher("run", "m.yaml", "--where", "what == 'w5'")
    assert done.code == 0 and "no longer named" not in done.err, done.err
    assert batcher.states("runs/m") == {"done": 5, "pending": 1} and len(api.journal) == 5
    for n in range(4):
        (batcher.folder / f"away-{n}.png").rename(batcher.folder / f"{n}.png")
    (batcher.folder / "rows.csv").write_text("\n".join(rows.splitlines()[:-2]) + "\n")
    edited = batcher("run", "m.yaml")
    assert "1 job that are done are no longer named" in edited.err or "no longer named: their files stay" in edited.err


def test_a_job_that_is_named_again_has_its_file_again_which_is_looked_after(batcher: Batcher, api: Api) -> None:
    text = (
        f"model: {MODEL}\ninputs: {{prompt: PROMPT, image_urls: [https://i.invalid/1.png]}}\noutput: {{name: same}}\n"
    )
    for prompt in ("one", "two", "one"):
        (batcher.folder / "m.yaml").write_text(text.replace("PROMPT", prompt))
        assert batcher("run", "m.yaml").code == 0
    assert len(api.journal) == 2
    (old,) = (batcher.folder / "runs/m/files").rglob("*.png")
    assert json.loads(old.with_suffix(".json").read_text())["inputs"]["prompt"] == "one"
    old.unlink()
    verified = batcher("verify", "runs/m")
    assert verified.code == 1 and "files/same" in verified.out and old.exists(), "it is fetched again, not bought"
    assert len(api.journal) == 2


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_rows_that_are_written_make_the_same_jobs_again(batcher: Batcher, api: Api, kind: str) -> None:
    (batcher.folder / "rows.csv").write_text(
        "Title;reason;color;Photo\nGroß;sale;;https://i.invalid/1.png\nB;winter;red;https://i.invalid/2.png\n", "cp1252"
    )
    form = "{file: FILE, columns: {t: Title, p: Photo}, delimiter: ';', encoding: cp1252}"
    text = (
        f"model: {MODEL}\ninputs: {{prompt: '{{{{ t }}}} {{{{ color }}}} for {{{{ reason }}}}', image_urls: ['{{{{ p }}}}']}}\n"
        f"jobs: {form if kind == 'csv' else 'FILE'}\n"
    )
    (batcher.folder / "m.yaml").write_text(text.replace("jobs: FILE", f"jobs: {form}").replace("FILE", "rows.csv"))
    assert batcher("run", "m.yaml").code == 0
    said = batcher("jobs", "runs/m", "--rows", f"again.{kind}")
    assert said.code == 0, said.err
    (batcher.folder / "n.yaml").write_text(text.replace("FILE", f"again.{kind}"))
    done = batcher("run", "n.yaml", "-o", "runs/m")
    assert done.code == 0, done.err
    assert len(api.journal) == 2, "the same jobs, with the user's own column as it was"
    assert batcher("jobs", "runs/m", "--unlisted", "--rows", "x.csv").code == 64


def test_a_row_that_no_cell_can_hold_is_written_as_jsonl_only(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\ninputs: {{prompt: 'a {{{{ flag }}}}', image_urls: [https://i.invalid/1.png]}}\njobs: [{{flag: true}}]\n"
    )
    assert batcher("run", "m.yaml").code == 0
    refused = batcher("jobs", "runs/m", "--rows", "x.csv")
    assert refused.code == 64 and ".jsonl" in refused.err and not (batcher.folder / "x.csv").exists()
    assert batcher("jobs", "runs/m", "--rows", "x.jsonl").code == 0


@pytest.mark.parametrize("heading", ['"Image\nURL"', "pho\x0bto", "p\x07hoto", '"ph""oto"', "ph'oto", "ph\\oto"])
def test_a_manifest_of_any_heading_can_be_read(batcher: Batcher, heading: str) -> None:
    (batcher.folder / "t.csv").write_text(f"sku,title,{heading}\nA,x,https://i.invalid/1.png\n")
    assert batcher("init", "t.csv").code == 0
    plan = batcher("plan", "t.yaml", "--json").json()
    assert (plan["fault_count"], plan["jobs"]) == (0, 2), plan["faults"]


def test_a_new_manifest_is_not_written_where_a_folder_was_meant(batcher: Batcher) -> None:
    done = batcher("init", "newdir/")
    assert done.code == 64 and "newdir.yaml" in done.err and not (batcher.folder / "newdir").exists()
    (batcher.folder / "photos").mkdir()
    assert "is a folder" in batcher("run", "photos").err


def test_a_doctor_narrows_as_a_run_does(batcher: Batcher, api: Api) -> None:
    (batcher.folder / "jobs.csv").write_text("prompt,image_urls\na,https://i.invalid/1.png\nb,\n")
    done = batcher("doctor", "jobs.csv", "--model", MODEL, "--where", "image_urls", "--json")
    checks = {one["check"]: one for one in done.json()}
    assert checks["manifest"]["message"] == "1 jobs, 1 outputs"
