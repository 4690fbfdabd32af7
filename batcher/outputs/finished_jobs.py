"""Finds what another run directory has finished, by its sidecars, and brings it over. Knows no ledger."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Final

from batcher.clock import from_rfc3339
from batcher.job import Output
from batcher.outputs.output_folder import OutputFolder, open_result
from batcher.outputs.sidecar import sidecar_file
from batcher.paths import is_inside

_BLOCK: Final = 2**20
"""Bytes that are copied at once."""
_LARGEST: Final = 2**63
"""One more than the largest whole number that SQLite holds."""


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """One job's outputs in another run directory, as its sidecars tell."""

    job_id: str
    provider: str
    request_id: str
    outputs: tuple[Output, ...]
    sidecars: tuple[Mapping[str, Any], ...]
    whole: bool
    """There is a sidecar of each of its files."""

    @property
    def billed_usd(self) -> float | None:
        """What the request was billed there."""
        billed: float | None = (self.sidecars[0].get("cost_usd") or {}).get("billed")
        return billed


def finished(folder: Path) -> Iterator[FinishedJob]:
    """Return every job that has a sidecar, at last those of which one is missing or cannot be read: not `whole`."""
    parts: dict[str, dict[int, Mapping[str, Any]]] = {}
    for file in chain(_sidecars(folder / "files"), _sidecars(folder / "replaced")):
        said = _read(folder, file)
        if said is None:
            continue
        found = parts.setdefault(said["job_id"], {})
        found[said["output"]["index"]] = said
        if len(found) == said["output"]["count"]:
            yield _together(parts.pop(said["job_id"]), whole=True)
    for found in parts.values():
        yield _together(found, whole=False)


def _sidecars(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".json"):
                yield Path(place, name).relative_to(folder.parent).as_posix()


def _read(folder: Path, file: str) -> Mapping[str, Any] | None:
    try:
        with open_result(folder, file) as opened:
            said: dict[str, Any] = json.loads(opened.read())
        output = said["output"]
        texts = (said["job_id"], said["provider"], said["request_id"], output["file"], output["sha256"])
        numbers = (output["index"], output["count"], output["bytes"])
        sizes = (output.get("width"), output.get("height"))
        cost, timing = said.get("cost_usd") or {}, said.get("timing") or {}
        bill = cost.get("billed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    well = (
        all(isinstance(one, str) and _is_text(one) for one in texts)
        and all(isinstance(one, int) and 0 <= one < _LARGEST for one in numbers)
        and all(one is None or (isinstance(one, int) and 0 <= one < _LARGEST) for one in sizes)
        and 1 <= output["index"] <= output["count"]
        and (bill is None or (isinstance(bill, int | float) and 0 <= bill < _LARGEST))
        and _is_text(str(output.get("url") or "none"))
        and isinstance(timing, dict)
        and isinstance(output.get("mime"), str | None)
    )
    if not well or not is_inside(output["file"]):
        return None
    if file.startswith("replaced/"):  # it tells the name that its file had
        output["file"] = f"{file.removesuffix('.json')}{Path(output['file']).suffix}"
    return said


def _is_text(text: str) -> bool:
    """Return whether there is something that a ledger can hold, and a file be named."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return bool(text) and "\0" not in text


def _together(found: Mapping[int, Mapping[str, Any]], *, whole: bool) -> FinishedJob:
    sidecars = tuple(found[index] for index in sorted(found))
    outputs = tuple(
        Output(
            index=one["output"]["index"],
            url=str(one["output"].get("url") or ""),
            file=one["output"]["file"],
            bytes=one["output"]["bytes"],
            sha256=one["output"]["sha256"],
            mime=one["output"].get("mime"),
            width=one["output"].get("width"),
            height=one["output"].get("height"),
            downloaded_at=from_rfc3339((one.get("timing") or {}).get("downloaded")),
        )
        for one in sidecars
    )
    first = sidecars[0]
    return FinishedJob(first["job_id"], first["provider"], first["request_id"], outputs, sidecars, whole)


def copy_aside(found: FinishedJob, folder: Path, store: OutputFolder) -> bool:
    """Copy a job's files from another run directory into parts; False where one is not what its sidecar says.

    OSError of our own disk is raised: it says nothing of those files.
    """
    return found.whole and all(
        _copied(folder, output, store, f"{found.job_id}-{output.index}") for output in found.outputs
    )


def bring(found: FinishedJob, folder: Path, store: OutputFolder, stems: Sequence[str]) -> tuple[Output, ...]:
    """Move the copied files to their names here, one stem each, then write their sidecars.

    These say where the files come from, and that they cost nothing here.
    """
    placed = []
    for output, said, stem in zip(found.outputs, found.sidecars, stems, strict=True):
        file = f"{stem}{Path(str(output.file)).suffix}"
        store.place(store.part(f"{found.job_id}-{output.index}"), file, found.job_id)
        here = {**said, "output": {**said["output"], "file": file}, "cost_usd": {"estimated": 0.0, "billed": 0.0}}
        here["reused"] = {"directory": str(folder.resolve()), "file": output.file, "cost_usd": said.get("cost_usd")}
        store.write_sidecar(sidecar_file(file), here, f"{found.job_id}-{output.index}.json")
        placed.append(replace(output, file=file))
    return tuple(placed)


def _copied(folder: Path, output: Output, store: OutputFolder, key: str) -> bool:
    """Copy a file into a part; return whether it is what its sidecar says."""
    try:
        opened = open_result(folder, str(output.file))
    except OSError:
        return False
    with opened:
        part = store.begin(key)
        try:
            while block := _block_of(opened):
                part.write(block)
            if part.digest() == output.sha256:
                part.close()
                return True
        except BaseException:
            part.drop()
            raise
        part.drop()
        return False


def _block_of(opened: BinaryIO) -> bytes:
    """Read a block; what cannot be read ends the file, and its digest will tell."""
    try:
        return opened.read(_BLOCK)
    except OSError:
        return b""


def whole_in_place(found: FinishedJob, folder: Path) -> bool:
    """Return whether all files of a job are in a run directory, and are what their sidecars say."""
    if not found.whole:
        return False
    for output in found.outputs:
        try:
            with open_result(folder, str(output.file)) as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != output.sha256:
                    return False
        except OSError:
            return False
    return True
