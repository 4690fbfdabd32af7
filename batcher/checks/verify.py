"""Reads every file of a run again, and says which are missing or not what they were. Changes nothing."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from batcher.ledger.reader import Reader
from batcher.outputs.sidecar import sidecar_file

_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is not what the ledger says."""

    job_id: str
    state: str
    index: int
    file: str
    problem: str
    sidecar_only: bool = False


@dataclass(slots=True)
class Verified:
    """What was read, and what was found."""

    files: int = 0
    bytes: int = 0


def damages(out: Path, reader: Reader, verified: Verified) -> Iterator[Damage]:
    """Hash every file that the ledger knows, two at a time; count into `verified`."""
    rows = reader.known_files()
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        while batch := list(islice(rows, _AT_ONCE)):
            for row, damage in zip(batch, pool.map(lambda row: _look(out, row), batch), strict=True):
                verified.files += 1
                verified.bytes += row["bytes"] or 0
                if damage:
                    yield damage


def _look(out: Path, row: Any) -> Damage | None:  # noqa: ANN401 - a row
    def damage(problem: str, *, sidecar_only: bool = False) -> Damage:
        return Damage(row["job_id"], row["state"], row["idx"], row["file"], problem, sidecar_only)

    file = out / row["file"]
    try:
        with open(file, "rb", opener=_no_link) as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                return damage("is no file")
            size = found.st_size
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    except FileNotFoundError:
        return damage("is missing")
    except OSError as error:
        return damage(f"cannot be read: {error.strerror}")
    if digest != row["sha256"]:
        change = f"{size} bytes, where there were {row['bytes']}" if size != row["bytes"] else "other bytes"
        return damage(f"has changed: {change}")
    if row["state"] != "done":
        return None  # files of a job that did not get done have no sidecar yet
    return (
        None
        if _has_sidecar(out / sidecar_file(row["file"]), row)
        else damage("has no sidecar that fits it", sidecar_only=True)
    )


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe is not waited for


def _has_sidecar(file: Path, row: Any) -> bool:  # noqa: ANN401
    try:
        said = json.loads(file.read_bytes())
        output = said["output"]
        return bool(
            (said["job_id"], said["request_id"]) == (row["job_id"], row["request_id"])
            and (output["sha256"], output["file"], output["index"]) == (row["sha256"], row["file"], row["idx"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
