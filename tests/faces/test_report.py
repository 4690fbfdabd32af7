"""The report in a real browser, opened from disk."""

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.faces.conftest import EVIL, rehearse
from tests.real.api import Api
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


def test_a_rehearsal_says_so_in_large_letters(page_of: Opened) -> None:
    for width in (390, 1280):
        page = page_of(viewport={"width": width, "height": 800})
        banner = page.locator(".rehearsal-band strong")
        assert banner.inner_text().upper() == "REHEARSAL"
        assert float(banner.evaluate("e => parseFloat(getComputedStyle(e).fontSize)")) >= 28
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
    assert heads[1:] == ["white marble", "a slate table top"]
    assert page.locator(".sheet tbody tr").count() == 3
    assert page.locator(".sheet tbody tr").nth(1).locator(".frame").count() == 2
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
def test_axe_finds_no_serious_fault(page_of: Opened, scheme: str) -> None:
    for view in ("pairs", "grid", "sheet"):
        page = page_of(f"#view={view}", color_scheme=scheme)
        assert serious(page) == []
    page.locator("#show .frame").nth(1).click()
    assert serious(page) == []


def serious(page: Any) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in {"serious", "critical"}
    ]


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
