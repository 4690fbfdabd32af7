"""Finds what another run directory has finished, by its sidecars, and brings it over. Knows no ledger."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from batcher.clock import from_rfc3339
from batcher.job import Output
from batcher.outputs.sidecar import sidecar_file
from batcher.outputs.store import Store

_BLOCK: Final = 2**20


@dataclass(frozen=True, slots=True)
class Finished:
    """One job's outputs in another run directory, as its sidecars tell."""

    job_id: str
    provider: str
    request_id: str
    outputs: tuple[Output, ...]
    sidecars: tuple[Mapping[str, Any], ...]

    @property
    def billed_usd(self) -> float | None:
        """What the request was billed there."""
        cost = self.sidecars[0].get("cost_usd") or {}
        return cost.get("billed") if isinstance(cost, dict) else None


def finished(folder: Path) -> Iterator[Finished]:
    """Give every job whose sidecars are all there. Files and sidecars that cannot be read are passed over."""
    parts: dict[str, dict[int, Mapping[str, Any]]] = {}
    for file in _sidecars(folder / "files"):
        said = _read(file)
        if said is None:
            continue
        count, index = said["output"]["count"], said["output"]["index"]
        found = parts.setdefault(said["job_id"], {})
        found[index] = said
        if len(found) == count:
            yield _whole(parts.pop(said["job_id"]))


def _sidecars(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".json"):
                yield Path(place, name)


def _read(file: Path) -> Mapping[str, Any] | None:
    try:
        said = json.loads(file.read_bytes())
        output = said["output"]
        texts = (said["job_id"], said["provider"], said["request_id"], output["file"], output["sha256"])
        numbers = (output["index"], output["count"], output["bytes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    well = all(isinstance(one, str) for one in texts) and all(isinstance(one, int) for one in numbers)
    return said if well and not Path(output["file"]).is_absolute() and ".." not in Path(output["file"]).parts else None


def _whole(found: Mapping[int, Mapping[str, Any]]) -> Finished:
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
    return Finished(first["job_id"], first["provider"], first["request_id"], outputs, sidecars)


def bring(found: Finished, folder: Path, store: Store, name: str) -> tuple[Output, ...] | None:
    """Copy a job's files and sidecars from another run directory; None where one is not what its sidecar says.

    `name` is what the job is called here. The sidecars say where they come from, and that they cost nothing here.
    """
    placed = []
    for output in found.outputs:
        if not copied(folder / str(output.file), output, store, f"{found.job_id}-{output.index}"):
            return None
    for output, said in zip(found.outputs, found.sidecars, strict=True):
        stem = f"files/{name}" if len(found.outputs) == 1 else f"files/{name}-{output.index}"
        file = f"{stem}{Path(str(output.file)).suffix}"
        store.place(store.part(f"{found.job_id}-{output.index}"), file, found.job_id)
        here = {**said, "output": {**said["output"], "file": file}, "cost_usd": {"estimated": 0.0, "billed": 0.0}}
        here["reused"] = {"directory": str(folder.resolve()), "file": output.file, "cost_usd": said.get("cost_usd")}
        store.write_sidecar(sidecar_file(file), here, f"{found.job_id}-{output.index}.json")
        placed.append(replace(output, file=file))
    return tuple(placed)


def copied(source: Path, output: Output, store: Store, key: str) -> bool:
    """Copy a file into a part; say whether it is what its sidecar says."""
    part = store.begin(key)
    try:
        with source.open("rb") as opened:
            while block := opened.read(_BLOCK):
                part.write(block)
    except OSError:
        part.drop()
        return False
    if part.digest() != output.sha256:
        part.drop()
        return False
    part.close()
    return True


def whole_in_place(found: Finished, folder: Path) -> bool:
    """Say whether all files of a job are in a run directory, and are what their sidecars say."""
    for output in found.outputs:
        try:
            with (folder / str(output.file)).open("rb") as opened:
                if hashlib.file_digest(opened, "sha256").hexdigest() != output.sha256:
                    return False
        except OSError:
            return False
    return True
