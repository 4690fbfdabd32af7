"""`batcher adopt`: gives an uncertain or failed job the request id found in the vendor's history."""

import asyncio
import json as json_
from dataclasses import asdict
from typing import Annotated

import typer

from batcher.cli import options as o
from batcher.runs import controlling
from batcher.terminal_text import command


def adopt(
    out: o.Out,
    *,
    job: Annotated[str, typer.Option("--job", help="The job's id, as `batcher jobs` lists it.")],
    request_id: Annotated[str, typer.Option("--request-id", help="The request id in the vendor's history.")],
    json: o.Json = False,
) -> None:
    """Continue an uncertain or failed job under a request id that you found in the vendor's history; nothing is bought.

    Example: batcher adopt runs/products --job 0f3a... --request-id 7c1e...
    """
    job, request_id = o.as_text(job), o.as_text(request_id)
    done = asyncio.run(controlling.adopt(out, job, request_id))
    if json:
        typer.echo(json_.dumps({**asdict(done.result), "left_to_run_at_work": done.by_run}))
    elif done.by_run:
        typer.echo(f"job {job} goes on with request {request_id}: the run at work watches it")
    else:
        typer.echo(f"job {job} goes on with request {request_id}; next: {command('resume', out)}")
