"""`batcher cancel`: cancels what is still queued at the server, and leaves the rest pending."""

import asyncio
import json as json_

import typer

from batcher.cli import options as o


def cancel(out: o.Out, *, json: o.Json = False) -> None:
    """Cancel what is still queued at the server; what was not submitted stays pending.

    Example: batcher cancel runs/products
    """
    from batcher.show.words import command, jobs

    counts = asyncio.run(_cancel(out))
    if json:
        typer.echo(json_.dumps(counts or {"left_to_run_at_work": True}))
    elif counts is None:
        typer.echo("the run that is at work cancels what is queued, and ends")
    else:
        typer.echo(f"{jobs(counts['cancelled'])} cancelled; {counts['running']} cannot be, and run on at the server")
        if counts["running"]:
            typer.echo(f"next: {command('resume', out)}")


async def _cancel(out: o.Out) -> dict[str, int] | None:
    """Cancel; None: left to the run that is at work."""
    from batcher.cli.left import do_or_leave
    from batcher.run import open_run

    async def do() -> dict[str, int]:
        async with open_run(out) as run:
            return await run.cancel()

    return await do_or_leave(out, {"do": "cancel"}, do)
