"""`batcher resume`: goes on with the run in a directory, from its ledger alone."""

from pathlib import Path
from typing import Any

from batcher.cli import options as o
from batcher.cli.run import confirm, loop_run


def resume(
    out: o.Out,
    *,
    concurrency: o.Concurrency = None,
    max_cost: o.MaxCost = None,
    max_time: o.MaxTime = None,
    patience: o.PatienceOption = None,
    yes: o.Yes = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Go on with the run in a directory, from its ledger alone, with its last selection.

    Example: batcher resume runs/products
    """
    given = o.Given(concurrency, max_cost, max_time, patience)
    return loop_run(lambda lines: _resume(out, given, lines, sure=yes, quiet=quiet), as_json=json)


async def _resume(out: o.Out, given: o.Given, lines: Any, *, sure: bool, quiet: bool) -> int:  # noqa: ANN401
    from batcher.cli.work import work
    from batcher.errors import WrongUse
    from batcher.run import open_run
    from batcher.run.run import policy_facts, policy_of

    async with open_run(out, beside=manifest_folder(out)) as run:
        meta = await run.meta()
        if "policy" not in meta:
            raise WrongUse(f"{out} has no manifest that was taken in whole", "run the manifest again, with -o and this")
        policy = given.over(policy_of(meta.get("policy")))
        await run.purse.check_prices(policy.limits.max_cost_usd)
        if meta.get("agreed") is False:  # the last `run` ended before it could ask, or was told no
            await confirm(run, policy, yes=sure, owed=True)
        await run.note({"policy": policy_facts(policy), "paused": False, "agreed": True})
        if sure and meta.get("moved"):
            await run.copies.accept_as_is()
        return await work(run, policy, quiet=quiet, lines=lines)


def manifest_folder(out: o.Out) -> Path | None:
    """Give the manifest's folder, where a `.env` may be."""
    from batcher.ledger.reader import Reader

    with Reader(out) as reader:
        root = reader.meta().get("root")
    return Path(str(root)) if root else None
