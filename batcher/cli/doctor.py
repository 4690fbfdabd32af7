"""`batcher doctor`: what can be known before the night; sends no job."""

import asyncio
import json as json_
import sys
from typing import Annotated

import typer

from batcher.checks.doctor import facts
from batcher.cli import options as o
from batcher.cli.confirm import can_ask, sure
from batcher.cli.wrap import wrapped
from batcher.errors import EXIT_OK, EXIT_SETTLED, NotMeant
from batcher.manifest.expand import Options
from batcher.runs import buying_one, diagnosing
from batcher.runs.diagnosing import Asked
from batcher.runs.expanding import known_provider
from batcher.terminal_text import plain


def doctor(
    manifest: Annotated[str | None, typer.Argument(help="Also look at this manifest's images, cost and space.")] = None,
    *,
    out: o.OutOption = None,
    model: o.ModelId = None,
    sets: o.Sets = None,
    where: o.Where = None,
    skip_invalid: o.SkipInvalid = False,
    provider: o.Provider = None,
    sandbox: o.Sandbox = False,
    buy_one: Annotated[
        bool,
        typer.Option(
            "--buy-one",
            help="Buy one job (the manifest's first), record each exchange, say what differs from what is assumed.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask about the price of the one job.")] = False,
    json: o.Json = False,
) -> int:
    """Check token, balance, clock, space, and that API and images can be reached; exit 1 if something is wrong.

    With --buy-one, -o names the file of exchanges. Example: batcher doctor products.yaml
    """
    options = Options(o.all_sets(sets), where, skip_invalid)
    asked = Asked(manifest, out, model, known_provider(provider), options, rehearsing=sandbox)
    if buy_one:
        agree = _agreed if yes else _ask
        checks, file = asyncio.run(buying_one.buy_one(asked, agree, lambda line: typer.echo(line, err=True)))
        typer.echo(f"the exchanges are in {file}, without the token: it can be shared", err=True)
    else:
        checks = asyncio.run(diagnosing.look(asked))
    if json:
        typer.echo(json_.dumps([facts(check) for check in checks], ensure_ascii=False))
    else:
        words = {True: "ok", False: "DIFFERS" if buy_one else "WRONG", None: "unknown"}
        for check in checks:
            typer.echo(wrapped(plain(f"{words[check.ok]:<8} {check.name}: {check.message}"), sys.stdout, hang=9))
            for one in check.each:
                typer.echo(plain(f"{'':<8}   {one}"))
            if check.ok is False and check.hint:
                typer.echo(wrapped(f"{'':<8} {check.hint}", sys.stdout, hang=9))
    return EXIT_SETTLED if any(check.ok is False for check in checks) else EXIT_OK


def _agreed(_what: str, _price: str) -> None:
    """Ask nothing: the user has agreed already."""


def _ask(what: str, price: str) -> None:
    """Raise NotMeant unless the user agrees to the price."""
    if not can_ask():
        raise NotMeant(
            f"one job may cost {price}, and nobody can be asked; nothing was sent", "if that is meant, add --yes"
        )
    sure(f"{what} {price}. Buy it?", NotMeant("nothing was sent"))
