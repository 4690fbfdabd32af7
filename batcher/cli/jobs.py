"""`batcher jobs`: one job a line."""

import json as json_
from array import array
from collections.abc import Iterator
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.cells import cell_len

from batcher.cli import complete
from batcher.cli import options as o
from batcher.errors import WrongUse
from batcher.job import FailureKind as Kinds
from batcher.job import Job
from batcher.job import State as States
from batcher.ledger.reader import Reader
from batcher.manifest.faults import did_you_mean
from batcher.runs.row_export import write_rows
from batcher.show import words
from batcher.terminal_text import command, plain

State = Annotated[str | None, typer.Option("--state", help="Only jobs in this state.", autocompletion=complete.state)]
KindOption = Annotated[
    str | None,
    typer.Option(
        "--kind", help="Only jobs with this kind of error, as `status` lists them.", autocompletion=complete.kind
    ),
]
JobId = Annotated[str | None, typer.Option("--job", help="Only this job.")]


Unlisted = Annotated[bool, typer.Option("--unlisted", help="The jobs that the manifest no longer names, instead.")]
RowsFile = Annotated[
    Path | None,
    typer.Option(
        "--rows", metavar="FILE", help="Write the rows of these jobs to FILE (.csv or .jsonl), each with its reason."
    ),
]


def jobs(
    out: o.NewestOut = None,
    *,
    state: State = None,
    kind: KindOption = None,
    unlisted: Unlisted = False,
    rows: RowsFile = None,
    json: o.Json = False,
) -> None:
    """List the jobs that the manifest names, one a line; or write their rows, as they came, to edit and run again.

    Examples: batcher jobs runs/products --state failed; batcher jobs runs/products --state failed --rows failed.csv
    """
    check(state, kind)
    if rows is not None and unlisted:
        why = "--rows writes rows of the manifest as it is now, which names these jobs no more"
        raise WrongUse(why, "leave --unlisted out")
    out = o.newest(out)
    with Reader(out) as reader:
        if rows is not None:
            _write_rows(reader, reader.places_by_row(state, kind, listed=not unlisted), rows, as_json=json)
            return
        found = reader.jobs(state, kind, listed=not unlisted)
        if json:
            for job, files in found:
                typer.echo(json_.dumps(_facts(job, files), ensure_ascii=False))
        else:
            _table(out, reader, found)


def _facts(job: Job, files: list[str]) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "state": job.state,
        "name": job.spec.name,
        "request_id": job.request_id,
        "attempts": job.attempt,
        "error": {"kind": job.kind, "message": job.message} if job.kind else None,
        "files": files,
        "waits": job.message if job.state in _WAITING else None,
        "row": job.spec.row,
        "vars": job.spec.vars,
        "inputs": job.spec.inputs,
    }


_WAITING = ("running", "fetching")
"""States in which a job's message is what it waits for."""
_NAME, _PROMPT, _PAGE = 40, 32, 200
"""Columns of a name and of a prompt at most, and jobs by which their widths are chosen."""


def _table(out: Path, reader: Reader, found: Iterator[tuple[Job, list[str]]]) -> None:
    """Print jobs aligned, with a header; what is uncertain, with the commands that may adopt it."""
    hints = dict(adoptions(out, reader))
    first = [_cells(job) for job, _ in islice(found, _PAGE)]
    if not first:
        typer.echo("no such jobs", err=True)
        return
    rest = (_cells(job) for job, _ in found)
    head = ("JOB", "STATE", "NAME", "PROMPT", "REQUEST", "WHY")
    wide = [max(_width(row[n]) for row in [head, *first]) for n in range(5)]
    for row in chain([head], first, rest):
        padded = [text + " " * (width - _width(text)) for text, width in zip(row, wide, strict=False)]
        typer.echo(plain("  ".join([*padded, row[5]]).rstrip()))
        for hint in hints.get(row[0], ()):
            typer.echo(f"    is it in the vendor's history? {hint}")


def _cells(job: Job) -> tuple[str, ...]:
    prompt = " ".join(str(job.spec.inputs.get("prompt") or "").split())
    why = f"{job.kind}: {job.message}" if job.kind else job.message if job.state in _WAITING else ""
    return (
        job.id,
        job.state.value,
        _short(job.spec.name, _NAME),
        _short(prompt, _PROMPT),
        job.request_id or "-",
        why or "",
    )


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _width(text: str) -> int:

    return cell_len(text)


def _write_rows(reader: Reader, places: "array[int]", file: Path, *, as_json: bool) -> None:
    """Write the rows of jobs, and say how many jobs they make: with a matrix a row makes more than were meant."""

    def reasons() -> Iterator[tuple[int, str]]:
        for number, jobs in groupby(reader.jobs_at(places), lambda job: job.spec.row):
            whys = dict.fromkeys(f"{job.kind}: {job.message}" if job.kind else str(job.state) for job in jobs)
            yield number, "; ".join(whys)

    selected = len(places)
    written = write_rows(reader.meta(), reasons, file) if selected else 0
    makes = reader.jobs_of_rows(number for number, _ in reasons())
    if as_json:
        typer.echo(json_.dumps({"file": str(file), "rows": written, "selected": selected, "jobs": makes}))
    elif not selected:
        typer.echo("no such jobs")
    else:
        more = f"; these rows make {words.jobs(makes)}" if makes != selected else ""
        typer.echo(f"wrote {file}: {words.rows(written)} of {words.jobs(selected)}{more}")


def adoptions(out: o.Out, reader: Reader) -> Iterator[tuple[str, list[str]]]:
    """Yield, for uncertain jobs whose evidence may hold a request id, the commands that would adopt it."""
    for row in reader.ask("evidence"):
        ids = json_.loads(row["evidence"] or "{}").get("request_ids", [])
        if ids:
            job = row["job_id"]
            yield job, [command("adopt", out, "--job", job, "--request-id", str(one)) for one in ids]


def check(state: str | None, kind: str | None) -> None:
    """Refuse a state or kind that there is not. Raises WrongUse."""
    if state is not None and state not in set(States):
        raise WrongUse(f"--state {state}: there is no such state{did_you_mean(state, {*States})}")
    if kind is not None and kind not in set(Kinds):
        raise WrongUse(f"--kind {kind}: there is no such kind; kinds: {', '.join(sorted(Kinds))}")
