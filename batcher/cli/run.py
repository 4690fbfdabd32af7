"""`batcher run`: expands, submits, polls, downloads, until every job is settled; run again, it resumes."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import typer

try:
    import uvloop
except ImportError:  # where it is not built: Windows
    uvloop = None  # type: ignore[assignment]

from batcher.cli import options as o
from batcher.cli.confirm import can_ask, heard, sure
from batcher.cli.json_events import JsonEvents
from batcher.cli.messages import say
from batcher.cli.plan import show_plan
from batcher.cli.run_in_terminal import work
from batcher.cli.run_options import LimitOptions, opened, words
from batcher.errors import NotMeant, Signalled
from batcher.ledger.import_jobs import TooManyUnlisted
from batcher.runs import descriptors
from batcher.runs.run_request import RunRequest, Selection
from batcher.runs.starting import Cost, begin
from batcher.show.words import money


def run(
    context: typer.Context,
    manifest: o.Manifest,
    *,
    out: o.OutOption = None,
    model: o.ModelId = None,
    provider: o.Provider = None,
    sets: o.Sets = None,
    concurrency: o.Concurrency = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    where: o.Where = None,
    skip_invalid: o.SkipInvalid = False,
    reuse: o.Reuse = None,
    max_cost: o.MaxCost = None,
    max_time: o.MaxTime = None,
    until: o.Until = None,
    patience: o.PatienceOption = None,
    sandbox: o.Sandbox = False,
    dry_run: Annotated[
        bool, typer.Option("-n", "--dry-run", envvar="BATCHER_DRY_RUN", help="The same as `batcher plan`.")
    ] = False,
    yes: o.Yes = False,
    replace_done: o.ReplaceDone = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", envvar="BATCHER_VERBOSE", help="A line for each job that settles.")
    ] = False,
) -> int:
    """Run a manifest until every job is settled; run it again, and it goes on where it was.

    Example: batcher run products.yaml --sandbox
    """
    said = words(
        context,
        out=out,
        model=model,
        provider=provider,
        sets=sets,
        selection=Selection(limit, sample, where),
        limits=LimitOptions(concurrency, max_cost, max_time, patience, until),
        reuse=reuse,
        skip_invalid=skip_invalid,
        sandbox=sandbox,
    )
    if dry_run:
        return show_plan(lambda: opened(manifest, said, replace_done=replace_done), as_json=json, verbose=verbose)
    manner = TerminalOptions(quiet=quiet, verbose=verbose, yes=yes)
    return loop_run(
        lambda lines: run_manifest(lambda: opened(manifest, said, replace_done=replace_done), manner, lines),
        as_json=json,
    )


@dataclass(frozen=True, slots=True)
class TerminalOptions:
    """How a run speaks to its user, and what was said yes to before being asked."""

    quiet: bool = False
    verbose: bool = False
    yes: bool = False


def loop_run(work: Callable[[JsonEvents | None], Awaitable[int]], *, as_json: bool) -> int:
    """Run on uvloop where there is one. `work` is given what prints events as JSON, or None; return its exit code."""
    descriptors.check()
    start: Callable[..., int] = uvloop.run if uvloop else asyncio.run
    lines = JsonEvents() if as_json else None
    signals: list[int] = []
    try:
        return int(start(_until_signal(work, lines, signals)))
    except asyncio.CancelledError as cancelled:
        if not signals:
            raise
        stopped = Signalled(signals[0])
        if lines:
            lines.end(stopped)
        raise stopped from cancelled
    except BaseException as error:
        if lines:
            lines.end(error)
        raise


async def _until_signal(
    work: Callable[[JsonEvents | None], Awaitable[int]], lines: JsonEvents | None, signals: list[int]
) -> int:
    """Do the work; a signal before the run hears of them itself ends it in good order."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end(number: int) -> None:
        signals.append(number)
        if task and len(signals) == 1 and number not in heard:  # a second must not cut the closing of the ledger off
            task.cancel()

    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) is not signal.SIG_IGN:
            loop.add_signal_handler(one, end, int(one))
    return await work(lines)


async def run_manifest(opened: Callable[[], RunRequest], manner: TerminalOptions, lines: JsonEvents | None) -> int:
    """Open the manifest and the run directory, take the jobs in, work."""
    async with begin(opened(), Terminal(yes=manner.yes), say) as run:
        return await work(run, quiet=manner.quiet, lines=lines, verbose=manner.verbose)


@dataclass(frozen=True, slots=True)
class Terminal:
    """Asks the user on the terminal; where nobody can be asked, the option is named that answers."""

    yes: bool
    """The cost is agreed to."""

    def cost(self, cost: Cost) -> None:
        """Ask whether so much money is to be spent. Without a terminal a cap is answer enough."""
        if self.yes or (not can_ask() and cost.limit is not None):
            return
        if not can_ask():
            raise NotMeant(
                f"{cost}, more than {money(cost.above)} (confirm_above_usd), and nobody can be asked; nothing was sent",
                f"if that is meant, add --yes, or set a cap: --max-cost {cost.usd:.2f}",
            )
        capped = "" if cost.limit is None else f", and no more than {money(cost.limit)} in all"
        sure(f"{cost}{capped}. Go on?", NotMeant("nothing was sent", "see a few first: add --sample 6"))

    def unlisted(self, many: TooManyUnlisted) -> None:
        """Ask whether an edit is meant that leaves out most of what is done."""
        refused = NotMeant(f"{many} by this manifest; nothing was changed", "if that is meant, add --replace-done")
        if not can_ask():
            raise refused
        sure(f"{many}; their files stay. Go on?", refused)
