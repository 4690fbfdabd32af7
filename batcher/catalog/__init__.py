"""The models known: input schemas and prices, as data with one reader. Knows no manifest and no wire."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

BUNDLED: Final = Path(__file__).parent / "models"
_SCHEMA_KEYS: Final = ("input_schema", "schema", "input")
COUNT_FIELDS: Final = ("num_images", "number_of_images", "num_outputs", "n", "num_videos")
_MEDIA_FORMATS: Final = re.compile(r"^(image|video|audio|media|file)_?(uri|url)$")
_MEDIA_NAMES: Final = re.compile(r"(^|_)(images?|photos?|masks?|videos?|audios?|frames?)(_(uri|url)s?)?$")


FIRST_PROVIDER: Final = "runcomfy"
"""Whose a model is that names no provider."""
PRICED_BY: Final = "resolution"
"""The input that prices depend on, of the models known."""
UNKEPT: Final = "sync_mode"
"""The input by which a result comes in the answer alone: the vendor keeps no copy of it."""
_OUTPUT_BYTES: Final = {"1K": 1.8e6, "2K": 6e6, "4K": 20e6}
"""Of a PNG of that resolution: a guess, for want of any output."""
_MOST_SEED: Final = 2**31 - 1
"""What models take whose seeds are 32-bit numbers with a sign."""
_LEAST_SEEDS: Final = 2**24
"""Seeds by which requests can be told apart: of a thousand lost ones, two are alike in one case of thirty."""
MISSING: Final = "is missing, and the model requires it"
"""What is said of a required input that is not there."""


@dataclass(frozen=True, slots=True)
class Prices:
    """USD for one output, by resolution; `default` where no resolution is named or known."""

    usd: Mapping[str, float]
    assumed: bool = False
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)
    """USD that an input adds to a request where it is on."""

    def of(self, resolution: str | None) -> float | None:
        """Return the price of one output at that resolution, None if not known."""
        return self.usd.get(resolution or "default", self.usd.get("default"))


@dataclass(frozen=True)
class Model:
    """One model: what it takes and what it costs."""

    id: str
    name: str
    schema: Mapping[str, object]
    prices: Prices | None
    entry: Mapping[str, object] = field(repr=False)
    """As the catalogue has it."""
    remote_id: str = ""
    """The id by which its provider knows it, where the manifest names it by another's."""

    @property
    def provider(self) -> str:
        """The name of the provider that offers it."""
        return str(self.entry.get("provider") or FIRST_PROVIDER)

    @property
    def called(self) -> str:
        """What a user calls it: with its name at its provider, where that is another."""
        other = self.remote_id not in {"", self.id}
        return f"{self.id} ({self.remote_id} at {self.provider})" if other else self.id

    @property
    def same_as(self) -> str:
        """What a model is known by at all of its providers."""
        return str(self.entry.get("same_as") or self.entry.get("model_id") or self.id)

    @cached_property
    def seeds(self) -> range | None:
        """The numbers that its input takes as `seed`; None where it takes none, or too few to tell requests apart."""
        schema = self.properties.get("seed", {})
        kinds = schema.get("anyOf")
        choices = [schema, *(one for one in kinds if isinstance(one, dict))] if isinstance(kinds, list) else [schema]
        whole = next((one for one in choices if one.get("type") == "integer"), None)
        if whole is None or "enum" in whole or "const" in whole:
            return None
        low, high = whole.get("minimum", 0), whole.get("maximum", _MOST_SEED)
        if not isinstance(low, int | float) or not isinstance(high, int | float):
            return None
        found = range(max(0, math.ceil(low)), min(_MOST_SEED, math.floor(high)) + 1)
        return found if len(found) >= _LEAST_SEEDS else None

    @property
    def unit_usd(self) -> float | None:
        """The assumed price of a unit, where bills are units; None where it is not known."""
        prices = self.entry.get("prices")
        unit = prices.get("usd_per_unit") if isinstance(prices, dict) else None
        return float(unit) if isinstance(unit, int | float) and not isinstance(unit, bool) else None

    @cached_property
    def properties(self) -> Mapping[str, Mapping[str, object]]:
        """The input fields' own schemas."""
        found = self.schema.get("properties")
        schemas = found.items() if isinstance(found, dict) else ()
        return {name: one if isinstance(one, dict) else {} for name, one in schemas}  # `true` allows anything

    @cached_property
    def _validator(self) -> jsonschema_rs.Validator:
        return jsonschema_rs.validator_for(json.dumps(_without_unknown_formats(self.schema)), retriever=_fetch_nothing)

    def faults(self, inputs: Mapping[str, object]) -> list[tuple[str, str]]:
        """Return what the schema forbids in these inputs, as (field, what is wrong) pairs."""
        if self._validator.is_valid(inputs):
            return []
        return [_explain(error, inputs) for error in self._validator.iter_errors(inputs)]

    @cached_property
    def media(self) -> frozenset[str]:
        """The input fields that hold images or other media: URLs, or local files."""
        return frozenset(name for name in self.properties if self._holds_media(name))

    def _holds_media(self, name: str) -> bool:
        schema = self.properties.get(name, {})
        items = schema.get("items")
        kinds = [schema, items] if isinstance(items, dict) else [schema]
        formats = [str(kind.get("format", "")) for kind in kinds]
        if any(_MEDIA_FORMATS.match(text) for text in formats):
            return True
        texts = any(kind.get("type") == "string" and "enum" not in kind for kind in kinds)
        return texts and bool(_MEDIA_NAMES.search(name))

    def outputs(self, inputs: Mapping[str, object]) -> int:
        """Return how many files a job of these inputs asks for."""
        if self._counted_by is None:
            return 1
        name, default = self._counted_by
        count = inputs.get(name, default)
        return count if isinstance(count, int) and count > 0 else 1

    def meant_by(self, name: str) -> str | None:
        """Return the input that is meant by one that sister models have: how many outputs are wanted; None for none."""
        return self._counted_by[0] if name in COUNT_FIELDS and self._counted_by else None

    @cached_property
    def _counted_by(self) -> tuple[str, object] | None:
        """The input that says how many files are wanted, and its default."""
        name = next((name for name in COUNT_FIELDS if name in self.properties), None)
        return None if name is None else (name, self.properties[name].get("default", 1))

    def request_class(self, inputs: Mapping[str, object]) -> str:
        """Return what sets a request's price and latency beside its model: its resolution, if it has one."""
        resolution = inputs.get(PRICED_BY, self._usual_resolution)
        return "" if resolution is None else str(resolution)

    @cached_property
    def _usual_resolution(self) -> object:
        return self.properties.get(PRICED_BY, {}).get("default")

    @staticmethod
    def output_bytes(request_class: str) -> float:
        """Return a guess of the bytes of an output, before any is known."""
        return _OUTPUT_BYTES.get(request_class, _OUTPUT_BYTES["1K"])

    def estimate(self, inputs: Mapping[str, object], prices: Prices | None) -> float | None:
        """Estimate what a job of these inputs costs in USD, by the prices given or the catalogue's."""
        prices = prices or self.prices
        if prices is None:
            return None
        each = prices.of(self.request_class(inputs) or None)
        extra = sum(usd for name, usd in prices.extra.items() if inputs.get(name) is True)
        return None if each is None else round(each * self.outputs(inputs) + extra, 6)


