"""What the provider of a run offers: each model's own id there, and the listed price of a unit, asked for once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from batcher.catalog import Model, offered
from batcher.provider.calls import Wire
from batcher.provider.provider import Offer, Provider


class Offers:
    """Of one start of a run. `known` returns the models that it looked up in the API's catalogue, by id."""

    def __init__(
        self,
        api: Provider,
        wire: Wire,
        known: Callable[[], Awaitable[Mapping[str, Model]]],
        warn: Callable[[str], Awaitable[None]],
    ) -> None:
        self._api = api
        self._wire = wire
        self._known = known
        self._warn = warn
        self._offers: dict[str, Offer] = {}
        self._asked: dict[str, asyncio.Task[Offer]] = {}

    async def of(self, model_id: str) -> Offer:
        """Return a model, named as in the manifest, as the provider offers it."""
        if found := self._offers.get(model_id):
            return found
        if model_id not in self._asked:
            self._asked[model_id] = asyncio.create_task(self._look_up(model_id))
        found = self._offers[model_id] = await asyncio.shield(self._asked[model_id])
        return found

    async def _look_up(self, model_id: str) -> Offer:
        model = offered(model_id, self._api.name) or (await self._known()).get(model_id)
        if model is None:  # of a ledger that an older version began
            return Offer(model_id)
        prices = self._api.price_list
        if prices is None:
            return Offer(model.remote_id, model.seeds, model.media)
        listed = prices.read(await self._wire.send(prices.price(model.remote_id)), model.remote_id)
        assumed = model.unit_usd
        if listed is not None and assumed is not None and listed > assumed:
            await self._warn(
                f"the listed price of {model.remote_id} is ${listed:g} a unit; the estimates assume ${assumed:g}"
            )
        return Offer(model.remote_id, model.seeds, model.media, assumed if listed is None else listed)
