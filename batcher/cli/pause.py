"""`batcher pause`: ends the run at work in good order, and lets no `run` go on until `resume`."""

import asyncio
import json as json_

import typer

from batcher.cli import options as o
from batcher.runs import controlling
from batcher.terminal_text import command


def pause(out: o.Out, *, json: o.Json = False) -> None:
    """End the run at work: what is in flight is finished, the rest waits until `resume`.

    Example: batcher pause runs/products
    """
    done = asyncio.run(controlling.pause(out))
    if json:
        typer.echo(json_.dumps({"paused": True, "left_to_run_at_work": done.by_run}))
        return
    typer.echo("paused: the run at work finishes what is in flight, and ends" if done.by_run else "paused")
    typer.echo(f"next: {command('resume', out)}")
