"""Goes on with a run directory from its ledger alone: what its last start was given, with what is given now."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from batcher.errors import WrongUse
from batcher.runs.costs import check_prices
from batcher.runs.opening import open_made
from batcher.runs.run import Run
from batcher.runs.run_request import Overrides
from batcher.runs.stale_copy import accept_as_is
from batcher.runs.starting import Questions, Say, confirm_cost
from batcher.settings import Policy


@asynccontextmanager
async def go_on(
    out: Path, overrides: Overrides, questions: Questions, accepts_moved: Callable[[str], bool], say: Say
) -> AsyncIterator[Run]:
    """Open a run directory with its last selection and settings, everything agreed to: it can be worked on.

    `accepts_moved` is asked, where the ledger is an older copy, whether to go on with it all the same. Raises WrongUse,
    NotMeant, LedgerInUse, NotFound.
    """
    async with open_made(out) as directory:
        meta = await directory.meta()
        if "policy" not in meta:
            raise WrongUse(f"{out} has no manifest that was taken in whole", "run the manifest again, with -o and this")
        run = Run(directory, overrides.over(Policy.of_json(meta["policy"])))
        await check_prices(directory.ledger, run.policy.limits.max_cost_usd)
        if meta.get("agreed") is False:  # the last `run` ended before it could ask, or was told no
            await confirm_cost(run, questions)
        if meta.get("moved") and accepts_moved(str(meta["moved"])):
            await accept_as_is(directory)
        await directory.note({"policy": run.policy.to_json(), "paused": False, "agreed": True})
        if kept := overrides.kept(run.policy):
            say(f"kept from the last start: {kept}")
        yield run
