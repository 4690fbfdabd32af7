"""Models that are not bundled: looked up in the API's catalogue."""

import contextlib
import json

from batcher.catalog import Model, read_strange_entry
from batcher.errors import EXIT_MANIFEST, BatcherError, TokenMissing, Unreachable, WrongUse
from batcher.plain import command
from batcher.provider.calls import Answer, Wire, WireFault
from batcher.provider.provider import Provider


class Unusable(BatcherError):
    """The API's entry for a model is none that inputs can be checked by."""

    exit_code = EXIT_MANIFEST


async def look_up(wire: Wire, api: Provider, model_id: str) -> Model:
    """Ask the API's catalogue for a model. Raises WrongUse, Unusable, TokenMissing, Unreachable."""
    answer = await wire.send(api.catalogue(model_id))
    if isinstance(answer, WireFault):
        raise Unreachable(f"the model {model_id} could not be looked up: {answer.message}")
    why = ""
    try:
        entry = json.loads(answer.body)
        if isinstance(entry, dict) and answer.status == 200:  # noqa: PLR2004
            inner = entry.get("model")
            found = read_strange_entry(inner if isinstance(inner, dict) else {"model_id": model_id, **entry})
            if found.id == model_id:
                return found
            raise Unreachable(f"asked about the model {model_id}, the API answers about {found.id}")
    except ValueError as error:
        why = f": {error}"
    if answer.status in {401, 403}:
        raise TokenMissing(f"the API refused the token: HTTP {answer.status}, asked for the model {model_id}")
    if answer.status in {408, 429} or answer.status >= 500:  # noqa: PLR2004
        raise Unreachable(f"the model {model_id} could not be looked up: HTTP {answer.status}")
    if answer.status == 200:  # noqa: PLR2004
        raise Unusable(f"the API's catalogue has {model_id}, and it cannot be used{why}")
    raise WrongUse(
        f"the API's catalogue has no model {model_id} (HTTP {answer.status})", f"see what there is: {command('models')}"
    )


async def list_models(wire: Wire, api: Provider) -> list[Model]:
    """Ask the API for its whole catalogue. Raises Unreachable."""
    answer = await wire.send(api.catalogue())
    if not isinstance(answer, Answer) or answer.status != 200:  # noqa: PLR2004
        raise Unreachable(
            f"the catalogue could not be read: {answer.message if isinstance(answer, WireFault) else answer.status}"
        )
    found = json.loads(answer.body)
    entries = found if isinstance(found, list) else found.get("models") or found.get("items") or []
    models = []
    for entry in entries:
        with contextlib.suppress(ValueError, TypeError):
            models.append(read_strange_entry(entry))
    return models
