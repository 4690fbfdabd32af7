"""`batcher jobs`: one job a line."""

import json as json_
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from batcher.cli import complete
from batcher.cli import options as o

State = Annotated[str | None, typer.Option("--state", help="Only jobs in this state.", autocompletion=complete.state)]
Kind = Annotated[
    str | None,
    typer.Option("--kind", help="Only jobs that failed, or are uncertain, in this way.", autocompletion=complete.kind),
]
JobId = Annotated[str | None, typer.Option("--job", help="Only this job.")]


def jobs(out: o.Out, *, state: State = None, kind: Kind = None, json: o.Json = False) -> None:
    """List jobs: id, state, name, request id, error.

    Example: batcher jobs runs/products --state failed
    """
    from batcher.ledger.reader import Reader
    from batcher.plain import plain

    check(state, kind)
    with Reader(out) as reader:
        hints = {} if json else dict(adoptions(out, reader))
        for job, files in reader.jobs(state, kind):
            error = {"kind": job.kind, "message": job.message} if job.kind else None
            if json:
                facts = {
                    "job_id": job.id,
                    "state": job.state,
                    "name": job.spec.name,
                    "request_id": job.request_id,
                    "attempts": job.attempt,
                    "error": error,
                    "files": files,
                }
                typer.echo(json_.dumps(facts, ensure_ascii=False))
                continue
            why = f"  {job.kind}: {job.message}" if job.kind else ""
            typer.echo(plain(f"{job.id}  {job.state:<10}  {job.spec.name}  {job.request_id or '-'}{why}"))
            for hint in hints.get(job.id, ()):
                typer.echo(f"    is it in the vendor's history? {hint}")


def adoptions(out: o.Out, reader: Any) -> Iterator[tuple[str, list[str]]]:  # noqa: ANN401 - a Reader, imported late
    """Yield, for uncertain jobs whose evidence may hold a request id, the commands that would adopt it."""
    from batcher.plain import command

    for row in reader.ask("evidence"):
        ids = json_.loads(row["evidence"] or "{}").get("request_ids", [])
        if ids:
            job = row["job_id"]
            yield job, [command("adopt", out, "--job", job, "--request-id", str(one)) for one in ids]


def as_text(given: str | None) -> str | None:
    """Give an argument as text that can be written down: bytes that are none become `?`."""
    return None if given is None else given.encode("utf-8", "replace").decode("utf-8")


def check(state: str | None, kind: str | None) -> None:
    """Refuse a state or kind that there is not. Raises WrongUse."""
    from batcher.errors import WrongUse
    from batcher.job import Kind as Kinds
    from batcher.job import State as States
    from batcher.manifest.faults import did_you_mean

    if state is not None and state not in set(States):
        raise WrongUse(f"--state {state}: there is no such state" + did_you_mean(state, [*States]))
    if kind is not None and kind not in set(Kinds):
        raise WrongUse(f"--kind {kind}: there is no such kind" + did_you_mean(kind, [*Kinds]))
