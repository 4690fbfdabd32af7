"""Many jobs in flight in one process: what each adds to its memory."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.common import ENTRY, ROOT, Line, ask, environment, far_side, write_manifest


def memory(base: str, folder: Path, jobs: int) -> float:
    """Give the memory in MB of a run that has so many jobs at the server."""
    write_manifest(folder, jobs)
    ask(f"{base}/reset", post=True)
    command = [sys.executable, "-c", ENTRY, "run", "jobs.yaml", "-o", f"out{jobs}", "--quiet", "--yes", "-j", "10000"]
    env = {**os.environ, **environment(base), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=folder, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 300
        while (reported := ask(f"{base}/accepted")) < jobs and time.monotonic() < until and process.poll() is None:
            time.sleep(0.2)
        if reported < jobs:
            raise RuntimeError(f"only {reported} of {jobs} jobs were accepted in time")
        time.sleep(2)
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def lines(jobs: int) -> list[Line]:
    """Measure with a hundred, and with all."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name, far_side(jobs, 3600.0) as base:
        few, many = (memory(base, Path(name), count) for count in (100, jobs))
    each = (many - few) * 1024 / (jobs - 100)
    return [
        Line(f"{jobs:,} jobs in flight: memory a job", f"{each:.1f} KB", f"100 jobs {few:.0f} MB", f"{each / 6:.2f}", "<= 6 KB", each <= 6),
        Line("in all", f"{many:.0f} MB", "limit 120 MB", f"{many / 120:.2f}", "<= 1", many <= 120),
    ]  # fmt: skip
