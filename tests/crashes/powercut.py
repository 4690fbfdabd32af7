"""Every disk that a power cut could leave of a recorded run, built and opened: each promise must hold on each.

What was not flushed may be on the disk or not: at each operation, of what was not flushed: nothing, all, each alone, all
but one, and all with the last write torn. A name is on the disk once its folder was flushed, bytes once their file was.
Usage: python -m tests.crashes.powercut [--every 1] [--jobs 2]
"""

import argparse
import asyncio
import hashlib
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from batcher.clock import Clock
from batcher.ledger.database import InlineDatabase
from batcher.ledger.ledger import Ledger
from batcher.runs.opening import recover
from tests.crashes.batch import MEMORY, ROOT, Batch, torn_files
from tests.crashes.record import TRACED, Op, read

_OURS = re.compile(r"ledger\.sqlite(-wal|-journal)?$|ledger\.lock$|files(/|$)|\.parts(/|$)|run\.jsonl$")


@dataclass
class Disk:
    """Files by number, and the names that lead to them."""

    names: dict[str, int] = field(default_factory=dict)
    files: dict[int, bytearray] = field(default_factory=dict)

    def apply(self, op: Op, inode: int) -> None:
        """Do one operation on file number `inode`."""
        if op.kind == "make":
            self.names[op.path] = inode
            self.files.setdefault(inode, bytearray())
        elif op.kind == "write":
            content = self.files.setdefault(inode, bytearray())
            at = len(content) if op.offset < 0 else op.offset
            content.extend(b"\0" * (at - len(content)))
            content[at : at + len(op.data)] = op.data
        elif op.kind == "truncate":
            content = self.files.setdefault(inode, bytearray())
            del content[op.offset :]
            content.extend(b"\0" * (op.offset - len(content)))
        elif op.kind == "rename":
            self.names.pop(op.path, None)
            self.names[op.to] = inode
        elif op.kind == "remove":
            self.names.pop(op.path, None)

    def copy(self) -> "Disk":
        return Disk(dict(self.names), {key: bytearray(value) for key, value in self.files.items()})


@dataclass(frozen=True)
class Step:
    """An operation, and the file it is about: names come and go, files stay."""

    op: Op
    inode: int


def steps(ops: list[Op], root: str) -> list[Step]:
    """Follow names to files, and leave out what is not the run directory's."""
    found, names, count = [], {}, 0
    for op in ops:
        if op.kind == "sent":
            found.append(Step(op, -1))
            continue
        if not op.path.startswith(root) and not op.to.startswith(root):
            continue
        inside = op.path.removeprefix(root).lstrip("/")
        if op.kind != "folder" and inside and not _OURS.match(inside):
            continue
        if op.kind == "make" and op.path in names:
            continue  # it was there: nothing is made
        if op.kind == "make":
            count += 1
            names[op.path] = count
        inode = names.get(op.path, 0)
        if op.kind == "rename":
            names[op.to] = names.pop(op.path, 0)
        elif op.kind == "remove":
            names.pop(op.path, None)
        found.append(Step(op, inode))
    return found


def folder_of(path: str) -> str:
    return path.rpartition("/")[0]


