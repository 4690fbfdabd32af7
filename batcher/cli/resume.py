"""`batcher resume`: goes on with the run in a directory, from its ledger alone."""

from batcher.cli import options as o
from batcher.cli.confirm import can_ask, sure
from batcher.cli.json_events import JsonEvents
from batcher.cli.messages import say
from batcher.cli.run import Terminal, loop_run
from batcher.cli.run_in_terminal import work
from batcher.cli.run_options import LimitOptions
from batcher.errors import NotMeant
from batcher.runs.resuming import go_on


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
    overrides = LimitOptions(concurrency, max_cost, max_time, patience, until).overrides()
    found = o.only_unfinished(out)

    def accepts(moved: str) -> bool:
        return accept_moved or _accepts(moved)

    async def resumed(lines: JsonEvents | None) -> int:
        async with go_on(found, overrides, Terminal(yes=yes), accepts, say) as run:
            return await work(run, quiet=quiet, lines=lines)

    return loop_run(resumed, as_json=json)


def _accepts(moved: str) -> bool:
    """Return whether the user goes on with an older copy, where somebody can be asked. Raises NotMeant at a no."""
    if not can_ask():
        return False  # the run says why it stops, and what goes on
    sure(f"{moved}. Go on with it?", NotMeant("nothing was changed", "if that is meant, add --accept-moved"))
    return True
