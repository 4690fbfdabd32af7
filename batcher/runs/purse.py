"""What the ledger says of the user's money: what is spoken for, what is left to do, and whether that can be told."""

from batcher.errors import WrongUse
from batcher.job import State
from batcher.ledger.ledger import Ledger
from batcher.pacing.budget import Budget, restored
from batcher.show.words import jobs


class Purse:
    """Asks one run's ledger. All amounts in USD."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def budget(self, limit: float | None) -> Budget:
        """Give what the ledger knows of the user's money."""
        return restored(
            limit,
            money=await self._ledger.ask("money"),
            classes=(await self._ledger.meta()).get("price_classes"),
            results=await self._ledger.ask("results"),
            unbilled=await self._ledger.ask("unbilled"),
        )

    async def left(self) -> float:
        """Give the estimate of what waits to be submitted."""
        return float((await self._ledger.ask("left_estimate"))[0][0])

    async def check_prices(self, limit: float | None) -> None:
        """Refuse a limit to the cost while jobs wait whose cost nobody knows. Raises WrongUse."""
        unpriced = (await self._ledger.ask("unpriced"))[0]["jobs"] if limit is not None else 0
        if unpriced:
            raise WrongUse(
                f"{jobs(unpriced)} that wait have no price, so the cost cannot be limited",
                "say it under `prices:` in the manifest, and run that again",
            )

    async def is_short(self, budget: Budget) -> bool:
        """Say whether the jobs that wait may cost more than is left."""
        return budget.short_of(await self.left())

    async def to_spend(self, limit: float | None) -> tuple[int, float, float]:
        """Give how many jobs wait, what they may cost, and what is spoken for already, in USD."""
        budget = await self.budget(limit)
        rows = await self._ledger.ask("states")
        waiting = sum(
            row["jobs"] for row in rows if row["listed"] and row["selected"] and row["state"] == State.PENDING
        )
        return waiting, await self.left() * budget.dearest, budget.spoken_for
