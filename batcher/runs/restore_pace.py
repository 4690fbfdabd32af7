"""Puts the deciders of a run together from what its ledger remembers: latencies, money, lost submissions."""

from batcher.engine.pace import Pace
from batcher.ledger.ledger import Ledger
from batcher.money import price_class
from batcher.pacing.circuit_breaker import CircuitBreaker
from batcher.pacing.outage import Outage
from batcher.pacing.polling import LatencyModels
from batcher.pacing.window import Rate, Speed, Window
from batcher.runs import costs
from batcher.settings import Policy


async def restore_pace(ledger: Ledger, policy: Policy) -> Pace:
    """Return the deciders as a run begins with them."""
    limits, retry = policy.limits, policy.retry
    usual = LatencyModels()
    for row in reversed(await ledger.ask("latencies")):
        usual.learn(price_class(row["model"], row["class"]), max(0.0, row["seconds"]))
    budget = await costs.budget(ledger, limits.max_cost_usd)
    budget.broad = await costs.is_short(ledger, budget)
    return Pace(
        window=Window(limits.concurrency),
        speed=Speed(),
        rate=Rate(limits.requests_per_second),
        outage=Outage(retry.patience),
        budget=budget,
        circuit_breaker=CircuitBreaker(retry.max_uncertain, retry.max_failures, await _undecided(ledger)),
        usual=usual,
    )


async def _undecided(ledger: Ledger) -> int:
    """Return how many submissions were lost since the user last decided about such."""
    lost = int((await ledger.ask("uncertain"))[0]["jobs"])
    decided = int(str((await ledger.meta()).get("uncertain_decided") or 0))
    if lost < decided:  # some have been settled since
        await ledger.decided()
    return max(0, lost - decided)
