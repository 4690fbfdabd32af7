"""`batcher verify`: hashes every file again, and fetches what is missing or damaged; buys nothing."""

import asyncio
import json as json_

import typer

from batcher.cli import options as o
from batcher.errors import EXIT_OK, EXIT_SETTLED
from batcher.runs import verifying
from batcher.runs.verifying import Verification
from batcher.show.words import files, size
from batcher.terminal_text import plain


def verify(out: o.Out, *, json: o.Json = False) -> int:
    """Hash every file again; what is missing or damaged is fetched again while the server has it, never bought again.

    Example: batcher verify runs/products
    """
    found = asyncio.run(verifying.verify(out))
    if json:
        typer.echo(json_.dumps(found.to_json(), ensure_ascii=False))
    else:
        _show(found)
    return EXIT_SETTLED if found.damaged else EXIT_OK


def _show(found: Verification) -> None:
    mended = found.mended
    for damage in found.damaged:
        typer.echo(plain(f"{damage.file} {damage.problem}"))
    for file in mended.fetched:
        typer.echo(plain(f"{file} was fetched again"))
    for file in mended.written:
        typer.echo(plain(f"{file} was written again"))
    for lost in mended.lost:
        typer.echo(plain(f"job {lost.job_id}: {lost.message}"))
    whole, again = found.verified.files - len(found.damaged), len(mended.fetched) + len(mended.written)
    parts = [f"{whole:,} whole"]
    if again:
        parts.append(f"{again:,} mended")
    if still := len(found.damaged) - again:
        parts.append(f"{still:,} not")
    typer.echo(f"{files(found.verified.files)} ({size(found.verified.bytes)}): {', '.join(parts)}")
