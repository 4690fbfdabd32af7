"""Pictures for the documents: a catalogue of 60 products in 4 scenes is rehearsed, and its report photographed.

Usage: scripts/shots [FOLDER]   (by default docs/images)
"""

import csv
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console

from batcher.show.board import drawn
from batcher.show.progress import Tally
from tests.faces.conftest import CHROMIUM, PHOTOS

GLAZES = 10
MANIFEST = """model: google/nano-banana/pro/edit
name: Autumn catalogue
inputs:
  prompt: "Put the {{ title }} on {{ scene }}, soft shadow, keep its shape, colour and label."
  image_urls: ["{{ photo }}"]
  aspect_ratio: "4:5"
  resolution: 1K
  output_format: jpeg
jobs: products.csv
matrix:
  scene: [a bright kitchen table, a slate table top, white marble, a terrace at sunset]
output: {name: "{{ title | slug }}/{{ scene | slug }}"}
limits: {concurrency: 32, max_cost_usd: 40}
"""
VIEWS = {
    "report-wide": (1920, 1080, "#view=pairs", None),
    "report-laptop": (1280, 800, "#view=sheet&rows=title&columns=scene", None),
    "report-zoom": (1280, 800, "#view=pairs&search=vase+5&state=done", "#show .title"),
    "report-phone": (390, 844, "#view=pairs&search=mug+8", None),
    "report-dark": (1280, 800, "#view=grid", None),
}


def catalogue(folder: Path) -> Path:
    """Make sixty product photos of six, in ten glazes, and their manifest."""
    (folder / "photos").mkdir()
    with (folder / "products.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["title", "photo"])
        for photo in sorted(PHOTOS.glob("*.jpg")):
            with Image.open(photo) as opened:
                hue, saturation, value = opened.convert("HSV").split()
            for n in range(GLAZES):
                turned = hue.point([(level + n * 25) % 256 for level in range(256)])
                name = f"photos/{photo.stem}-{n + 1}.jpg"
                Image.merge("HSV", (turned, saturation, value)).convert("RGB").save(folder / name, quality=90)
                rows.writerow([f"{photo.stem} no. {n + 1}", name])
    (folder / "catalogue.yaml").write_text(MANIFEST)
    return folder / "catalogue.yaml"


def rehearsed(folder: Path) -> Path:
    """Run it on the sandbox, with a few refusals."""
    environ = os.environ | {"BATCHER_SANDBOX_ARGS": "--slots 16 --speed 3 --fault refuse=0.02"}
    command = [sys.executable, "-m", "batcher"]
    subprocess.run(
        [*command, "run", "catalogue.yaml", "--sandbox", "-q", "-o", "out"], cwd=folder, env=environ, check=False
    )
    subprocess.run([*command, "report", "out"], cwd=folder, check=True)
    return folder / "out"


def photographed(out: Path, images: Path) -> None:
    """Photograph the report at phone, laptop and wide size."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, (width, height, address, click) in VIEWS.items():
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme="dark" if name.endswith("dark") else "light"
            )
            page = context.new_page()
            page.goto((out / "report.html").resolve().as_uri() + address)
            page.wait_for_selector("html[data-ready]")
            if click:
                page.locator(click).first.click()
            page.wait_for_timeout(800)
            shot = Image.open(io.BytesIO(page.screenshot()))
            shot.convert("RGB").save(images / f"{name}.webp", quality=82, method=6)
        browser.close()


def board(out: Path, images: Path) -> None:
    """Draw the board as it was half-way, from the run's own events."""
    import json
    import sqlite3

    from batcher.events import Moved, Started
    from batcher.job import State

    connection = sqlite3.connect(out / "ledger.sqlite")
    rows = connection.execute("SELECT at, job_id, type, facts FROM events ORDER BY seq").fetchall()
    now = [rows[0][0]]
    tally = Tally(lambda: now[0])
    for at, job, kind, text in rows[: len(rows) * 6 // 10]:
        now[0] = at
        facts = json.loads(text)
        if kind == "Started":
            tally.take(Started(at, **facts))
        elif kind == "Moved":
            states = {"came_from": State(facts.pop("came_from")), "to": State(facts.pop("to"))}
            tally.take(Moved(at, job, **{**facts, **states}))
    console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
    console.print(drawn(tally.board(), 80))
    console.save_svg(str(images / "progress.svg"), title="batcher run catalogue.yaml --sandbox")


def main() -> int:
    """Make them all."""
    images = Path(sys.argv[1] if sys.argv[1:] else "docs/images").absolute()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        catalogue(folder)
        out = rehearsed(folder)
        photographed(out, images)
        board(out, images)
    print(*sorted(images.iterdir()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
