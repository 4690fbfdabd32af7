"""Between values and rows: the one place that knows how a job is written down."""

import json
import re
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, Final, get_args

import orjson

from batcher.errors import Stopped
from batcher.events import Ended, Event, Moved, facts_of
from batcher.job import NO_URLS, FailureKind, Image, Job, Output, Spec, State
from batcher.paths import is_inside

_LONG_NUMBER: Final = re.compile(r"\d{18}")
"""May have over 64 bits, which orjson reads as a fraction."""
_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


def dump(value: object) -> str:
    """Write JSON as the ledger keeps it."""
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # numbers of over 64 bits, keys that are no texts, half a character
        return _encode(value)


def load(text: str) -> Any:  # noqa: ANN401 - as json.loads
    """Read JSON that the ledger keeps; keys that come again and again are kept once."""
    if not _LONG_NUMBER.search(text):
        with suppress(orjson.JSONDecodeError):  # half a character
            return orjson.loads(text)
    return json.loads(text)


def spec_facts(spec: Spec) -> Mapping[str, object]:
    """Return what the manifest says of a job, but for what has a column of its own."""
    return {
        "model": spec.model,
        "inputs": spec.inputs,
        "images": [
            {
                "field": i.field,
                "path": i.path,
                "sha256": i.sha256,
                "bytes": i.bytes,
                "max_side": i.max_side,
            }
            for i in spec.images
        ],
        "sources": spec.sources,
        "vars": spec.vars,
        "row": spec.row,
        "rows_file": spec.rows_file,
        "class": spec.request_class,
    }


def spec_of(row: sqlite3.Row) -> Spec:
    """Read a job's spec from its row."""
    said = load(row["spec"])
    return Spec(
        id=row["id"],
        name=row["name"],
        model=said["model"],
        inputs=said["inputs"],
        images=tuple(Image(**{**image, "field": tuple(image["field"])}) for image in said["images"]),
        sources=tuple(said["sources"]),
        vars=said["vars"],
        sample=row["sample"],
        row=said["row"],
        rows_file=said["rows_file"],
        estimated_usd=row["estimated_usd"],
        request_class=said["class"],
    )


def with_attempt(job: Job, attempt: sqlite3.Row | None) -> Job:
    """Return a job with what the row of its last attempt tells: its bill, its seed, and how it is asked about."""
    if attempt is None:
        return job
    follow = load(attempt["follow"]) if attempt["follow"] else NO_URLS
    return replace(job, billed_usd=attempt["billed_usd"], seed=attempt["seed"], follow=follow)


def job_of(row: sqlite3.Row, outputs: tuple[Output, ...] = ()) -> Job:
    """Read a job from its row."""
    return Job(
        spec=spec_of(row),
        state=State(row["state"]),
        kind=FailureKind(row["kind"]) if row["kind"] else None,
        message=row["message"],
        attempt=row["attempt"],
        request_id=row["request_id"],
        created_at=row["created_at"],
        submitted_at=row["submitted_at"],
        running_since=row["running_since"],
        completed_at=row["completed_at"],
        outputs=outputs,
    )


def output_of(row: sqlite3.Row) -> Output:
    """Read an output from its row. A file that leads out of the run directory is none of ours."""
    return Output(
        index=row["idx"],
        url=row["url"],
        file=row["file"] if row["file"] and is_inside(row["file"]) else None,
        bytes=row["bytes"],
        sha256=row["sha256"],
        mime=row["mime"],
        width=row["width"],
        height=row["height"],
        downloaded_at=row["downloaded_at"],
    )


def event_row(event: Event) -> Mapping[str, object]:
    """Write an event as its row's columns."""
    facts = facts_of(event)
    at = facts.pop("at")
    return {"at": at, "job_id": facts.pop("job_id", None), "type": type(event).__name__, "facts": dump(facts)}


_EVENTS: Final = {one.__name__: one for one in get_args(Event)}


def event_of(row: sqlite3.Row) -> Event:
    """Read an event from its row."""
    facts = json.loads(row["facts"])
    kind = _EVENTS[row["type"]]
    names = {one.name for one in fields(kind)}
    if "job_id" in names:
        facts["job_id"] = row["job_id"]
    if kind is Moved:
        facts |= {"came_from": State(facts["came_from"]), "to": State(facts["to"])}
        facts["kind"] = FailureKind(facts["kind"]) if facts["kind"] else None
    if kind is Ended and facts["stopped"]:
        facts["stopped"] = Stopped(**facts["stopped"])
    event: Event = kind(at=row["at"], **{name: value for name, value in facts.items() if name in names})
    return event


def stopped_of(facts: str | None) -> Stopped | None:
    """Read why the last run stopped from its `Ended` event."""
    found = json.loads(facts)["stopped"] if facts else None
    return Stopped(**found) if found else None
