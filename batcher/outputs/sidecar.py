"""What is written beside each file, so that it can be traced to its prompt by someone who has only the folder."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from batcher.clock import rfc3339
from batcher.job import SEED, Job, Output
from batcher.version import __version__

_LONG: Final = 256
"""Characters of a data URI from which a sidecar has its digest instead."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run's jobs come from."""

    provider: str
    manifest: str
    manifest_sha256: str | None


def sidecar_file(file: str) -> str:
    """Name a file's sidecar."""
    return str(PurePosixPath(file).with_suffix(".json"))


def stem_of(job: Job, output: Output) -> str:
    """Return the name of an output's file in the run directory, without extension."""
    return f"files/{job.spec.name}" if len(job.outputs) == 1 else f"files/{job.spec.name}-{output.index}"


def sidecar(job: Job, output: Output, count: int, origin: Origin) -> Mapping[str, object]:
    """Build the sidecar of one of a job's `count` files."""
    spec = job.spec
    return {
        "job_id": job.id,
        "model": spec.model,
        "provider": origin.provider,
        "request_id": job.request_id,
        "inputs": shortened(spec.inputs if job.seed is None else {**spec.inputs, SEED: job.seed}),
        "source": [shortened(source) for source in spec.sources],
        "vars": shortened(spec.vars),
        "sample": spec.sample,
        "output": {
            "file": output.file,
            "index": output.index,
            "count": count,
            "url": shortened(output.url),
            "bytes": output.bytes,
            "sha256": output.sha256,
            "mime": output.mime,
            "width": output.width,
            "height": output.height,
        },
        "timing": {
            "created": rfc3339(job.created_at),
            "submitted": rfc3339(job.submitted_at),
            "completed": rfc3339(job.completed_at),
            "downloaded": rfc3339(output.downloaded_at),
        },
        "cost_usd": {"estimated": spec.estimated_usd, "billed": job.billed_usd},
        "manifest": {
            "file": origin.manifest,
            "rows_file": spec.rows_file,
            "row": spec.row,
            "sha256": origin.manifest_sha256,
        },
        "batcher": __version__,
    }


def shortened(value: object) -> object:
    """Put a digest in the place of each data URI."""
    if isinstance(value, str) and value.startswith("data:") and len(value) > _LONG:
        head = value.partition(",")[0]
        return f"{head};sha256={hashlib.sha256(value.encode('utf-8', 'replace')).hexdigest()}"
    if isinstance(value, Mapping):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [shortened(item) for item in value]
    return value
