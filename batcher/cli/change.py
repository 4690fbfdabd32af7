"""`batcher set`: changes settings of a run at work, for as long as it works."""

import asyncio
import json as json_
from typing import Annotated

import typer

from batcher.cli import options as o


def change(
    out: o.Out,
    settings: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="As in the manifest's limits and retry.")
    ],
    *,
    json: o.Json = False,
) -> None:
    """Change settings of the run at work: concurrency, requests_per_second, max_cost_usd, patience and more.

    Example: batcher set runs/products concurrency=16 max_cost_usd=40
    """
    from batcher.cli.left import do_or_leave
    from batcher.errors import LedgerInUse, WrongUse
    from batcher.ledger.lock import is_locked
    from batcher.ledger.reader import Reader
    from batcher.plain import command
    from batcher.runs.requests import changed
    from batcher.settings import Policy

    wanted = o.read_sets(settings, "")
    changed(Policy(), wanted)  # what is wrong is said here, whatever the run is doing
    with Reader(out):
        pass
    none = WrongUse(
        f"no run is at work on {out}: settings are set for as long as a run works",
        f"give them as options: {command('resume', out)} --concurrency N, or write them into the manifest",
    )

    async def do() -> dict[str, object]:
        raise LedgerInUse if is_locked(out) else none

    said = asyncio.run(do_or_leave(out, {"do": "set", "settings": wanted}, do))
    if json:
        typer.echo(json_.dumps(said.facts))
        return
    typer.echo("set until this run ends: " + ", ".join(f"{name} = {value}" for name, value in wanted.items()))