class Cuts:
    """Goes through a record, and gives at each operation the disks that a power cut could leave there."""

    def __init__(self, record: list[Step]) -> None:
        self._record = record
        self.durable = Disk()
        self.pending: list[Step] = []

    def disks(self, every: int) -> Iterator[tuple[int, str, Disk]]:
        for number, step in enumerate(self._record):
            if step.op.kind == "flush":
                self._flush(step)
            elif step.op.kind not in {"sent", "folder"}:
                self.pending.append(step)
            if number % every == 0:
                for what, kept in self._choices():
                    disk = self.durable.copy()
                    for one in kept:
                        disk.apply(one.op, one.inode)
                    yield number, what, disk

    def _flush(self, flushed: Step) -> None:
        """What a flush makes durable: a file's bytes, or the names in a folder."""
        rest = []
        for step in self.pending:
            of_names = step.op.kind in {"make", "rename", "remove"}
            at = step.op.to if step.op.kind == "rename" else step.op.path
            done = folder_of(at) == flushed.op.path if of_names else step.inode == flushed.inode != 0
            if done:
                self.durable.apply(step.op, step.inode)
            else:
                rest.append(step)
        self.pending = rest

    def _choices(self) -> Iterator[tuple[str, list[Step]]]:
        yield "nothing", []
        yield "all", self.pending
        if self.pending and self.pending[-1].op.kind == "write":
            last = self.pending[-1]
            torn = Op("write", last.op.path, last.op.data[: len(last.op.data) // 2], last.op.offset)
            yield "the last write torn", [*self.pending[:-1], Step(torn, last.inode)]
        for n in range(len(self.pending)):
            yield f"{n} alone", [self.pending[n]]
            yield f"all but {n}", [*self.pending[:n], *self.pending[n + 1 :]]


@dataclass(frozen=True)
class Sent:
    """What had left by a certain operation: prompts that were submitted, request ids that were used."""

    prompts: frozenset[str]
    ids: frozenset[str]


def sent_by(record: list[Step]) -> list[Sent]:
    """Give, for each operation, what had left when it was done."""
    prompts: set[str] = set()
    ids: set[str] = set()
    found = []
    for step in record:
        if step.op.kind == "sent":
            text = step.op.data.decode("latin-1")
            prompts.update(re.findall(r'"prompt":"([^"]*)"', text))
            ids.update(re.findall(r"GET /v1/requests/([0-9a-f]{32})/", text))
        found.append(Sent(frozenset(prompts), frozenset(ids)))
    return found


def broken(disk: Disk, root: str, sent: Sent, place: Path) -> list[str]:
    """Build a disk, open its ledger as the next start would, and say which promises do not hold."""
    shutil.rmtree(place, ignore_errors=True)
    (place / "files").mkdir(parents=True)
    for name, inode in disk.names.items():
        file = place / name.removeprefix(root).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(disk.files.get(inode, b""))
    found = []
    if (place / "ledger.sqlite").exists():
        try:
            jobs = asyncio.run(_recovered(place))
        except Exception as error:
            return [f"the ledger cannot be opened: {error!r}"]
    else:
        jobs = {}
    for prompt in sent.prompts:
        state, _, _ = jobs.get(prompt, ("pending", None, []))
        if state == "pending":
            found.append(f"{prompt!r} had been submitted, and would be again")
    known = {request_id for _, request_id, _ in jobs.values()}
    found += [f"the request id {one} had been used, and is lost" for one in sent.ids - known]
    for prompt, (state, _, files) in jobs.items():
        if state == "done":
            found += [
                f"{prompt!r} is done, and {name} is not whole"
                for name, digest in files
                if not _whole(place, name, digest)
            ]
    return found + torn_files(place)


def _whole(place: Path, name: str, digest: str) -> bool:
    file = place / name
    return (
        file.exists() and hashlib.sha256(file.read_bytes()).hexdigest() == digest and file.with_suffix(".json").exists()
    )


async def _recovered(place: Path) -> dict[str, tuple[str, str | None, list[tuple[str, str]]]]:
    """Give each job's state, request id and files after the recovery of a start."""
    ledger = Ledger(InlineDatabase(place / "ledger.sqlite"), Clock())
    await ledger.open()
    try:
        await recover(ledger)
        jobs = await ledger.transact(lambda connection: connection.execute("SELECT * FROM jobs").fetchall())
        outputs = await ledger.transact(lambda connection: connection.execute("SELECT * FROM outputs").fetchall())
        check = await ledger.transact(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()[0])
        assert check == "ok", check
        files = {
            job["id"]: [(o["file"], o["sha256"]) for o in outputs if o["job_id"] == job["id"] and o["file"]]
            for job in jobs
        }
        return {
            json.loads(job["spec"])["inputs"]["prompt"]: (job["state"], job["request_id"], files[job["id"]])
            for job in jobs
        }
    finally:
        await ledger.close()


def record(jobs: int, package: Path = ROOT) -> tuple[list[Step], str]:
    """Let a batch run under strace; give what it did to its run directory, and where that was."""
    with Batch(jobs, 1, package=package) as batch:
        trace = batch.folder / "trace"
        slow = ("fdatasync", "fsync")  # as a disk is: what does not wait for it is seen to overtake it
        delays = [f"--inject={name}:delay_enter=20000" for name in slow]
        options = ("-f", "-y", "-xx", "-qq", "-s", "16000000", "-e", f"trace={TRACED}", *delays, "-o", str(trace))
        process = batch.start("strace", *options)
        _, err = process.communicate(timeout=180)
        assert process.returncode == 0, err
        return steps(read(trace), str(batch.out)), str(batch.out)


def cut(jobs: int, every: int, package: Path = ROOT) -> tuple[int, int, list[str]]:
    """Try every power cut; give how many operations there were, how many disks differed, and what was broken."""
    done, root = record(jobs, package)
    sent = sent_by(done)
    assert sent[-1].prompts and sent[-1].ids, "the record has no submission: it cannot prove anything"
    place = Path(tempfile.mkdtemp(prefix="disk-", dir=MEMORY))
    seen: set[bytes] = set()
    findings: list[str] = []
    try:
        for number, what, disk in Cuts(done).disks(every):
            key = _key(disk, sent[number])
            if key in seen:
                continue
            seen.add(key)
            findings += [
                f"cut at operation {number}, {what} of what was not flushed: {text}"
                for text in broken(disk, root, sent[number], place)
            ]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return len(done), len(seen), findings


def _key(disk: Disk, sent: Sent) -> bytes:
    digest = hashlib.sha256(repr((sorted(sent.prompts), sorted(sent.ids))).encode())
    for name, inode in sorted(disk.names.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(disk.files.get(inode, b"")).digest())
    return digest.digest()


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--every", type=int, default=1, help="cut at each operation, or at each n-th")
    said = options.parse_args()
    begun = time.monotonic()
    operations, disks, findings = cut(said.jobs, said.every)
    print(
        f"{operations:,} operations of a batch of {said.jobs} jobs, {disks:,} different disks, {time.monotonic() - begun:.0f} s"
    )
    print(f"promises broken: {len(findings)}")
    for text in findings[:40]:
        print(f"  {text}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
