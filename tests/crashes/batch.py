"""A small batch on the sandbox over real HTTP, whose processes can be killed; and what must hold of it in the end."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from batcher.ledger.reader import Reader
from tests.nursery import Attendant, Child, Nursery

ROOT = Path(__file__).parent.parent.parent
TOKEN = "a-token-of-some-length"
RUN = ("run", "m.yaml", "-o", "out", "-j", "4", "-q")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Server(Attendant):
    """The sandbox, as a process of its own; its journal is what was paid for."""

    def __init__(self, seed: int, options: Sequence[str] = ()) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="server-", dir=MEMORY))
        command = ["batcher.sandbox", "--dir", str(self._folder), "--until-stdin-ends"]
        command += ["--latency", "0.15", "--sigma", "0.6", "--slots", "6", "--seed", str(seed)]
        super().__init__(ROOT, *command, *options)
        self.base = self.hears().decode().strip()

    def __exit__(self, *said: object) -> None:
        super().__exit__(*said)
        shutil.rmtree(self._folder, ignore_errors=True)

    def journal(self) -> list[Mapping[str, Any]]:
        """Give what it accepted."""
        file = self._folder / "journal.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return [entry for entry in map(json.loads, lines) if "inputs" in entry]


class Batch:
    """A folder with a manifest, a sandbox that serves it, and the command that runs it.

    Batches of different seeds may share a server: no two of them ask for the same.
    """

    def __init__(
        self, jobs: int, seed: int, *, package: Path = ROOT, options: Sequence[str] = (), server: Server | None = None
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="batch-", dir=MEMORY))
        self.out = self.folder / "out"
        self._package = package
        self.prompts = [f"p{number} of {seed}" for number in range(jobs)]
        prompts = "".join(f"  - {{prompt: '{prompt}'}}\n" for prompt in self.prompts)
        (self.folder / "m.yaml").write_text(
            f"model: google/nano-banana/pro/text-to-image\ninputs: {{output_format: jpeg}}\njobs:\n{prompts}"
        )
        self.jobs = jobs
        self._server = server or Server(seed, options)
        self._owns_server = server is None
        self.base = self._server.base

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *said: object) -> None:
        if self._owns_server:
            self._server.__exit__(*said)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _environ(self) -> dict[str, str]:
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith(("RUNCOMFY_", "BATCHER_"))},
            "RUNCOMFY_TOKEN": TOKEN,
            "RUNCOMFY_MODEL_API_BASE": self.base,
            "HOME": str(self.folder),
            "PYTHONPATH": str(self._package),
        }

    def child(self, nursery: Nursery) -> Child:
        """Give a run that stands still before its first step."""
        return nursery.child(RUN, self.folder, self._environ())

    def start(self, *before: str) -> "subprocess.Popen[bytes]":
        """Start a run, in a process group of its own; `before`: a command that runs it, as strace does."""
        return subprocess.Popen(
            [*before, sys.executable, "-m", "batcher", *RUN],
            cwd=self.folder,
            env=self._environ(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, limit: float = 120) -> tuple[int, str]:
        """Run until it ends by itself; give its exit code and what it said."""
        process = self.start()
        try:
            _, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            kill(process)
            return -1, f"it did not end within {limit} s"
        return process.returncode, err.decode("utf-8", "replace")

    def journal(self) -> list[Mapping[str, Any]]:
        """Give what the server accepted of this batch."""
        return [entry for entry in self._server.journal() if entry["inputs"]["prompt"] in self.prompts]


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process group, and reap it."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(30)
    if process.stderr:
        process.stderr.close()


def broken_promises(batch: Batch, code: int | None) -> list[str]:
    """Hold the server's journal against ledger and files, once everything has settled."""
    found = []
    if code not in {0, 1}:
        found.append(f"the last run ended with {code}")
    if not (batch.out / "ledger.sqlite").exists():
        return [*found, "there is no ledger"]
    accepted: dict[str, list[str]] = {}
    for entry in batch.journal():
        accepted.setdefault(entry["inputs"]["prompt"], []).append(entry["id"])
    with Reader(batch.out) as reader:
        jobs = list(reader.jobs())
        if len(jobs) != batch.jobs:
            found.append(f"{len(jobs)} jobs in the ledger, {batch.jobs} in the manifest")
        for job, files in jobs:
            ids = accepted.pop(str(job.spec.inputs["prompt"]), [])
            rows = reader._connection.execute("SELECT request_id, outcome FROM attempts WHERE job_id = ?", [job.id])
            attempts = rows.fetchall()
            unknown = [one for one in ids if one not in {row["request_id"] for row in attempts}]
            doubtful = sum(row["outcome"] == "uncertain" for row in attempts)
            if len(ids) > 1:
                found.append(f"{job.id} was paid for {len(ids)} times")
            if len(unknown) > doubtful:
                found.append(f"{job.id}: the requests {unknown} are lost")
            if job.state not in {"done", "uncertain"}:
                found.append(f"{job.id} is {job.state}: {job.kind} {job.message}")
            if job.state == "done" and not files:
                found.append(f"{job.id} is done, and has no file")
        found += [f"{one} was accepted, and no job asked for it" for one in accepted]
    return found + torn_files(batch.out)


def torn_files(out: Path) -> list[str]:
    """Give the files under a final name that are not whole."""
    found = []
    for file in (out / "files").rglob("*") if (out / "files").exists() else ():
        if not file.is_file():
            continue
        if file.suffix == ".json":
            try:
                said = json.loads(file.read_bytes())["output"]
            except (ValueError, KeyError):
                found.append(f"{file.name} is half a sidecar")
                continue
            whole = out / said["file"]
            if not whole.exists() or hashlib.sha256(whole.read_bytes()).hexdigest() != said["sha256"]:
                found.append(f"{file.name} speaks of a file that is not what it says")
        elif not file.read_bytes().endswith(b"\xff\xd9"):
            found.append(f"{file.name} is half a picture")
    return found


def wait(seconds: float) -> None:
    """Let a process live for so long."""
    time.sleep(seconds)
