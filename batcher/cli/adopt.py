"""`batcher adopt`: gives an uncertain or failed job the request id found in the vendor's history."""

import asyncio
import json as json_
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from batcher.cli import options as o


def adopt(
    out: o.Out,
    *,
    job: Annotated[str, typer.Option("--job", help="The job's id, as `batcher jobs` lists it.")],
    request_id: Annotated[str, typer.Option("--request-id", help="The request id in the vendor's history.")],
    json: o.Json = False,
) -> None:
    """Give an uncertain or failed job the request id that you found in the vendor's history; nothing is bought.

    Example: batcher adopt runs/products --job 0f3a... --request-id 7c1e...
    """
    from batcher.cli.jobs import as_text
    from batcher.cli.left import do_or_leave
    from batcher.cli.resume import manifest_folder
    from batcher.plain import command
    from batcher.runs import open_run

    job, request_id = str(as_text(job)), str(as_text(request_id))

    async def do() -> Mapping[str, Any]:
        async with open_run(out, beside=manifest_folder(out)) as run:
            return await run.requests.adopt(job, request_id)

    said = asyncio.run(do_or_leave(out, {"do": "adopt", "job": job, "request_id": request_id}, do, wait=120))
    if json:
        typer.echo(json_.dumps({**said.facts, "left_to_run_at_work": said.by_run}))
    elif said.by_run:
        typer.echo(f"job {job} goes on with request {request_id}: the run at work watches it")
    else:
        typer.echo(f"job {job} goes on with request {request_id}; next: {command('resume', out)}")
