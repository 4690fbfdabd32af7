"""Buys one job with the user's consent, records each exchange, and says what differs from what is assumed."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

from PIL import Image, ImageDraw

from batcher.catalog import Model, bundled
from batcher.checks import buy_one as bought
from batcher.checks.buy_one import OWN_PROMPT, Order, body_of
from batcher.checks.doctor import Check
from batcher.checks.exchanges import RecordingWire
from batcher.clock import Clock
from batcher.errors import WrongUse
from batcher.hosting.inline import ImageFactsCache, body
from batcher.manifest.manifest import open_manifest
from batcher.provider import FIRST, PROVIDERS
from batcher.provider.calls import Wire
from batcher.provider.embedded_sandbox import sandbox
from batcher.provider.provider import Offer, Provider
from batcher.provider.sign_in import destination, remote
from batcher.runs.dependencies import http_wire
from batcher.runs.diagnosing import Asked
from batcher.runs.expanding import expansion, model_id, nothing_selected, options_at, out_dir, vendor
from batcher.runs.planning import find_model
from batcher.runs.run_request import Selection
from batcher.runs.starting import Say
from batcher.show.words import money

Agree = Callable[[str, str], None]
"""Is told what may cost how much, and raises NotMeant unless the user agrees to it."""
_SIDE: Final = 256
"""Pixels of the picture that a job of this project's own sends."""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What is to be bought, and at which provider."""

    order: Order
    vendor: str
    beside: Path | None
    """The manifest's folder, where a `.env` may be."""
    what: str
    """The job in words."""


async def buy_one(asked: Asked, agree: Agree, say: Say) -> tuple[Sequence[Check], Path]:
    """Buy the manifest's first job, else one of this project's own; return what was found, and the file of exchanges.

    `agree` is asked before anything is bought, but on the sandbox. Raises NotMeant, TokenMissing, ManifestFaulty,
    WrongUse.
    """
    chosen = await _chosen(asked)
    api = PROVIDERS[chosen.vendor]
    file = asked.out or _free_name(api.name)
    async with AsyncExitStack() as stack:
        if asked.rehearsing:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            endpoint = await stack.enter_async_context(sandbox(folder, api.name))
        else:
            endpoint = remote(chosen.beside, api.name)
            endpoint.check_token()
        plain = http_wire(endpoint)
        stack.push_async_callback(plain.close)
        order = await _at_the_listed_price(chosen.order, api, plain)
        if not asked.rehearsing:
            agree(f"{chosen.what} at {api.traits.title} may cost", money(order.estimated_usd))
        wire = RecordingWire(plain, file, Clock(), say)
        where = f"the sandbox, as {api.traits.title} (REHEARSAL)" if asked.rehearsing else endpoint.base
        say(f"buying {chosen.what} at {where}; each exchange goes to {file}")
        seen = await bought.buy(api, wire, Clock(), order)
    host = urlsplit(endpoint.base).netloc
    checks = [*bought.findings(api, order, seen, host=host, headers=wire.headers)]
    kept = ", ".join(str(one) for one in bought.saved(seen, file))
    if kept:
        say(f"what was bought: {kept}")
    return checks, file


def _free_name(vendor: str) -> Path:
    """Return the default name of the file, with a number where there is one already: what was bought is in that."""
    names = (Path(f"exchanges-{vendor}{ending}.jsonl") for ending in ("", *(f"-{n}" for n in range(2, 10_000))))
    return next(one for one in names if not one.exists())


async def _at_the_listed_price(order: Order, api: Provider, wire: Wire) -> Order:
    """Return the order at the listed price of a unit, where bills are units: what it costs follows that."""
    if api.price_list is None:
        return order
    model_id = order.offer.model_id
    unit = api.price_list.read(await wire.send(api.price_list.price(model_id)), model_id)
    if unit is None:
        return order
    usd, assumed = order.estimated_usd, order.offer.unit_usd
    estimate = usd * unit / assumed if usd is not None and assumed else usd
    return replace(order, offer=replace(order.offer, unit_usd=unit), estimated_usd=estimate)


async def _chosen(asked: Asked) -> _Chosen:
    return await _of_the_manifest(asked, asked.manifest) if asked.manifest else _own(asked)


async def _of_the_manifest(asked: Asked, manifest: str) -> _Chosen:
    """Choose the first job of a manifest. Raises ManifestFaulty."""
    opened = open_manifest(manifest)
    name = vendor(opened, asked.provider)
    owner = destination(name, sandbox=asked.rehearsing)
    model = await find_model(owner, opened, model_id(opened, asked.model), out_dir(opened, None, owner))
    jobs = expansion(opened, model, ImageFactsCache(), options_at(owner, asked.options), lambda *_: None, capped=False)
    spec = next((spec for spec, chosen in jobs if chosen), None)
    if spec is None:
        raise nothing_selected(opened, Selection(where=asked.options.where))
    order = _order(model, body(spec, opened.root), spec.inputs, spec.estimated_usd)
    return _Chosen(order, name, opened.root, f"the first job of {manifest}, {spec.name},")


def _own(asked: Asked) -> _Chosen:
    """Choose a cheap job of this project's own: a small picture goes to the provider's first model that edits one."""
    name = asked.provider or FIRST
    models = [model for model in bundled(name).values() if asked.model in {None, model.id}]
    model = next((one for one in models if one.media), None)
    if model is None:
        raise WrongUse(
            f"{asked.model} is not a bundled model that edits a picture", "name a manifest whose job is bought"
        )
    inputs: dict[str, object] = {"prompt": OWN_PROMPT}
    field = min(model.media)
    inputs[field] = [_picture()] if model.properties[field].get("type") == "array" else _picture()
    order = _order(model, body_of(inputs), inputs, model.estimate(inputs, None))
    return _Chosen(order, name, None, f"one picture of {model.remote_id}")


def _order(model: Model, body: bytes, inputs: Mapping[str, object], estimated_usd: float | None) -> Order:
    asked = str(inputs.get("output_format") or model.properties.get("output_format", {}).get("default") or "")
    offer = Offer(model.remote_id, model.seeds, model.media, model.unit_usd)
    return Order(offer, body, estimated_usd, model.outputs(inputs), {"jpeg": "jpg"}.get(asked, asked))


def _picture() -> str:
    """Return a small picture as a data URI: a cup's outline on a plain ground."""
    picture = Image.new("RGB", (_SIDE, _SIDE), "white")
    drawing = ImageDraw.Draw(picture)
    drawing.rectangle((80, 90, 165, 190), outline="black", width=4)
    drawing.arc((150, 110, 200, 165), 270, 90, "black", width=4)
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
