"""`batcher jobs`: one job a line."""

import json as json_
from typing import Annotated

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
    from batcher.show.log import plain

    check(state, kind)
    with Reader(out) as reader:
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
