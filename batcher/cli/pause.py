"""`batcher pause`: ends the run at work in good order, and lets no `run` go on until `resume`."""

import asyncio
import json as json_

import typer

from batcher.cli import options as o


def pause(out: o.Out, *, json: o.Json = False) -> None:
    """End the run at work: what is in flight is finished, the rest waits until `resume`.

    Example: batcher pause runs/products
    """
    from batcher.cli.left import do_or_leave
    from batcher.plain import command
    from batcher.runs import open_ledger

    async def do() -> dict[str, object]:
        async with open_ledger(out) as ledger:
            await ledger.put_meta({"paused": True})
            return {}

    said = asyncio.run(do_or_leave(out, {"do": "pause"}, do))
    if json:
        typer.echo(json_.dumps({"paused": True, "left_to_run_at_work": said.by_run}))
        return
    typer.echo("paused: the run at work finishes what is in flight, and ends" if said.by_run else "paused")
    typer.echo(f"next: {command('resume', out)}")
