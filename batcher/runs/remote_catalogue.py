"""Models that are not bundled: looked up in the API's catalogue."""

import contextlib
import json
from collections.abc import Mapping

from batcher.catalog import Model, read_strange_entry
from batcher.errors import EXIT_MANIFEST, BatcherError, TokenMissing, Unreachable, WrongUse
from batcher.provider.calls import Answer, Wire, WireFault
from batcher.provider.provider import Provider
from batcher.terminal_text import command


class UnusableModel(BatcherError):
    """The API's entry for a model is none that inputs can be checked by."""

    exit_code = EXIT_MANIFEST


async def look_up(wire: Wire, api: Provider, model_id: str) -> Model:
    """Ask the API's catalogue for a model. Raises WrongUse, UnusableModel, TokenMissing, Unreachable."""
    call = api.catalogue(model_id)
    if call is None:
        raise WrongUse(f"{api.traits.title} has no catalogue in which {model_id} could be looked up")
    answer = await wire.send(call)
    if isinstance(answer, WireFault):
        raise Unreachable(f"the model {model_id} could not be looked up: {answer.message}")
    why = ""
    try:
        entries = api.read_catalogue(json.loads(answer.body), model_id)
        if entries and answer.status == 200:  # noqa: PLR2004
            found = read_strange_entry(await _priced(entries[0], wire, api, model_id))
            if found.id == model_id:
                return found
            raise Unreachable(f"asked about the model {model_id}, the API answers about {found.id}")
    except (ValueError, RecursionError) as error:
        why = f": {error}"
    if answer.status in {401, 403}:
        raise TokenMissing(f"the API refused the token: HTTP {answer.status}, asked for the model {model_id}")
    if answer.status in {408, 429} or answer.status >= 500:  # noqa: PLR2004
        raise Unreachable(f"the model {model_id} could not be looked up: HTTP {answer.status}")
    if answer.status == 200:  # noqa: PLR2004
        raise UnusableModel(f"the API's catalogue has {model_id}, and it cannot be used{why}")
    raise WrongUse(
        f"the API's catalogue has no model {model_id} (HTTP {answer.status})", f"see what there is: {command('models')}"
    )


async def _priced(entry: Mapping[str, object], wire: Wire, api: Provider, model_id: str) -> Mapping[str, object]:
    """Return a model's entry with the listed price of its unit, where bills are units."""
    if api.price_list is None:
        return entry
    unit = api.price_list.read(await wire.send(api.price_list.price(model_id)), model_id)
    if unit is None:
        return entry
    note = "the listed price of a unit; what counts as one differs from model to model"
    return {
        **entry,
        "prices": {"usd_per_image": {"default": unit}, "usd_per_unit": unit, "assumed": True, "note": note},
    }


async def list_models(wire: Wire, api: Provider) -> list[Model]:
    """Ask the API for its whole catalogue, as far as it lists one. Raises Unreachable."""
    call = api.catalogue()
    if call is None:
        return []
    answer = await wire.send(call)
    if not isinstance(answer, Answer) or answer.status != 200:  # noqa: PLR2004
        raise Unreachable(
            f"the catalogue could not be read: {answer.message if isinstance(answer, WireFault) else answer.status}"
        )
    models = []
    for entry in api.read_catalogue(json.loads(answer.body)):
        with contextlib.suppress(ValueError, TypeError):
            models.append(read_strange_entry(entry))
    return models