def is_unkept(inputs: Mapping[str, object]) -> bool:
    """Return whether the vendor keeps no copy of the result of such a request."""
    return inputs.get(UNKEPT) is True


def asked_side(inputs: Mapping[str, object]) -> tuple[str, int] | None:
    """Return the size that a request asks for, in words and in pixels of a longer side; None where it asks for none."""
    asked = str(inputs.get(PRICED_BY, ""))
    return (asked, int(asked[:-1]) * 1024) if asked[-1:].upper() == "K" and asked[:-1].isdigit() else None


def _fetch_nothing(uri: str) -> Any:  # noqa: ANN401 - as the library has it
    """Refuse to look for what a schema refers to outside of itself: it comes from a server."""
    raise ValueError(f"the schema refers to {uri}, and nothing outside of it is read")


def _without_unknown_formats(schema: object) -> object:
    """Drop `format`: the catalogue's own words (`image_uri`) are for us, and local files stand in their place."""
    if isinstance(schema, dict):
        return {key: _without_unknown_formats(value) for key, value in schema.items() if key != "format"}
    if isinstance(schema, list):
        return [_without_unknown_formats(item) for item in schema]
    return schema


def _explain(error: jsonschema_rs.ValidationError, inputs: Mapping[str, object]) -> tuple[str, str]:
    path = list(error.instance_path)
    where = ".".join(str(part) for part in path)
    kind = error.kind
    value = _at(inputs, path)
    match kind:
        case jsonschema_rs.ValidationErrorKind.Required(property=name):
            return str(name), MISSING
        case jsonschema_rs.ValidationErrorKind.Enum(options=options):
            return where, f"is {json.dumps(value, ensure_ascii=False)}; the model takes {_listed(options)}"
        case jsonschema_rs.ValidationErrorKind.MaxItems(limit=limit) if isinstance(value, list):
            return where, f"has {len(value)} items, the model takes at most {limit}"
        case jsonschema_rs.ValidationErrorKind.MinItems(limit=limit) if isinstance(value, list):
            return where, f"has {len(value)} items, the model takes at least {limit}"
        case jsonschema_rs.ValidationErrorKind.AdditionalProperties(unexpected=names):
            return ", ".join(names), "is not an input of the model"
        case _:
            return where, error.message if len(error.message) < 300 else error.message[:300] + "..."  # noqa: PLR2004


