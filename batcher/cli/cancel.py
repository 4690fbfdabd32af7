"""`batcher cancel`: cancels what is still queued at the server, and leaves the rest pending."""

import asyncio
import json as json_

import typer

from batcher.cli import options as o


def cancel(out: o.Out, *, json: o.Json = False) -> None:
    """Cancel what is still queued at the server; what was not submitted stays pending.

    Example: batcher cancel runs/products
    """
    from batcher.cli.left import do_or_leave
    from batcher.cli.resume import manifest_folder
    from batcher.plain import command
    from batcher.runs import open_run
    from batcher.show.words import jobs

    async def do() -> dict[str, int]:
        async with open_run(out, beside=manifest_folder(out)) as run:
            return await run.requests.cancel()

    said = asyncio.run(do_or_leave(out, {"do": "cancel"}, do))
    if json:
        typer.echo(json_.dumps({"left_to_run_at_work": True} if said.by_run else said.facts))
    elif said.by_run:
        typer.echo("the run that is at work cancels what is queued, and ends")
    else:
        counts = said.facts
        if not any(counts.values()):
            typer.echo("nothing to cancel: no job is at the server")
            return
        typer.echo(f"{jobs(counts['cancelled'])} cancelled; {counts['running']} cannot be, and run on at the server")
        if counts["running"]:
            typer.echo(f"next: {command('resume', out)}")
