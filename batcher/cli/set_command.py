"""`batcher set`: changes settings of a run at work, for as long as it works."""

import asyncio
import json as json_
from dataclasses import asdict
from typing import Annotated

import typer

from batcher.cli import options as o
from batcher.runs import controlling


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
    wanted = o.read_sets(settings, "")
    changed = asyncio.run(controlling.change_settings(out, wanted))
    if json:
        typer.echo(json_.dumps(asdict(changed)))
        return
    typer.echo("set until this run ends: " + ", ".join(f"{name} = {value}" for name, value in wanted.items()))
