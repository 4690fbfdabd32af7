"""Reads every file of a run again, and says which are missing or not what they were. Changes nothing."""

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from batcher.ledger.reader import Reader
from batcher.outputs.output_folder import open_result
from batcher.outputs.sidecar import sidecar_file
from batcher.paths import is_inside

_AT_ONCE: Final = 256
"""Files that are handed to the threads at once: enough to keep two busy, little memory."""
LEADS_OUT: Final = "leads out"
"""In the place of a job's state: its file is not of this run directory, and is not mended."""


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

    if not is_inside(row["file"]):
        return Damage(row["job_id"], LEADS_OUT, row["idx"], row["file"], "leads out of the run directory: not read")
    try:
        with open_result(out, row["file"]) as opened:
            size = os.fstat(opened.fileno()).st_size
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
    return None if _has_sidecar(out, row) else damage("has no sidecar that fits it", sidecar_only=True)


def _has_sidecar(out: Path, row: Any) -> bool:  # noqa: ANN401
    try:
        with open_result(out, sidecar_file(row["file"])) as opened:
            said = json.loads(opened.read())
        output = said["output"]
        return bool(
            (said["job_id"], said["request_id"]) == (row["job_id"], row["request_id"])
            and (output["sha256"], output["file"], output["index"]) == (row["sha256"], row["file"], row["idx"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False
