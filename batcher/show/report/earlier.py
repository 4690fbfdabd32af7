"""What a row gave before: under a manifest that was edited since, or of a job that was bought once more."""

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from batcher.clock import from_rfc3339
from batcher.job import Job, Output
from batcher.ledger.reader import Reader
from batcher.outputs.output_folder import open_result

MOST: Final = 20
"""Earlier results of one job that a page has."""


@dataclass(frozen=True, slots=True)
class EarlierResult:
    """An earlier result. `file`: relative to the run directory; `at`: a stamp."""

    file: str
    sha256: str
    mime: str
    prompt: str
    at: float


class EarlierResults:
    """The earlier results in a run directory. Memory holds the place of each, not the results."""

    def __init__(self, reader: Reader, out: Path) -> None:
        self._reader = reader
        self._out = out
        self._by_row: dict[int, array[int]] = {}
        for row in reader.ask("older"):
            self._by_row.setdefault(row["row"], array("q")).append(row["place"])
        self._bought_again = _names(out / "replaced")

    def of(self, jobs: Sequence[Job]) -> dict[str, list[EarlierResult]]:
        """Return the earlier results of these jobs, by job id, the latest first."""
        found: dict[str, list[EarlierResult]] = {}
        by_row: dict[int, list[Job]] = {}
        for job in jobs:
            if job.spec.row in self._by_row:
                by_row.setdefault(job.spec.row, []).append(job)
            if job.id in self._bought_again:
                found.setdefault(job.id, []).extend(self._replaced(job.id))
        places = array("q", (place for row in by_row for place in self._by_row[row]))
        for older, outputs in self._reader.shown(places):
            for job in by_row[older.spec.row]:
                if _is_earlier(older, job):
                    found.setdefault(job.id, []).extend(_of_job(older, outputs))
        return {job_id: sorted(results, key=lambda one: -one.at)[:MOST] for job_id, results in found.items() if results}

    def _replaced(self, job_id: str) -> Iterator[EarlierResult]:
        """Yield what gave way when this job was bought again, as the sidecars beside it tell."""
        for name in sorted(_names(self._out / "replaced" / job_id)):
            if not name.endswith(".json"):
                continue
            try:
                with open_result(self._out, f"replaced/{job_id}/{name}") as opened:
                    said = json.loads(opened.read())
                output = said["output"]
                kind = PurePosixPath(str(output["file"])).suffix
                yield EarlierResult(
                    file=f"replaced/{job_id}/{name.removesuffix('.json')}{kind}",
                    sha256=str(output["sha256"]),
                    mime=str(output["mime"]),
                    prompt=str(said["inputs"].get("prompt", "")),
                    at=from_rfc3339(said["timing"].get("downloaded")) or 0.0,
                )
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue


def _names(folder: Path) -> set[str]:
    try:
        return {one.name for one in folder.iterdir()}
    except OSError:
        return set()


def _of_job(job: Job, outputs: Sequence[Output]) -> Iterator[EarlierResult]:
    for output in outputs:
        if output.file and output.sha256:
            yield EarlierResult(
                file=output.file,
                sha256=output.sha256,
                mime=output.mime or "",
                prompt=str(job.spec.inputs.get("prompt", "")),
                at=job.completed_at or 0.0,
            )


def _is_earlier(older: Job, job: Job) -> bool:
    """Return whether a job of the same row is the same but for its prompt, or but for its other inputs."""
    one, other = older.spec, job.spec
    if (one.sample, one.vars) != (other.sample, other.vars):
        return False
    return _but_prompt(one.inputs) == _but_prompt(other.inputs) or one.inputs.get("prompt") == other.inputs.get(
        "prompt"
    )


def _but_prompt(inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "prompt"}
