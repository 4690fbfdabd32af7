"""The report in a real browser, opened from disk."""

import json
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from batcher.show.report import charts
from batcher.show.report.report import in_page
from tests.faces.conftest import EVIL, rehearse
from tests.real.api import Api, own
from tests.real.conftest import MODEL, Batcher


class Opened:
    """Opens reports, and hears what goes wrong in them or would leave this disk."""

    def __init__(self, browser: Any, out: Path) -> None:
        self._browser, self._out = browser, out
        self.wrong: list[str] = []
        self.contexts: list[Any] = []

    def __call__(self, address: str = "", out: Path | None = None, **how: Any) -> Any:
        context = self._browser.new_context(**{"viewport": {"width": 1280, "height": 800}, **how})
        self.contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: self.wrong.append(said.text) if said.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        page.on("request", self._asked)
        page.goto(((out or self._out) / "report.html").resolve().as_uri() + address)
        page.wait_for_selector("html[data-ready]")
        return page

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.wrong.append(request.url)


@pytest.fixture
def page_of(browser: Any, rehearsed: Path) -> Iterator[Opened]:
    opened = Opened(browser, rehearsed)
    yield opened
    for context in opened.contexts:
        context.close()
    assert opened.wrong == []


def until(page: Any, holds: str) -> None:
    """Wait for something in the page. Its policy forbids the browser's own way, which evaluates text."""
    for _ in range(500):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"it never came: {holds}")


def shown(page: Any) -> int:
    count: int = page.locator("#show .frame").count()
    return count


def test_it_opens_from_disk_and_every_picture_is_there(page_of: Opened) -> None:
    page = page_of()
    assert shown(page) == 6
    assert page.locator("#found").inner_text() == "5 pictures and 1 job without one"
    until(page, "[...document.querySelectorAll('#show img')].every(i => i.complete && i.naturalWidth > 0)")
    assert page.locator("#show img").count() == 11  # before and after of five; one failed, and shows its original
    assert "failed: failed" in page.locator("#show").inner_text()
    page.locator("button.title", has_text="a#1 50%").first.click()
    page.locator("#following").click()
    sizes = "[...document.querySelectorAll('#stage img')].map(i => i.naturalWidth)"
    until(page, f"{sizes}.every(w => w > 0) && {sizes}.length === 2")


def test_what_a_manifest_holds_is_text(page_of: Opened) -> None:
    page = page_of()
    assert page.title() == EVIL
    assert page.locator("h1").inner_text() == EVIL
    page.locator("#search").fill("onerror")
    until(page, "document.querySelector('#found').textContent.endsWith(', of 6 in all')")
    assert EVIL in page.locator(".caption p").first.inner_text()
    assert (
        page.evaluate("""() => { const s = document.createElement('script'); s.textContent = 'window.owned = 1';
        try { document.body.append(s); } catch {} return window.owned; }""")
        is None
    )
    assert page.locator("script").count() == 3  # its data, its own, and the one that was not let run
    (said,) = page_of.wrong
    assert "Content Security Policy" in said
    page_of.wrong.clear()


def test_a_rehearsal_says_so_on_a_slim_band_and_on_every_picture(page_of: Opened) -> None:
    letters = "e => parseFloat(getComputedStyle(e).fontSize)"
    for width, slim in ((390, 80), (1280, 40)):
        page = page_of(viewport={"width": width, "height": 800})
        band = page.locator(".rehearsal-band")
        assert "REHEARSAL" in band.inner_text().upper() and band.is_visible()
        assert band.bounding_box()["height"] <= slim
        largest = max(page.locator("body *").evaluate_all(f"all => all.map({letters})"))
        assert page.locator("h1").evaluate(letters) == largest > band.locator("strong").evaluate(letters)
        assert page.locator("#show .stamp").count() == 5
        page.locator("button.title").nth(1).click()
        assert page.locator("#stage .stamp").is_visible()


