"""A manifest that a program hands over as a mapping, as in YAML; its jobs may be any iterable of mappings."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from batcher.errors import WrongUse
from batcher.manifest.document import RowsFile, read_document
from batcher.manifest.faults import Faults
from batcher.manifest.manifest import Manifest, is_bounded, rows_are_there
from batcher.manifest.yaml_lines import YamlWithLines

FILE = "-"
"""What such a manifest is called, as one from standard input is: there is no file to run again."""


def mapping_manifest(given: Mapping[str, Any], *, name: str | None = None) -> Manifest:
    """Return the manifest that a mapping is; `name` stands in for a missing one. Paths count from the folder at work.

    An iterable of jobs is read once, into a file that `forget` removes. Raises WrongUse, ManifestFaulty.
    """
    said = {key: value for key, value in given.items() if key != "jobs"}
    jobs, spool = given.get("jobs"), None
    if jobs is not None and not isinstance(jobs, str | Mapping):
        if not isinstance(jobs, Iterable):
            raise WrongUse(f"jobs is {type(jobs).__name__}: give mappings, a file's name, or {{'glob': pattern}}")
        spool = _spooled(jobs)
        jobs = {"file": str(spool)}
    value = _plain(said) | ({} if jobs is None else {"jobs": _plain(jobs)})
    faults, marked = Faults(), YamlWithLines(value, {})
    document, plain = read_document(marked, FILE, faults)
    if document is None:
        raise faults.error()
    title = document.name or name
    if title is None:
        raise WrongUse("a manifest that is a mapping needs a `name`, or the run a directory: out=...")
    rows = document.jobs
    rows_file = None if spool else rows.file if isinstance(rows, RowsFile) else rows if isinstance(rows, str) else None
    root = Path.cwd()
    readable = plain and (spool is not None or rows_are_there(document, root, marked, FILE, faults))
    readable = is_bounded(document, marked, FILE, faults) and readable
    digest = hashlib.sha256(json.dumps(_plain(said), sort_keys=True, ensure_ascii=False).encode("utf-8", "replace"))
    digest.update(spool.read_bytes() if spool else b"")
    path = spool or root / FILE
    return Manifest(FILE, path, root, title, document, marked, digest.hexdigest(), rows_file, faults, readable)


def forget(manifest: Manifest) -> None:
    """Remove the file that an iterable of jobs was read into."""
    if manifest.file == FILE and manifest.path.name.startswith(_PREFIX):
        manifest.path.unlink(missing_ok=True)


_PREFIX = "batcher-jobs-"


def _spooled(jobs: Iterable[Mapping[str, Any]]) -> Path:
    """Write jobs into a file as they come: they are read more than once, and may be a million. Raises WrongUse."""
    with tempfile.NamedTemporaryFile("w", prefix=_PREFIX, suffix=".jsonl", delete=False, encoding="utf-8") as file:
        try:
            for number, job in enumerate(jobs, start=1):
                if not isinstance(job, Mapping):
                    raise WrongUse(f"job {number} is {type(job).__name__}, and no mapping of names to values")
                file.write(json.dumps(_plain(job), ensure_ascii=True) + "\n")
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    return Path(file.name)


def _plain(value: Any) -> Any:  # noqa: ANN401 - what a program has at hand
    """Return a value as JSON has it: a path as text, a number of NumPy or pandas as a number. Raises WrongUse."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if callable(item := getattr(value, "item", None)):  # a scalar of NumPy
        return _plain(item())
    if callable(text := getattr(value, "isoformat", None)):
        return str(text())
    raise WrongUse(f"{value!r} is a {type(value).__name__}: JSON has no such value")
