"""What people bring to the command line: folders of mixed photos, shops' tables, images that are none."""

import io
import zlib
from datetime import datetime, timedelta

import pytest
from PIL import Image

from batcher.ledger.reader import Reader
from tests.real.api import Api
from tests.real.conftest import MODEL, Batcher


def damaged_png() -> bytes:
    """Return a PNG each of whose checksums is right, and half of whose pixels are not there."""
    made = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(made, "PNG")
    content, out, at = made.getvalue(), b"\x89PNG\r\n\x1a\n", 8
    while at < len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + length]
        body = body[: length // 2] if kind == b"IDAT" else body
        out += len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        at += 12 + length
    return out


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
    assert checks["manifest"]["message"] == "4 jobs, 4 outputs; 1 bad rows are left out"
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