def test_pictures_are_found_by_state_words_and_variables(page_of: Opened) -> None:
    page = page_of()
    page.locator(".chip", has_text="failed").click()
    assert shown(page) == 1
    assert page.locator(".chip", has_text="failed").get_attribute("aria-pressed") == "true"
    page.locator(".chip", has_text="failed").click()
    page.locator('select[data-field="scene"]').select_option(label="white marble")
    assert shown(page) == 3
    page.locator("#search").fill("größe MARBLE")
    until(page, "document.querySelectorAll('#show .frame').length === 1")
    address = page.url
    again = page_of("#" + address.partition("#")[2])
    assert shown(again) == 1
    page.locator("#search").fill("no such thing")
    page.wait_for_selector(".empty")
    page.locator(".empty button").click()
    assert shown(page) == 6


def test_a_contact_sheet_groups_by_any_two_variables(page_of: Opened) -> None:
    page = page_of()
    page.locator('input[value="sheet"]').check(force=True)
    heads = page.locator(".sheet thead th").all_inner_texts()
    assert heads[1:] == ["original", "white marble", "a slate table top"]
    assert page.locator(".sheet tbody tr").count() == 3
    assert page.locator(".sheet tbody tr").nth(1).locator(".frame").count() == 3
    page.locator("#by-rows").select_option("scene")
    page.locator("#by-columns").select_option("sku")
    assert page.locator(".sheet tbody th").all_inner_texts() == ["white marble", "a slate table top"]
    assert page.locator(".sheet thead th").all_inner_texts()[1:] == ["a#1 50%", "b", "ü 磨"]


def test_one_picture_is_seen_large_by_the_keyboard_alone(page_of: Opened) -> None:
    page = page_of()
    page.locator("button.title").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("#zoom").evaluate("e => e.open")
    assert page.locator("#place").inner_text() == "2 of 6"
    page.keyboard.press("ArrowRight")
    assert page.locator("#place").inner_text() == "3 of 6"
    width = page.locator(".picture").bounding_box()["width"]
    page.keyboard.press("+")
    assert page.locator(".picture").bounding_box()["width"] > 1.3 * width
    page.keyboard.press("0")
    assert page.locator(".picture").bounding_box()["width"] == pytest.approx(width, abs=1)
    clip = "getComputedStyle(document.querySelector('.picture .over')).clipPath"
    page.keyboard.press("b")
    assert page.evaluate(clip) == "inset(0px 0px 0px 100%)"
    page.keyboard.press("b")
    assert page.evaluate(clip) == "inset(0px 0px 0px 50%)"
    page.locator("#slider").focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(clip) == "inset(0px 0px 0px 51%)"
    facts = page.locator("#facts").inner_text()
    assert "Put the" in facts and "white marble" in facts and "Pretended bill" in facts and "$0.15" in facts
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").evaluate("e => e.open")
    assert page.evaluate("document.activeElement.textContent") == page.locator("button.title").nth(2).inner_text()


def test_the_slider_on_a_card_follows_the_mouse_and_the_keys(page_of: Opened) -> None:
    page = page_of()
    holder = page.locator(".holder").first
    box = holder.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + box["height"] / 2)
    clip = "getComputedStyle(document.querySelector('.holder .over')).clipPath"
    assert 20 <= float(page.evaluate(clip).split()[-1].rstrip("%)")) <= 30
    holder.locator(".slide").focus()
    page.keyboard.press("End")
    assert page.evaluate(clip) == "inset(0px 0px 0px 100%)"
    page.keyboard.press("Enter")
    assert page.locator("#zoom").evaluate("e => e.open")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.long)])
def test_axe_finds_no_fault(page_of: Opened, scheme: str) -> None:
    for view in ("pairs", "grid", "sheet"):
        page = page_of(f"#view={view}", color_scheme=scheme)
        assert faults(page) == []
    page.locator("#show .frame").nth(1).click()
    assert faults(page) == []


