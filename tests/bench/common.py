"""What the measurements share: a far side in its own process, commands with what they took, rows of the table."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = "google/nano-banana/pro/edit"
ENTRY: Final = "from batcher.cli import main; import sys; sys.exit(main())"


_KEPT: Final = 2**20
"""Bytes of what a command prints."""


@dataclass(frozen=True)
class Line:
    """One line of the table. `met`: None where there is no target."""

    what: str
    measured: str
    beside: str
    ratio: str
    target: str
    met: bool | None


@dataclass(frozen=True)
class Took:
    """What a command took: seconds of wall and CPU (its own, without children), and peak memory in MB."""

    wall: float
    cpu: float
    peak_mb: float
    out: str
    system: float = 0.0
    """Of the CPU, what was the kernel's."""


def took(command: Sequence[str], cwd: Path = ROOT, good: int = 0, env: Mapping[str, str] | None = None) -> Took:
    """Run a command, and measure it; raises where it ends with another code than `good`.

    What it prints goes to a file: held here, it would count as the next command's memory, which begins as a copy of this
    process. Of more than a megabyte the end is kept.
    """
    with tempfile.TemporaryFile() as printed:
        begun = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(max(0, printed.seek(0, os.SEEK_END) - _KEPT))
        out = printed.read().decode("utf-8", "replace")
    if process.returncode != good:
        raise RuntimeError(f"{list(command)} ended with {process.returncode}: {out[-2000:]}")
    return Took(
        time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out, usage.ru_stime
    )


def batcher(*arguments: str, cwd: Path, good: int = 0, env: Mapping[str, str] | None = None) -> Took:
    """Run our command, and measure it."""
    return took([sys.executable, "-c", ENTRY, *arguments], cwd, good, {**(env or {}), "PYTHONPATH": str(ROOT)})


@contextmanager
def far_side(slots: int, median: float, sigma: float = 0.5, size: int = 16_000) -> Iterator[str]:
    """Give the address of a far side (tests/bench/far.py) that lives as long as the block."""
    facts = json.dumps({"slots": slots, "median": median, "sigma": sigma, "bytes": size})
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.far", facts],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def ask(url: str, *, post: bool = False) -> Any:
    """Ask the far side something."""
    with urllib.request.urlopen(urllib.request.Request(url, method="POST" if post else "GET")) as answer:
        content = answer.read()
    return json.loads(content) if content else None


def environment(base: str) -> dict[str, str]:
    """Point our command at a far side."""
    return {"RUNCOMFY_MODEL_API_BASE": base, "RUNCOMFY_TOKEN": "a-token-for-the-bench"}


def write_manifest(folder: Path, rows: int, *, template: str = "{{ title }} in {{ color }} at the {{ place }}") -> Path:
    """Write a manifest of so many rows with three columns, all different."""
    with (folder / "rows.csv").open("w") as file:
        file.write("title,color,place\n")
        file.writelines(f"product {n},color{n % 17},place {n % 101}\n" for n in range(rows))
    (folder / "jobs.yaml").write_text(
        f"""model: {MODEL}
jobs: rows.csv
inputs:
  prompt: "{template}"
  image_urls: ["https://images.example/a.png"]
"""
    )
    return folder / "jobs.yaml"


def peak_mb() -> float:
    """Give this process's peak memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
