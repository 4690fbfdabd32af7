"""`batcher report`: writes a page of a run's pictures, to be opened from disk."""

import asyncio
import json as json_
import sys
import webbrowser
from typing import Annotated

import typer

from batcher.cli import options as o
from batcher.runs.originals import fetch_originals, remote_originals
from batcher.show.report.flags import WORDS
from batcher.show.report.report import write_report
from batcher.show.words import jobs
from batcher.terminal_text import command


def report(
    out: o.NewestOut = None,
    *,
    most: Annotated[int, typer.Option("--most", min=1, help="Show no more than N jobs, evenly spread.")] = 20_000,
    originals: Annotated[
        bool, typer.Option("--originals", help="Fetch originals that are named by URL, once, to show them beside.")
    ] = False,
    open_it: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: o.Json = False,
) -> None:
    """Write OUT/report.html: a gallery of before and after that opens without a server, also while the run works.

    Example: batcher report runs/products --open
    """
    out = o.newest(out)
    terminal = sys.stderr.isatty()

    def told(count: int, of: int) -> None:
        if terminal:
            print(f"\r{count:,} of {jobs(of)} ", end="\n" if count == of else "", file=sys.stderr, flush=True)

    missed = 0
    if originals:
        missed = asyncio.run(fetch_originals(out, remote_originals(out, most), told))
    written = write_report(out, most=most, told=told)
    if json:
        facts = {
            "report": str(written.file),
            "jobs": written.jobs,
            "shown": written.shown,
            "cards": written.cards,
            "elsewhere": written.elsewhere,
            "missed": missed,
        }
        typer.echo(json_.dumps(facts | {"flags": dict(written.flags)}, ensure_ascii=False))
    else:
        odd = ", ".join(f"{count:,} {WORDS[flag]}" for flag, count in sorted(written.flags.items()))
        typer.echo(f"wrote {written.file}" + (f"; worth a look: {odd}" if odd else ""))
        if missed:
            typer.echo(f"{missed:,} originals could not be fetched")
        elif written.elsewhere:
            again = command("report", out, "--originals")
            typer.echo(f"{written.elsewhere:,} originals are named by URL: {again} fetches them, to be shown beside")
    if open_it:
        webbrowser.open(written.file.resolve().as_uri())