def faults(page: Any) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def ratios(page: Any, selector: str) -> list[float]:
    """Return width by height of each of these, as they stand in the page."""
    found: list[float] = page.locator(selector).evaluate_all(
        "all => all.map(e => e.getBoundingClientRect()).map(b => b.width / b.height)"
    )
    return found


def test_pictures_of_mixed_shape_have_each_their_own_stage(page_of: Opened, mixed: Path) -> None:
    for view in ("pairs", "grid"):
        page = page_of(f"#view={view}", out=mixed)
        until(page, "[...document.querySelectorAll('#show img')].slice(0, 8).every(i => i.complete)")
        shapes = {round(ratio, 1) for ratio in ratios(page, "#show .frame")}
        assert shapes == {1.8, 0.6, 1.0}, "nothing is cropped, and no stage is larger than its picture"
        fit = "e => getComputedStyle(e).objectFit"
        assert page.locator("#show .frame img").first.evaluate(fit) == "contain"


def test_a_contact_sheet_shows_all_of_a_cell_and_the_original_beside_it(page_of: Opened, mixed: Path) -> None:
    page = page_of("#view=sheet", out=mixed)
    assert page.locator(".sheet thead th").all_inner_texts() == [
        "stem \N{MULTIPLICATION SIGN} scene",
        "original",
        "marble",
        "slate",
    ]
    assert page.locator(".sheet tbody tr").first.locator("td.first img").count() == 1
    cell = page.locator(".sheet tbody td").nth(1)
    assert cell.locator(".frame").count() == 4 and cell.locator(".more").inner_text() == "+2"
    cell.locator(".more").click()
    assert cell.locator(".frame").count() == 6
    assert page.evaluate("document.activeElement.textContent") == "fewer"
    page.keyboard.press("Enter")
    assert cell.locator(".frame").count() == 4
    narrow = page.locator(".sheet .frame").first.bounding_box()["width"]
    page.locator("#size").fill("8")
    assert page.locator(".sheet .frame").first.bounding_box()["width"] > 1.4 * narrow
    assert (
        "size=8" in page.url
        and page_of("#" + page.url.partition("#")[2], out=mixed).locator("#size").input_value() == "8"
    )


def test_earlier_results_of_a_row_are_beside_the_new_one(page_of: Opened, mixed: Path) -> None:
    page = page_of("#search=square/marble-1", out=mixed)
    assert shown(page) == 1 and page.locator(".earlier button").count() == 1
    page.locator(".earlier button").click()
    assert page.locator("#stage .side").all_inner_texts() == ["earlier", "now"]
    assert "replaced/" in (page.locator("#stage .under").get_attribute("src") or "")
    until(page, "[...document.querySelectorAll('#stage img')].every(i => i.naturalWidth > 0)")
    facts = page.locator("#facts").inner_text()
    assert "Earlier results of this row" in facts and "soft on marble" in facts
    page.locator(".older").click()
    assert page.locator("#stage .side").all_inner_texts() == ["before", "after"]


def test_an_earlier_result_is_seen_while_the_new_one_is_still_to_come(
    page_of: Opened, mixed: Path, tmp_path: Path
) -> None:
    for name in ("wide", "tall", "square"):
        shutil.copy(mixed.parent / f"{name}.jpg", tmp_path)
    shutil.copytree(mixed, tmp_path / "out")
    text = (mixed.parent / "m.yaml").read_text().replace("hard on", "new on").replace("repeat: 6", "repeat: 1")
    (tmp_path / "m.yaml").write_text(text)
    assert rehearse(tmp_path, "run", "m.yaml", "--sandbox", "-o", "out", "--limit", "1", "--replace-done") == 0
    assert rehearse(tmp_path, "report", "out") == 0
    page = page_of("#state=pending", out=tmp_path / "out")
    page.locator(".earlier button").first.click()
    assert page.locator("#stage .side").all_inner_texts() == ["earlier"]
    until(page, "[...document.querySelectorAll('#stage img')].every(i => i.naturalWidth > 0)")
    assert "waits to be sent" not in page.locator("#stage").inner_text()
    assert faults(page) == []


