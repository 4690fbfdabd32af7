"""`batcher doctor`: what can be known before the night; sends no job."""

import asyncio
import json as json_
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from batcher.cli import options as o


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
    """Check token, balance, reach of the API and of the images, clock and space; exit 1 where something is wrong.

    With --buy-one, -o names the file of exchanges. Example: batcher doctor products.yaml
    """
    import sys

    from batcher.checks.doctor import facts
    from batcher.cli.buy_one import buy_one as bought
    from batcher.cli.fitted import fitted
    from batcher.errors import EXIT_OK, EXIT_SETTLED
    from batcher.manifest.expand import Options
    from batcher.plain import plain
    from batcher.runs.prepare import known_provider

    options = Options(o.all_sets(sets), where, skip_invalid)
    asked = Asked(manifest, out, model, known_provider(provider), options, rehearsing=sandbox)
    if buy_one:
        checks, file = asyncio.run(bought(asked, yes=yes))
        typer.echo(f"the exchanges are in {file}, without the token: it can be shared", err=True)
    else:
        checks = asyncio.run(_look(asked))
    if json:
        typer.echo(json_.dumps([facts(check) for check in checks], ensure_ascii=False))
    else:
        words = {True: "ok", False: "DIFFERS" if buy_one else "WRONG", None: "unknown"}
        for check in checks:
            typer.echo(fitted(plain(f"{words[check.ok]:<8} {check.name}: {check.message}"), sys.stdout, hang=9))
            for one in check.each:
                typer.echo(plain(f"{'':<8}   {one}"))
            if check.ok is False and check.hint:
                typer.echo(fitted(f"{'':<8} {check.hint}", sys.stdout, hang=9))
    return EXIT_SETTLED if any(check.ok is False for check in checks) else EXIT_OK


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks for."""

    manifest: str | None
    out: Path | None
    model: str | None
    provider: str | None
    options: Any
    rehearsing: bool


async def _look(asked: Asked) -> list[Any]:
    import os
    from contextlib import AsyncExitStack
    from tempfile import TemporaryDirectory

    from batcher.checks import doctor as checks
    from batcher.clock import Clock
    from batcher.provider import FIRST, PROVIDERS
    from batcher.provider.rehearsal import sandbox
    from batcher.provider.sign_in import FoundToken, look_for_token, remote
    from batcher.runs.parts import http_wire

    clock = Clock()
    named = _Named(vendor=asked.provider or FIRST)
    found = []
    manifest = asked.manifest
    beside = Path(manifest).parent if manifest and manifest != "-" else None
    if manifest:
        found.append(await _expand(named, manifest, asked))
    api = PROVIDERS[named.vendor]
    async with AsyncExitStack() as stack:
        if asked.rehearsing:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            endpoint = await stack.enter_async_context(sandbox(folder, api.name))
            token = FoundToken(endpoint.token, "the sandbox takes any")
        else:
            endpoint = remote(beside, api.name)
            token = look_for_token(api, os.environ, beside)
        found.append(checks.token(token, api, clock.now()))
        wire = http_wire(endpoint)
        stack.push_async_callback(wire.close)
        if token.secret and not token.problem:
            found += [check async for check in checks.reach(wire, api, clock)]
            found.append(await checks.balance(wire, api, named.cost))
        else:
            found += [
                checks.unknown(name, "not asked: there is no token to ask with") for name in ("api", "clock", "balance")
            ]
        if manifest:
            found.append(await checks.images(wire, named.urls))
    found.append(checks.space(asked.out or named.out, named.outputs))
    return found


@dataclass(slots=True)
class _Named:
    """What a manifest's jobs name and may take."""

    vendor: str
    urls: set[str] = field(default_factory=set)
    outputs: int = 0
    cost: float | None = None
    out: Path = Path()


async def _expand(named: _Named, manifest: str, asked: Asked) -> Any:  # noqa: ANN401 - a Check, imported late
    """Expand the manifest; take down its provider, its remote images, its cost and how many files it makes."""
    from batcher.checks.doctor import bad, good
    from batcher.errors import ManifestFaulty
    from batcher.hosting.inline import Looks
    from batcher.manifest.manifest import open_manifest
    from batcher.plain import command
    from batcher.provider.sign_in import destination
    from batcher.runs.planning import find_model
    from batcher.runs.prepare import expansion, model_id, options_at, out_dir, vendor

    rejected = []
    try:
        opened = open_manifest(manifest, name=asked.out.name if asked.out else None)
        named.vendor = vendor(opened, asked.provider)
        owner = destination(named.vendor, sandbox=asked.rehearsing)
        named.out = out_dir(opened, asked.out, owner)
        found = await find_model(owner, opened, model_id(opened, asked.model), named.out)
        costs = []
        capped = opened.document.limits.max_cost_usd is not None
        reject = lambda *_: rejected.append(1)  # noqa: E731
        for spec, chosen in expansion(opened, found, Looks(), options_at(owner, asked.options), reject, capped=capped):
            if not chosen:
                continue
            named.outputs += found.outputs(spec.inputs)
            named.urls.update(one for one in spec.sources if one.startswith(("http://", "https://")))
            costs.append(spec.estimated_usd)
    except ManifestFaulty as faulty:
        return bad("manifest", f"{faulty.faults[0]}", f"{faulty.count} in all: {command('plan', Path(manifest))}")
    named.cost = None if None in costs else sum(cost or 0.0 for cost in costs)
    left_out = f"; {len(rejected):,} bad rows are left out" if rejected else ""
    return good("manifest", f"{len(costs):,} jobs, {named.outputs:,} outputs{left_out}")
