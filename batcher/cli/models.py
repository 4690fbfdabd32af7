"""`batcher models`: the models known, or one model's inputs and price."""

import asyncio
import json as json_
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from batcher.catalog import Model, bundled
from batcher.cli import options as o
from batcher.manifest.faults import did_you_mean
from batcher.provider import FIRST, PROVIDERS
from batcher.provider.embedded_sandbox import sandbox
from batcher.provider.sign_in import remote
from batcher.runs.dependencies import http_wire
from batcher.runs.expanding import known_provider
from batcher.runs.remote_catalogue import list_models, look_up
from batcher.settings import Endpoint


def models(
    model_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One model.")] = None,
    *,
    provider: o.Provider = None,
    sandbox: o.Sandbox = False,
    json: o.Json = False,
) -> None:
    """List the models known, or show one model's inputs and price.

    Example: batcher models google/nano-banana/pro/edit
    """
    found = asyncio.run(_models(model_id, known_provider(provider), rehearsing=sandbox))
    if json:
        entries = [model.entry for model in found]
        typer.echo(json_.dumps(entries if model_id is None else entries[0], ensure_ascii=False))
    elif model_id is None:
        for model in found:
            typer.echo(f"{model.id}  {model.name}")
    else:
        _show(found[0])


async def _models(model_id: str | None, vendor: str | None, *, rehearsing: bool) -> list[Model]:
    """Return the bundled models, and those of the catalogue where there is a token."""
    known = bundled(vendor)
    spoken = vendor or FIRST
    if model_id in known:
        return [known[model_id]]
    async with AsyncExitStack() as stack:
        if rehearsing:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            endpoint = await stack.enter_async_context(sandbox(folder, spoken))
        else:
            endpoint = remote(vendor=spoken)
        if not endpoint.token:
            return _only_bundled(known, model_id, endpoint)
        endpoint.check_token()
        wire = http_wire(endpoint)
        stack.push_async_callback(wire.close)
        api = PROVIDERS[endpoint.vendor]
        if model_id is not None:
            return [await look_up(wire, api, model_id)]
        return list({**known, **{model.id: model for model in await list_models(wire, api)}}.values())


def _only_bundled(known: Mapping[str, Model], model_id: str | None, endpoint: Endpoint) -> list[Model]:

    if model_id is not None:
        raise endpoint.missing(
            f"{model_id} is not bundled, and the API's catalogue needs a token{did_you_mean(model_id, list(known))}"
        )
    typer.echo("no token: these are the bundled models only", err=True)
    return list(known.values())


def _listed(found: object) -> list[object]:
    """Return what a schema lists; nothing where it lists nothing."""
    return found if isinstance(found, list) else []


def _show(model: Model) -> None:
    typer.echo(f"{model.id}\n{model.name}\n")
    required = _listed(model.schema.get("required"))
    for name, schema in model.properties.items():
        kind = " | ".join(map(str, _listed(schema.get("enum")))) or str(schema.get("type", "any"))
        rules = [f"{rule} {schema[rule]}" for rule in ("minimum", "maximum", "minItems", "maxItems") if rule in schema]
        default = [f"default {schema['default']}"] if "default" in schema else []
        more = ", ".join([*(["required"] if name in required else []), *rules, *default])
        typer.echo(f"  {name}: {kind}" + (f"  ({more})" if more else ""))
    if model.prices:
        prices = ", ".join(f"{name} ${usd:g}" for name, usd in model.prices.usd.items())
        typer.echo(f"\nprice of one output: {prices}" + (f"  ({model.prices.note})" if model.prices.note else ""))
    else:
        typer.echo("\nprice: not known")