def test_the_first_screen_of_a_phone_shows_a_picture(page_of: Opened, mixed: Path) -> None:
    page = page_of(out=mixed, viewport={"width": 390, "height": 844})
    box = page.locator("#show .frame").first.bounding_box()
    assert box["y"] < 844 * 0.45, "half of the screen and more is the picture's"
    assert not page.locator("#search").is_visible()
    page.locator("#more").click()
    assert page.locator("#search").is_visible() and page.locator("#more").get_attribute("aria-expanded") == "true"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert faults(page) == []


def test_chips_count_jobs_as_the_head_does(page_of: Opened, batcher: Batcher, api: Api) -> None:
    (batcher.folder / "m.yaml").write_text(
        f"model: {MODEL}\njobs: jobs.csv\ninputs: {{num_images: 3}}\noutput: {{name: 'x{{{{ index }}}}'}}\n"
    )
    batcher.csv(["a", "b"])
    api.specials = [None, own(400, 400001, "not like this")]
    assert batcher("run", "m.yaml", "-j", "1").code == 1
    batcher("report", "runs/m")
    page = page_of(out=batcher.folder / "runs/m")
    assert page.locator("#found").inner_text() == "3 pictures and 1 job without one"
    jobs = page.get_by_role("group", name="Jobs").locator(".chip")
    assert jobs.all_inner_texts() == ["done 1", "failed 1"]
    assert "Done\n1 of 2" in page.locator(".summary").inner_text()
    assert page.get_by_role("group", name="Pictures").locator(".chip").first.is_visible(), "what is odd of pictures"


def test_any_page_is_a_step_away(page_of: Opened, rehearsed: Path, tmp_path: Path) -> None:
    shutil.copytree(rehearsed, tmp_path / "out")
    text = (tmp_path / "out/report.html").read_text()
    head, mark, rest = text.partition('<script type="application/json" id="data">')
    content, end, tail = rest.partition("</script>")
    data = json.loads(content) | {"twins": []}
    data["cards"] = [card for _ in range(140) for card in data["cards"][1:6]]
    (tmp_path / "out/report.html").write_text(head + mark + in_page(data) + end + tail)
    page = page_of(out=tmp_path / "out")
    number = page.locator(".pager input").first
    assert number.get_attribute("max") == "12"
    for asked, given, count in (("7", "7", 60), ("99", "12", 40), ("0", "1", 60)):
        page.locator(".pager input").first.fill(asked)
        page.locator(".pager input").first.press("Enter")
        until(page, f"document.querySelector('.pager input').value === '{given}'")
        assert shown(page) == count


def test_a_film_shows_its_beginning_and_plays(page_of: Opened, tmp_path: Path) -> None:
    Image.effect_noise((300, 200), 40).convert("RGB").save(tmp_path / "a.jpg")
    (tmp_path / "v.yaml").write_text("model: sandbox/turntable/image-to-video\ninputs: {image: a.jpg, duration: 1}\n")
    assert rehearse(tmp_path, "run", "v.yaml", "--sandbox", "-o", "out") == 0
    text = (tmp_path / "v.yaml").read_text()
    (tmp_path / "v.yaml").write_text(text.replace("inputs: {", "inputs: {prompt: turn it, "))
    assert rehearse(tmp_path, "run", "v.yaml", "--sandbox", "-o", "out") == 0
    assert rehearse(tmp_path, "report", "out") == 0
    page = page_of(out=tmp_path / "out")
    assert page.locator("#found").inner_text() == "1 video"
    page.locator(".earlier button").click()
    until(page, "document.querySelector('#stage video').readyState >= 2")
    assert "replaced" in page.locator("#stage video").get_attribute("src") or "files" in page.locator(
        "#stage video"
    ).get_attribute("src")
    assert page.locator("#stage .side").all_inner_texts() == ["earlier"]
    page.keyboard.press("Escape")
    until(page, "document.querySelector('#show video').readyState >= 2")
    page.locator("#show .frame").click()
    until(page, "document.querySelector('#stage video').readyState >= 3")
    page.locator("#stage video").evaluate("v => { v.muted = true; return v.play(); }")
    until(page, "document.querySelector('#stage video').currentTime > 0.3")
    assert faults(page) == []
    film = max((tmp_path / "out/files").rglob("*.webm"), key=lambda file: file.stat().st_mtime)
    film.write_bytes(b"RIFF\x04\0\0\0AVI " + bytes(film.stat().st_size - 12))
    bad = page_of(out=tmp_path / "out")
    until(bad, "document.querySelector('#show').textContent.includes('this browser cannot play it')")


