"""Looks at what can be known before the night: token, reach, balance, clock, space, images. Sends no job."""

import os
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from batcher.checks import doctor as checks
from batcher.checks.doctor import Check, bad, good
from batcher.clock import Clock
from batcher.errors import ManifestFaulty
from batcher.hosting.inline import ImageFactsCache
from batcher.manifest.expand import Options
from batcher.manifest.manifest import open_manifest
from batcher.provider import FIRST, PROVIDERS
from batcher.provider.embedded_sandbox import sandbox
from batcher.provider.sign_in import FoundToken, destination, look_for_token, remote
from batcher.runs.dependencies import http_wire
from batcher.runs.expanding import expansion, model_id, options_at, out_dir, vendor
from batcher.runs.planning import find_model
from batcher.show.words import rows
from batcher.terminal_text import command


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be looked at: a manifest with the options of `plan`, or what the environment alone tells."""

    manifest: str | None
    out: Path | None
    model: str | None
    provider: str | None
    options: Options
    rehearsing: bool


async def look(asked: Asked) -> list[Check]:
    """Return what can be known before a run, without sending a job."""
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


async def _expand(named: _Named, manifest: str, asked: Asked) -> Check:
    """Expand the manifest; record its provider, its remote images, its cost and how many files it makes."""
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
        for spec, chosen in expansion(
            opened, found, ImageFactsCache(), options_at(owner, asked.options), reject, capped=capped
        ):
            if not chosen:
                continue
            named.outputs += found.outputs(spec.inputs)
            named.urls.update(one for one in spec.sources if one.startswith(("http://", "https://")))
            costs.append(spec.estimated_usd)
    except ManifestFaulty as faulty:
        return bad("manifest", f"{faulty.faults[0]}", f"{faulty.count} in all: {command('plan', Path(manifest))}")
    named.cost = None if None in costs else sum(cost or 0.0 for cost in costs)
    left_out = f"; {rows(len(rejected))} with faults would be skipped" if rejected else ""
    return good("manifest", f"{len(costs):,} jobs, {named.outputs:,} outputs{left_out}")
