"""Downloads over loopback: hashed, checked, flushed, renamed. Beside them curl, and aria2c where it is installed."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from batcher.engine.fetch import DOWNLOADS
from batcher.outputs.download import Fetched, fetch
from batcher.outputs.output_folder import OutputFolder
from batcher.provider.http import HttpWire
from tests.bench.common import Line, far_side, peak_mb, took


def placed(store: OutputFolder, number: int, got: Fetched) -> int:
    """Give a file that came its name."""
    store.place(got.part, f"files/{number}.png", str(number))
    return number


async def ours(base: str, count: int, out: Path) -> None:
    """Fetch as a run does."""
    out.mkdir()
    store, wire, gate = OutputFolder(out), HttpWire(base, "token-of-the-bench"), asyncio.Semaphore(DOWNLOADS)
    store.prepare()

    async def one(number: int) -> None:
        async with gate:
            place = partial(placed, store, number)
            got = await fetch(f"{base}/files/{number}.png", wire, store, str(number), place)
            assert got == number, got

    await asyncio.gather(*map(one, range(count)))
    await wire.close()
    store.close()


def timed(command: list[str], out: Path) -> tuple[float, float]:
    """Run another program into an empty folder; give its seconds, and those with a `sync` of that disk after it."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    begun = time.perf_counter()
    subprocess.run(command, cwd=out, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lasted = time.perf_counter() - begun
    subprocess.run(["/bin/sync", "-f", "."], cwd=out, check=True)
    return lasted, time.perf_counter() - begun


def lines(count: int, megabytes: int) -> list[Line]:
    """Measure, each the best of three in turns."""
    size = megabytes * 1_000_000
    best: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, far_side(1, 1.0, size=size) as base:
        folder = Path(name)
        urls = [f"{base}/files/{number}.png" for number in range(count)]
        (folder / "urls").write_text("".join(f'url = "{url}"\noutput = "{n}.png"\n' for n, url in enumerate(urls)))
        (folder / "list").write_text("\n".join(urls))
        cpu = 1e9
        for _ in range(3):
            one = took([sys.executable, "-m", "tests.bench.files", base, str(count), str(folder / "ours")])
            seconds, cpu = float(one.out.split()[0]), min(cpu, one.cpu)
            shutil.rmtree(folder / "ours")
            best["ours"] = min(best.get("ours", 1e9), seconds)
            if curl := shutil.which("curl"):
                plain, synced = timed(
                    [curl, "-s", "--parallel", "--parallel-max", "16", "-K", str(folder / "urls")], folder / "other"
                )
                best["curl"] = min(best.get("curl", 1e9), plain)
                best["curl and sync"] = min(best.get("curl and sync", 1e9), synced)
            if aria := shutil.which("aria2c"):
                plain, _ = timed([aria, "-q", "-j16", "-i", str(folder / "list")], folder / "other")
                best["aria2c"] = min(best.get("aria2c", 1e9), plain)
            if img := shutil.which("img2dataset", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"):
                options = "--output_format files --resize_mode no --skip_reencode True --retries 0"
                options += " --processes_count 2 --thread_count 16 --enable_wandb False --output_folder got"
                command = [img, "--url_list", str(folder / "list"), "--input_format", "txt", *options.split()]
                plain, _ = timed(command, folder / "other")
                got = len([*(folder / "other").rglob("*.png"), *(folder / "other").rglob("*.jpg")])
                if got != count:
                    raise RuntimeError(f"img2dataset fetched {got} of {count} files")
                best["img2dataset"] = min(best.get("img2dataset", 1e9), plain)
    total = count * megabytes
    found = [
        Line(f"{count} files of {megabytes} MB: beside {rival}", f"{total / best['ours']:,.0f} MB/s", f"{total / best[rival]:,.0f} MB/s", f"{best[rival] / best['ours']:.2f}", f">= {target}", best[rival] >= target * best["ours"])
        for rival, target in (("curl", 0.8), ("curl and sync", 1.0), ("aria2c", 1.5), ("img2dataset", 4.0)) if rival in best
    ]  # fmt: skip
    start = min(took([sys.executable, "-c", "import tests.bench.files"]).cpu for _ in range(3))
    each = (cpu - start) / total * 1e3
    return [
        *found,
        Line("own CPU a MB of output", f"{each:.2f} ms", "limit 1.6 ms", f"{each / 1.6:.2f}", "<= 1", each <= 1.6),
    ]


if __name__ == "__main__":
    begun = time.perf_counter()
    try:
        import uvloop

        uvloop.run(ours(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
    except ImportError:
        asyncio.run(ours(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
    print(time.perf_counter() - begun, peak_mb())