def test_an_axis_shows_the_whole_of_its_largest_sum() -> None:
    svg = charts.area([(0.0, 0.0), (9.0, 600_000.0)], label="x", x=str, y=lambda value: f"${value:,.0f}")
    ends = [float(found[1]) for found in re.finditer(r'<text x="([\d.]+)"[^>]*text-anchor="end">\$', svg)]
    assert ends and min(ends) >= 7 * len("$600,000") - 4, "a digit of 11 pixels is under 7 wide"


@pytest.mark.parametrize("width", [360, 768, pytest.param(1920, marks=pytest.mark.long)])
def test_nothing_is_wider_than_the_window(page_of: Opened, width: int) -> None:
    for view in ("pairs", "grid", "sheet"):
        page = page_of(f"#view={view}", viewport={"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_it_prints_without_its_controls(page_of: Opened) -> None:
    page = page_of()
    page.emulate_media(media="print")
    assert not page.locator(".tools").is_visible()
    assert page.locator(".rehearsal-band").is_visible()
    assert len(page.pdf()) > 20_000


def test_files_that_are_gone_or_changed_are_named(page_of: Opened, rehearsed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(rehearsed, out)
    first, second, *_ = sorted((out / "files").rglob("*.jpg"))
    first.unlink()
    second.write_bytes(b"other")
    assert rehearse(tmp_path, "report", "out") == 0
    page = page_of(out=out)
    assert {"file missing", "file changed"} <= set(page.locator(".flags li").all_inner_texts())
    page.locator(".chip", has_text="file missing").click()
    assert shown(page) == 1


@pytest.mark.long
def test_a_run_that_has_no_pictures_yet_has_a_report(page_of: Opened, rehearsed: Path, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text((rehearsed.parent / "m.yaml").read_text())
    shutil.copytree(rehearsed.parent / "photos", tmp_path / "photos")
    assert rehearse(tmp_path, "run", "m.yaml", "--sandbox", "-o", "out", "--max-time", "0.001s") == 75
    assert rehearse(tmp_path, "report", "out", "--json") == 0
    page = page_of(out=tmp_path / "out")
    assert "waits to be sent" in page.locator("#show").inner_text()
    assert "batcher resume out" in page.locator(".next").inner_text()


def test_fewer_are_shown_and_it_says_so(page_of: Opened, rehearsed: Path, tmp_path: Path) -> None:
    shutil.copytree(rehearsed, tmp_path / "out")
    assert rehearse(tmp_path, "report", "out", "--most", "3") == 0
    page = page_of(out=tmp_path / "out")
    assert shown(page) == 3
    assert "3 of 6 jobs are shown, evenly spread" in page.locator("main").inner_text()


def test_thumbnails_are_made_once(rehearsed: Path, tmp_path: Path) -> None:
    shutil.copytree(rehearsed, tmp_path / "out")
    thumbs = {file: file.stat().st_mtime_ns for file in (tmp_path / "out/thumbs").rglob("*.webp")}
    assert len(thumbs) == 5 + 2 * 3  # of outputs; of originals, which are shown large too
    assert rehearse(tmp_path, "report", "out") == 0
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out/thumbs").rglob("*.webp")} == thumbs
    looks = (tmp_path / "out/thumbs/looks.jsonl").read_text().splitlines()
    assert len({json.loads(line)[0] for line in looks}) == len(looks) == 8


def test_originals_named_by_url_are_fetched_once_when_asked_for(batcher: Batcher, api: Api, page_of: Opened) -> None:
    good, gone = f"{api.base}/files/r-1/original.png", f"{api.base}/files/r-99/gone.png"
    (batcher.folder / "jobs.csv").write_text(
        f"prompt,image_urls\na,{good}\nb,{good}\nc,{gone}\nd,http://127.0.0.1:9/x.png\n"
    )
    assert batcher("run", "jobs.csv", "--model", MODEL).code == 0
    asked = len(api.requests)
    plain = batcher("report", "runs/jobs")
    assert "3 originals are named by URL: batcher report runs/jobs --originals fetches them" in plain.out
    assert len(api.requests) == asked
    told = batcher("report", "runs/jobs", "--originals", "--json").json()
    assert (told["missed"], told["elsewhere"]) == (2, 2)
    assert api.downloads_with_token == 0
    page = page_of(out=batcher.folder / "runs/jobs")
    assert page.locator(".holder").count() == 2
    asked = len([one for one in api.requests if "original" in one[1]])
    batcher("report", "runs/jobs", "--originals")
    assert len([one for one in api.requests if "original" in one[1]]) == asked


@pytest.mark.long
def test_links_in_a_run_directory_lead_out_of_it_nowhere(rehearsed: Path, tmp_path: Path) -> None:
    out, mine = tmp_path / "out", tmp_path / "mine"
    shutil.copytree(rehearsed, out)
    mine.mkdir()
    (mine / "letter").write_text("dear")
    (out / "report.html").unlink()
    (out / "report.html").symlink_to(mine / "letter")
    assert rehearse(tmp_path, "report", "out") == 0
    assert (mine / "letter").read_text() == "dear"
    assert not (out / "report.html").is_symlink()
    shutil.rmtree(out / "thumbs")
    (out / "thumbs").symlink_to(mine)
    assert rehearse(tmp_path, "report", "out") == 64
    assert [file.name for file in mine.iterdir()] == ["letter"]


@pytest.mark.long
def test_reports_written_at_once_are_each_whole(rehearsed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(rehearsed, out)
    shutil.rmtree(out / "thumbs")
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: rehearse(tmp_path, "report", "out"), range(4))) == [0] * 4
    text = (out / "report.html").read_text()
    assert text.rstrip().endswith("</html>")
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert len(json.loads(data)["cards"]) == 6
    assert not list(out.rglob("*.part"))


def test_back_closes_a_picture_and_an_address_opens_one(page_of: Opened) -> None:
    page = page_of()
    page.locator("button.title").nth(2).click()
    name = page.locator("#facts h2").inner_text()
    assert page.locator("#zoom").evaluate("e => e.open")
    address = page.url.partition("#")[2]
    page.evaluate("history.back()")
    until(page, "!document.querySelector('#zoom').open")
    assert page.url.startswith("file:") and shown(page) == 6
    again = page_of("#" + address)
    assert again.locator("#facts h2").inner_text() == name
    again.keyboard.press("Escape")
    until(again, "!document.querySelector('#zoom').open")
    until(again, "!location.hash.includes('open=')")


def test_a_picture_larger_than_the_window_is_moved_by_the_mouse(page_of: Opened) -> None:
    page = page_of()
    page.locator("button.title").nth(2).click()
    for _ in range(4):
        page.keyboard.press("+")
    box = page.locator("#stage").bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    before = page.locator("#stage").evaluate("e => [e.scrollLeft, e.scrollTop]")
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] - 120, middle[1] - 80, steps=4)
    page.mouse.up()
    after = page.locator("#stage").evaluate("e => [e.scrollLeft, e.scrollTop]")
    assert (after[0] - before[0], after[1] - before[1]) == (120, 80)
    assert page.locator("#slider").input_value() == "50"
