"""`batcher status`: counts, cost, and what is left."""

import json as json_

import typer

from batcher.cli import options as o


def status(out: o.Out, *, json: o.Json = False) -> None:
    """Say where a run stands, at work or not.

    Example: batcher status runs/products
    """
    from batcher.ledger.lock import is_locked
    from batcher.ledger.reader import Reader
    from batcher.show.status import status as look
    from batcher.show.words import command, summary

    found = look(out)
    if json:
        typer.echo(json_.dumps(found, ensure_ascii=False))
        return
    with Reader(out) as reader:
        paused = bool(reader.meta().get("paused"))
    if paused:
        typer.echo(f"paused: no run goes on with it until {command('resume', out)}")
    if is_locked(out):
        typer.echo("a run is at work on this directory")
    for line in summary(found, out):
        typer.echo(line)
