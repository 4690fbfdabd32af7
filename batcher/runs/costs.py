"""What a ledger says of the user's money: what is spoken for, what is left to do, and whether that can be told."""

from batcher.errors import WrongUse
from batcher.job import State
from batcher.ledger.ledger import Ledger
from batcher.pacing.budget import Budget, restored
from batcher.show.words import jobs


async def budget(ledger: Ledger, limit: float | None) -> Budget:
    """Return what the ledger knows of the user's money. `limit` in USD, None: there is none."""
    return restored(
        limit,
        money=await ledger.ask("money"),
        classes=(await ledger.meta()).get("price_classes"),
        results=await ledger.ask("results"),
        unbilled=await ledger.ask("unbilled"),
    )


async def left_usd(ledger: Ledger) -> float:
    """Return the estimate, in USD, of the jobs that wait to be submitted."""
    return float((await ledger.ask("left_estimate"))[0][0])


async def check_prices(ledger: Ledger, limit: float | None) -> None:
    """Raise WrongUse if there is a limit to the cost while jobs wait whose cost nobody knows."""
    unpriced = (await ledger.ask("unpriced"))[0]["jobs"] if limit is not None else 0
    if unpriced:
        raise WrongUse(
            f"{jobs(unpriced)} that wait have no price, so the cost cannot be limited",
            "say it under `prices:` in the manifest, and run that again",
        )


async def is_short(ledger: Ledger, known: Budget) -> bool:
    """Return whether the jobs that wait may cost more than the limit leaves."""
    return known.short_of(await left_usd(ledger))


async def to_spend(ledger: Ledger, limit: float | None) -> tuple[int, float, float]:
    """Return how many jobs wait, what they may cost, and what is already spent or reserved, in USD."""
    known = await budget(ledger, limit)
    rows = await ledger.ask("states")
    waiting = sum(row["jobs"] for row in rows if row["listed"] and row["selected"] and row["state"] == State.PENDING)
    return waiting, await left_usd(ledger) * known.highest_ratio, known.committed
