"""A run over HTTP: makespan against the ideal one of the same service times, requests, and our own CPU a job."""

import asyncio
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.common import MODEL, Line, ask, batcher, environment, far_side, took, write_manifest

WARM = 100


async def script(base: str, jobs: int, window: int, interval: float) -> None:
    """Do what plain scripts do: so many at a time, a look at a fixed interval, the file written and nothing kept."""
    gate = asyncio.Semaphore(window)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def read(url: str) -> Any:
            async with session.get(url) as answer:
                return await answer.json()

        async def one(number: int, folder: Path) -> None:
            async with gate:
                async with session.post(f"{base}/v1/models/{MODEL}", json={"prompt": f"job {number}"}) as answer:
                    request_id = (await answer.json())["request_id"]
                while (await read(f"{base}/v1/requests/{request_id}/status"))["status"] != "completed":
                    await asyncio.sleep(interval)
                result = await read(f"{base}/v1/requests/{request_id}/result")
            async with session.get(result["output"]["images"][0]) as answer:
                (folder / f"{number}.png").write_bytes(await answer.read())

        with tempfile.TemporaryDirectory() as name:
            await asyncio.gather(*(one(number, Path(name)) for number in range(jobs)))


async def fal(base: str, jobs: int, window: int, interval: float) -> None:
    """Do the same with `fal-client`, pointed at the far side's queue."""
    import fal_client

    fal_client.client.QUEUE_URL_FORMAT = f"{base}/"
    gate, client = asyncio.Semaphore(window), fal_client.AsyncClient(key="a-key-for-the-bench")
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(number: int, folder: Path) -> None:
            async with gate:
                handle = await client.submit("bench/edit", {"prompt": f"job {number}"})
                result: Any = await handle.get(interval=interval)
            async with session.get(result["images"][0]["url"]) as answer:
                (folder / f"{number}.png").write_bytes(await answer.read())

        with tempfile.TemporaryDirectory() as name:
            await asyncio.gather(*(one(number, Path(name)) for number in range(jobs)))


def of_script(
    base: str, jobs: int, window: int, interval: float, rival: str = "script"
) -> tuple[dict[str, float], float]:
    """Run the plain script; give the far side's report and CPU a job in ms."""
    ask(f"{base}/reset", post=True)
    one = took([sys.executable, "-m", "tests.bench.pace", rival, base, str(jobs), str(window), str(interval)])
    return ask(f"{base}/report"), one.cpu / jobs * 1e3


def of_ours(base: str, jobs: int, window: int) -> tuple[dict[str, float], float]:
    """Run ours, warm from a hundred jobs; give the report and CPU a job in ms, start-up and manifest aside."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder, env = Path(name), environment(base)
        write_manifest(folder, jobs + WARM)
        common = ("run", "jobs.yaml", "-o", "out", "--quiet", "--yes", "-j", str(window))
        batcher(*common, "--limit", str(WARM), cwd=folder, env=env)
        short = batcher(*common, "--limit", str(WARM), cwd=folder, env=env)
        ask(f"{base}/reset", post=True)
        begun = time.perf_counter()
        whole = batcher(*common, cwd=folder, env=env)
        report = ask(f"{base}/report")
        report["wall"] = time.perf_counter() - begun
    report["system"] = (whole.system - short.system) / jobs * 1e3
    return report, (whole.cpu - short.cpu) / jobs * 1e3


def _span_and_looks(report: dict[str, float]) -> tuple[float, float]:
    """Give makespan / ideal, and requests a job but for its submission and its file."""
    return report["makespan"] / report["ideal"], report["requests"] / report["jobs"] - 1


def lines(jobs: int, slots: int, median: float) -> list[Line]:
    """Measure with the window a quarter above the slots, and equal to them; the plain script beside it."""
    found = []
    with far_side(slots, median) as base:
        rival, rival_cpu = of_script(base, jobs, slots, median)
        eager, eager_cpu = of_script(base, jobs, slots, median * 0.067)
        other: tuple[dict[str, float], float] | None = None
        if find_spec("fal_client"):
            other = of_script(base, jobs, slots, median * 0.067, "fal")
        for window, most, asks, busiest, words in (
            (slots * 5 // 4, 1.02, 2.8, 0.99, "a quarter above the slots"),
            (slots, 1.08, 5.0, 0.0, "as many as slots"),
        ):
            ours, cpu = of_ours(base, jobs, window)
            span, each = _span_and_looks(ours)
            rivals = {"script": rival, "eager": eager} | ({"fal-client": other[0]} if other else {})
            beside = ", ".join(
                "{} {:.2f} at {:.1f}".format(name, *_span_and_looks(report)) for name, report in rivals.items()
            )
            found.append(
                Line(
                    f"{jobs:,} jobs, {slots} slots, window {words}: makespan / ideal",
                    f"{span:.3f} at {each:.2f} looks, busy {ours['busy']:.3f}",
                    beside,
                    f"{span:.3f}",
                    f"<= {most} at <= {asks}" + (f", >= {busiest}" if busiest else ""),
                    span <= most and each <= asks and ours["busy"] >= busiest,
                )
            )
    found.append(
        Line("own CPU a job, files of 16 KB", f"{cpu:.2f} ms, {ours['system']:.2f} of it in the kernel", f"script {rival_cpu:.2f}, eager {eager_cpu:.2f} ms", f"{cpu / 2:.2f}", "<= 2 ms", cpu <= 2)
    )  # fmt: skip
    if other:
        found.append(
            Line("beside fal-client's", f"{cpu:.2f} ms", f"{other[1]:.2f} ms", f"{cpu / other[1]:.2f}", "<= 0.15", cpu <= 0.15 * other[1])
        )  # fmt: skip
    return found


if __name__ == "__main__":
    rival = {"script": script, "fal": fal}[sys.argv[1]]
    asyncio.run(rival(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
