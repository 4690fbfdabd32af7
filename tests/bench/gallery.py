"""A report of many pictures: how long it takes to write and to open, and what memory it needs."""

import hashlib
import io
import os
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from PIL import Image

from tests.bench.common import MODEL, Line, Took, batcher

PICTURES = 200
SIDE = 1024


def pictures() -> list[bytes]:
    """Make JPEGs that are not alike: coarse noise, drawn large."""
    chance, made = random.Random(3), []
    for _ in range(PICTURES):
        out = io.BytesIO()
        coarse = Image.frombytes("RGB", (16, 16), chance.randbytes(16 * 16 * 3))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "JPEG", quality=88)
        made.append(out.getvalue())
    return made


def fill(folder: Path, outputs: int) -> Path:
    """Make a run directory in which so many jobs are done, each with a file of its own bytes."""
    with (folder / "rows.csv").open("w") as rows:
        rows.write("product,scene\n")
        rows.writelines(f"product {n // 4},scene {n % 4}\n" for n in range(outputs))
    (folder / "jobs.yaml").write_text(
        f'model: {MODEL}\njobs: rows.csv\ninputs:\n  prompt: "Put the {{{{ product }}}} on {{{{ scene }}}}, soft shadow."\n'
        '  image_urls: ["https://images.example/a.png"]\noutput: {name: "{{ product }}/{{ scene }}"}\n'
    )
    out = folder / f"out{outputs}"
    batcher("run", "jobs.yaml", "--sandbox", "-o", str(out), "--quiet", "--max-time", "0.01s", cwd=folder, good=75)
    base = pictures()
    connection = sqlite3.connect(out / "ledger.sqlite")
    jobs = connection.execute("SELECT id, name FROM jobs ORDER BY position").fetchall()
    for n, (job, name) in enumerate(jobs):
        content = base[n % PICTURES] + n.to_bytes(4, "big")
        file = out / "files" / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        connection.execute(
            "INSERT OR REPLACE INTO attempts VALUES (?, 1, ?, 1, 1, ?, 'done', 0.15, 0.15, NULL)",
            (job, f"x{job}", 2.0 + n),
        )
        connection.execute("INSERT INTO outputs VALUES (?, 1, 1, 'u', ?, ?, ?, 'image/jpeg', ?, ?, 2)",
                           (job, f"files/{name}.jpg", len(content), hashlib.sha256(content).hexdigest(), SIDE, SIDE))  # fmt: skip
        connection.execute("UPDATE jobs SET state='done', kind=NULL, message=NULL, attempt=1, request_id=?, submitted_at=1, running_since=1, "
                           "completed_at=?, settled_at=? WHERE id=?", (f"x{job}", 2.0 + n, 2.0 + n, job))  # fmt: skip
    connection.commit()
    connection.close()
    return out


def opened(page: Path) -> float:
    """Give the seconds from asking for the page to its pictures being laid out, in a browser that runs already."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
        )
        times = []
        for _ in range(3):
            tab = browser.new_page()
            begun = time.monotonic()
            tab.goto(page.resolve().as_uri(), wait_until="commit")
            tab.wait_for_selector("html[data-ready] .cards .frame img")
            times.append(time.monotonic() - begun)
            tab.close()
        browser.close()
    return min(times)


def lines(outputs: int) -> list[Line]:
    """Measure them: first with thumbnails to make, then without; a tenth of it beside it for memory."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        few = batcher("report", str(fill(folder, outputs // 10)), cwd=folder)
        out = fill(folder, outputs)
        first = batcher("report", str(out), cwd=folder)
        again: Took = batcher("report", str(out), cwd=folder)
        size = (out / "report.html").stat().st_size
        seconds = opened(out / "report.html")
    return [
        Line(f"report of {outputs:,} outputs: open in a browser", f"{seconds:.2f} s", f"page of {size / 1e6:.1f} MB", f"{seconds / 2:.2f}", "< 2 s", seconds < 2),
        Line("write it, thumbnails first", f"{first.wall:.0f} s", f"again {again.wall:.1f} s", f"{first.wall / outputs * 1e3:.1f} ms each", "", None),
        Line("memory to write it", f"{first.peak_mb:.0f} MB", f"{outputs // 10:,} outputs {few.peak_mb:.0f} MB", f"{first.peak_mb / few.peak_mb:.2f}", "<= 1.5", first.peak_mb <= 1.5 * few.peak_mb),
    ]  # fmt: skip