def _listed(options: object) -> str:
    return ", ".join(map(str, options)) if isinstance(options, list) else str(options)


def _at(value: object, path: list[str | int]) -> object:
    for part in path:
        value = value[part]  # type: ignore[index]
    return value


def read_entry(entry: Mapping[str, object]) -> Model:
    """Read a catalogue entry, bundled or from the API. Raises ValueError where it holds no usable input schema."""
    schema = next((entry[key] for key in _SCHEMA_KEYS if isinstance(entry.get(key), dict)), None)
    model_id = entry.get("model_id") or entry.get("id")
    if not (isinstance(schema, dict) and isinstance(model_id, str)):
        raise ValueError("the catalogue's entry has no input schema")  # noqa: TRY004 - of the data, not of a caller
    return Model(
        id=model_id,
        name=str(entry.get("display_name") or model_id),
        schema=schema,
        prices=_prices(entry),
        entry=entry,
        remote_id=model_id,
    )


def read_strange_entry(entry: Mapping[str, object]) -> Model:
    """Read an entry that comes from the API, and see that inputs can be checked by it. Raises ValueError."""
    model = read_entry(entry)
    try:
        model.faults({})
    except Exception as error:  # what a schema from elsewhere makes a library say  # noqa: BLE001
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"its input schema cannot be used: {why}") from None
    return model


def _prices(entry: Mapping[str, object]) -> Prices | None:
    own = entry.get("prices")
    if isinstance(own, dict):
        assumed, note = bool(own.get("assumed")), str(own.get("note", ""))
        return Prices(own["usd_per_image"], assumed, note, own.get("usd_extra", {}))
    base = entry.get("base_price_usd")
    if isinstance(base, int | float) and not isinstance(base, bool):
        note = f"the catalogue's base price per {entry.get('price_unit') or 'request'}; no promise"
        return Prices({"default": float(base)}, note=note)
    return None


@cache
def _bundled() -> Mapping[str, Model]:
    models = [read_entry(json.loads(file.read_text("utf-8"))) for file in sorted(BUNDLED.glob("*.json"))]
    models.sort(key=lambda model: (model.provider != FIRST_PROVIDER, model.provider, model.id))
    return {model.id: model for model in models}


def bundled(provider: str | None = None) -> dict[str, Model]:
    """Return the models that come with the package, by id; `provider`: only those that it offers."""
    return {key: model for key, model in _bundled().items() if provider in {None, model.provider}}


def offered(model_id: str, provider: str) -> Model | None:
    """Return a bundled model as a provider offers it, under the id by which the manifest names it.

    None where it is not bundled, or where the provider does not offer it.
    """
    named = _bundled().get(model_id)
    if named is not None and named.provider == provider:
        return named
    wanted = model_id if named is None else named.same_as
    twin = next((one for one in bundled(provider).values() if one.same_as == wanted), None)
    return None if twin is None else replace(twin, id=model_id)


def offers(model_id: str) -> dict[str, Model]:
    """Return a bundled model as each of its providers offers it, by the provider's name; none for one that is not."""
    names = dict.fromkeys(model.provider for model in _bundled().values())
    return {name: model for name in names if (model := offered(model_id, name))}


def takers(model: Model, name: str) -> list[str]:
    """Return the other providers that offer a model and take an input of that name."""
    elsewhere = offers(model.id).items()
    return [provider for provider, other in elsewhere if provider != model.provider and name in other.properties]
