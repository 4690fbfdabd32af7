"""Expand, validate and store a manifest; beside it a script of csv, Jinja and JSON that only writes bodies to a file."""

import asyncio
import csv
import json
import sys
import tempfile
import time
from pathlib import Path

from jinja2 import Environment

from batcher.catalog import bundled
from batcher.clock import Clock
from batcher.hosting.inline import ImageFactsCache
from batcher.ledger.database import open_threaded
from batcher.ledger.import_jobs import Choice, import_jobs
from batcher.ledger.ledger import Ledger
from batcher.manifest.expand import Expansion, Options
from batcher.manifest.manifest import open_manifest
from tests.bench.common import MODEL, Line, peak_mb, took, write_manifest


async def store(folder: Path) -> float:
    """Give the seconds from manifest to committed ledger."""
    begun = time.perf_counter()
    manifest = open_manifest(str(folder / "jobs.yaml"))
    jobs = Expansion(manifest, bundled()[MODEL], ImageFactsCache(), Options())
    ledger = Ledger(await open_threaded(folder / "ledger.sqlite"), Clock())
    await ledger.open()
    await ledger.transact(lambda connection: import_jobs(connection, jobs, Choice(), 0.0, sure=True), bound=False)
    lasted = time.perf_counter() - begun
    await ledger.close()
    (folder / "ledger.sqlite").unlink()
    return lasted


def script(folder: Path) -> float:
    """Give the seconds that the script takes: no ids, no check, no ledger."""
    begun = time.perf_counter()
    template = Environment().from_string("{{ title }} in {{ color }} at the {{ place }}")  # noqa: S701
    with (folder / "rows.csv").open(newline="") as rows, (folder / "bodies.jsonl").open("w") as out:
        for row in csv.DictReader(rows):
            body = {"prompt": template.render(**row), "image_urls": ["https://images.example/a.png"]}
            out.write(json.dumps(body) + "\n")
    return time.perf_counter() - begun


def lines(rows: int) -> list[Line]:
    """Measure with a tenth of the rows, and with all of them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = rows // 10, rows

        def measured(kind: str) -> tuple[float, float]:
            seconds, peak = took([sys.executable, "-m", "tests.bench.expand", kind, name]).out.split()
            return float(seconds), float(peak)

        write_manifest(folder, few)
        _, small = measured("store")
        write_manifest(folder, many)
        plain, peak = measured("store")
        rival, _ = measured("script")
        write_manifest(folder, few, template="{{ title | upper }} in {{ color }} at {{ place }}")
        jinja, _ = measured("store")
    rate, other, slow = many / plain, many / rival, few / jinja
    return [
        Line(f"expand {many:,} rows, a second", f"{rate:,.0f}", f"limit {50_000:,}", f"{rate / 50_000:.2f}", ">= 1", rate >= 50_000),
        Line("beside csv + Jinja + json", f"{rate:,.0f}", f"script {other:,.0f}", f"{rate / other:.2f}", ">= 4", rate >= 4 * other),
        Line("with Jinja's filters", f"{slow:,.0f}", f"limit {20_000:,}", f"{slow / 20_000:.2f}", ">= 1", slow >= 20_000),
        Line(f"peak memory, {many:,} / {few:,} rows", f"{peak:.0f} MB", f"{small:.0f} MB", f"{peak / small:.2f}", "<= 1.1, 150 MB", peak <= 1.1 * small and peak <= 150),
    ]  # fmt: skip


if __name__ == "__main__":
    seconds = asyncio.run(store(Path(sys.argv[2]))) if sys.argv[1] == "store" else script(Path(sys.argv[2]))
    print(seconds, peak_mb())
