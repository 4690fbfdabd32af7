"""`batcher cancel`: cancels what is still queued at the server, and leaves the rest pending."""

import asyncio
import json as json_
from dataclasses import asdict

import typer

from batcher.cli import options as o
from batcher.runs import controlling
from batcher.show.words import jobs
from batcher.terminal_text import command


def cancel(out: o.Out, *, json: o.Json = False) -> None:
    """Cancel what is still queued at the server; what was not submitted stays pending.

    Example: batcher cancel runs/products
    """
    done = asyncio.run(controlling.cancel(out))
    found = done.result
    if json:
        typer.echo(json_.dumps({"left_to_run_at_work": True} if done.by_run else asdict(found)))
    elif done.by_run:
        typer.echo("the run at work cancels what is queued, and ends")
    elif not found.cancelled and not found.running:
        typer.echo("nothing to cancel: no job is at the server")
    else:
        typer.echo(f"{jobs(found.cancelled)} cancelled; {found.running:,} not, which run on at the server")
        if found.running:
            typer.echo(f"next: {command('resume', out)}")
