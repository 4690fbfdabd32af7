"""`batcher resume`: goes on with the run in a directory, from its ledger alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from batcher.cli import options as o
from batcher.cli.run import Terminal, loop_run

if TYPE_CHECKING:
    from batcher.cli.lines import Lines
    from batcher.runs.wanted import Overrides


def resume(
    out: o.OnlyOut = None,
    *,
    concurrency: o.Concurrency = None,
    max_cost: o.MaxCost = None,
    max_time: o.MaxTime = None,
    until: o.Until = None,
    patience: o.PatienceOption = None,
    yes: o.Yes = False,
    accept_moved: o.AcceptMoved = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Go on with the run in a directory, from its ledger alone, with its last selection.

    Example: batcher resume runs/products
    """
    overrides = o.Limits(concurrency, max_cost, max_time, patience, until).overrides()
    found = o.only_unfinished(out)
    answers = _Answers(yes, accept_moved)
    return loop_run(lambda lines: _resume(found, overrides, lines, answers, quiet=quiet), as_json=json)


@dataclass(frozen=True, slots=True)
class _Answers:
    """What the user has said yes to, before being asked."""

    cost: bool
    moved: bool


async def _resume(out: Path, overrides: "Overrides", lines: "Lines | None", answers: _Answers, *, quiet: bool) -> int:
    from batcher.cli.work import say, work
    from batcher.errors import WrongUse
    from batcher.runs import open_run
    from batcher.runs.run import policy_facts, policy_of
    from batcher.runs.starting import confirm_cost

    async with open_run(out, beside=manifest_folder(out)) as run:
        meta = await run.meta()
        if "policy" not in meta:
            raise WrongUse(f"{out} has no manifest that was taken in whole", "run the manifest again, with -o and this")
        policy = run.policy = overrides.over(policy_of(meta.get("policy")))
        await run.purse.check_prices(policy.limits.max_cost_usd)
        if meta.get("agreed") is False:  # the last `run` ended before it could ask, or was told no
            await confirm_cost(run, Terminal(yes=answers.cost))
        if meta.get("moved") and (answers.moved or _accepts(str(meta["moved"]))):
            await run.copies.accept_as_is()
        await run.note({"policy": policy_facts(policy), "paused": False, "agreed": True})
        if kept := overrides.kept(policy):
            say(f"kept from the last start: {kept}")
        return await work(run, quiet=quiet, lines=lines)


def _accepts(moved: str) -> bool:
    """Return whether the user goes on with an older copy, where somebody can be asked. Raises NotMeant at a no."""
    from batcher.cli.ask import can_ask, sure
    from batcher.errors import NotMeant

    if not can_ask():
        return False  # the run says why it stops, and what goes on
    sure(f"{moved}. Go on with it?", NotMeant("nothing was changed", "if that is meant, add --accept-moved"))
    return True


def manifest_folder(out: o.Out) -> Path | None:
    """Give the manifest's folder, where a `.env` may be."""
    from batcher.ledger.reader import Reader

    with Reader(out) as reader:
        root = reader.meta().get("root")
    return Path(str(root)) if root else None
