"""`batcher run`: expands, submits, polls, downloads, until every job is settled; run again, it resumes."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from batcher.cli import options as o


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
    from batcher.cli.prepare import Selection
    from batcher.manifest.expand import Options

    wanted = o.Wanted(
        manifest=manifest,
        out=out,
        model=model,
        provider=provider,
        options=Options(o.all_sets(sets), where, skip_invalid),
        given=o.Given(concurrency, max_cost, max_time, patience, until, o.by_environment(context)),
        selection=Selection(limit, sample, where),
        sandbox=sandbox,
        reuse=tuple(reuse or ()),
        yes=yes,
        replace_done=replace_done,
        quiet=quiet,
        verbose=verbose,
    )
    if dry_run:
        from batcher.cli.plan import show_plan

        return asyncio.run(show_plan(wanted, as_json=json))
    return loop_run(lambda lines: run_manifest(wanted, lines), as_json=json)


def loop_run(work: Callable[[Any], Any], *, as_json: bool) -> int:
    """Run on uvloop where there is one. `work` is given what prints events as JSON, or None, and gives a coroutine."""
    from batcher.cli.lines import Lines
    from batcher.errors import Signalled
    from batcher.run import descriptors

    descriptors.check()
    start: Callable[[Any], Any] = asyncio.run
    with suppress(ImportError):
        import uvloop

        start = uvloop.run
    lines = Lines() if as_json else None
    signals: list[int] = []
    try:
        return int(start(_until_signal(work(lines), signals)))
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


async def _until_signal(work: Any, signals: list[int]) -> Any:  # noqa: ANN401 - a coroutine that gives an exit code
    """Do the work; a signal before the run hears of them itself ends it in good order."""
    import signal

    from batcher.cli.ask import heard

    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def end(number: int) -> None:
        signals.append(number)
        if task and len(signals) == 1 and number not in heard:  # a second must not cut the closing of the ledger off
            task.cancel()

    for one in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) is not signal.SIG_IGN:
            loop.add_signal_handler(one, end, int(one))
    return await work


async def run_manifest(wanted: o.Wanted, lines: Any) -> int:  # noqa: ANN401 - Lines or None, imported late
    """Open the run directory, take the manifest's jobs in, work."""
    from batcher.cli.ask import plain_signals
    from batcher.cli.prepare import model_id, out_dir, policy, vendor
    from batcher.cli.work import work
    from batcher.errors import LedgerInUse, ManifestFaulty, NotFound, NotMeant, TokenMissing
    from batcher.ledger.reader import has_ledger
    from batcher.manifest.manifest import open_manifest
    from batcher.provider.proxies import of_environment
    from batcher.provider.sign_in import destination
    from batcher.run import discard, open_run

    with plain_signals():  # standard input may be waited for
        manifest = open_manifest(wanted.manifest, name=wanted.out.name if wanted.out else None)
    for folder in wanted.reuse:
        if not (folder / "files").is_dir():
            raise NotFound(f"{folder} is not a run directory: there are no files in it")
    owner = destination(vendor(manifest, wanted.provider), sandbox=wanted.sandbox)
    out = out_dir(manifest, wanted.out, owner)
    asked = model_id(manifest, wanted.model)
    settings = wanted.given.over(policy(manifest))
    if not wanted.sandbox:
        of_environment().of(owner.provider)  # one that cannot be used is said before anything is made
    fresh = not has_ledger(out)
    rebuild = any(folder.resolve() == out.resolve() for folder in wanted.reuse)
    begun = False
    try:
        async with open_run(out, wanted=owner, beside=manifest.root, make=True, rebuild=rebuild) as opened:
            await _take_in(opened, manifest, asked, wanted, settings)
            fresh = not await _take_over(opened, wanted.reuse) and fresh  # what was brought is in its ledger alone
            await confirm(opened, settings, yes=wanted.yes)
            await opened.note({"agreed": True})
            begun = True
            return await work(opened, settings, quiet=wanted.quiet, lines=lines, verbose=wanted.verbose)
    except LedgerInUse:  # the directory is another's
        raise
    except BaseException as error:
        undone = not begun or isinstance(error, ManifestFaulty | TokenMissing | NotMeant)
        if fresh and not rebuild and undone:  # what was not agreed to is not left for `resume` to buy
            discard(out)
        raise


async def _take_in(opened: Any, manifest: Any, asked: str, wanted: o.Wanted, settings: Any) -> None:  # noqa: ANN401
    from batcher.cli.prepare import fingerprint, warnings
    from batcher.cli.work import say

    await _check_manifest(opened, manifest, wanted)
    model = await _model(opened, manifest, asked)
    capped = settings.limits.max_cost_usd is not None
    stands_for = fingerprint(manifest, model, wanted.options, wanted.selection, capped=capped)
    if await opened.has_taken(stands_for):
        meta = await opened.meta()
        counted: dict[str, Any] = {"rejected": 0, "unkept": 0, "outside": [], "blank": {}, "unmade": 0} | {
            name: meta[name] for name in _COUNTED if name in meta
        }
    else:
        counted = await _expand(opened, manifest, model, wanted, stands_for, settings)
    await opened.note(_facts(manifest, settings, wanted) | counted)
    for warning in warnings(counted["unkept"], counted["outside"], counted["blank"]):
        say(f"warning: {warning}")
        await opened.warn(warning)


async def _expand(
    opened: Any,  # noqa: ANN401
    manifest: Any,  # noqa: ANN401
    model: Any,  # noqa: ANN401
    wanted: o.Wanted,
    stands_for: str,
    settings: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Take the manifest's jobs in, all or none; count the rows that were rejected, and what to warn of."""
    from batcher.cli.prepare import expansion, nothing_selected
    from batcher.cli.rejected import Rejected
    from batcher.cli.work import say
    from batcher.errors import ManifestFaulty
    from batcher.hosting.inline import Looks
    from batcher.ledger.enrolment import Choice, NothingSelected, TooManyUnlisted
    from batcher.ledger.reader import KnownImages
    from batcher.show import words

    capped = settings.limits.max_cost_usd is not None
    known = KnownImages(opened.out)
    looks = Looks(known)
    choice = Choice(wanted.selection.limit, wanted.selection.sample)
    sure = wanted.replace_done
    while True:
        reject = Rejected(opened.out / "rejected.csv", manifest)
        jobs = expansion(manifest, model, looks, wanted.options, reject, capped=capped, owner=opened.owner)
        chosen = replace(choice, partly=partial(_is_partial, jobs.census))
        counted = partial(_counted, reject, jobs.census)
        facts = partial(_with, _facts(manifest, settings, wanted), counted)
        try:
            enrolled = await opened.enrol(jobs, looks.fresh, chosen, sure=sure, stands_for=stands_for, facts=facts)
        except ManifestFaulty:
            if reject.count and not jobs.census.jobs:  # its reasons are what helps
                reject.keep()
            raise
        except NothingSelected:
            raise nothing_selected(manifest, wanted.selection) from None
        except TooManyUnlisted as many:
            _ask_unlisted(many)
            sure = True
        else:
            reject.keep()
            if enrolled.unlists_done:
                say(f"note: {words.jobs(enrolled.unlists_done)} that are done are no longer named: their files stay")
            return counted()
        finally:
            reject.discard()
            known.close()


def _is_partial(census: Any) -> bool:  # noqa: ANN401 - Census
    """Return whether jobs that `--where` leaves out could not be made: the manifest names more than is known."""
    return bool(census.unmade)


_COUNTED = ("rejected", "unkept", "outside", "blank", "unmade")


def _counted(reject: Any, census: Any) -> dict[str, Any]:  # noqa: ANN401 - Rejected, Census
    return {
        "rejected": reject.count,
        "unkept": census.unkept,
        "outside": [*census.outside],
        "blank": dict(census.blank),
        "unmade": census.unmade,
    }


def _with(facts: dict[str, object], counted: Callable[[], dict[str, Any]]) -> dict[str, object]:
    return facts | counted()


async def _take_over(opened: Any, folders: Sequence[Path]) -> int:  # noqa: ANN401 - a Run
    """Take over finished results where that is asked for, and count the jobs; else say which runs nearby have some."""
    from batcher.cli.work import say
    from batcher.run.reuse import held_by_siblings, reuse, waiting_in
    from batcher.show.words import jobs

    count = 0
    for folder in folders:
        reused = await reuse(opened, folder)
        again = f"; {jobs(reused.fetched)} with damaged files are fetched again, not bought" if reused.fetched else ""
        say(f"{jobs(reused.taken)} taken over from {folder}{again}")
        count += reused.taken + reused.fetched
    if folders:
        return count
    near = held_by_siblings(opened.out, opened.owner, waiting_in(opened.out))
    if near:
        sibling = max(near, key=near.__getitem__)
        others = f" (and {len(near) - 1} more have some)" if len(near) > 1 else ""
        said = f"{sibling} has results of {jobs(near[sibling])} of these{others}"
        say(f"note: {said}: --reuse {sibling} takes them over, unbought")
    return 0


async def confirm(opened: Any, settings: Any, *, yes: bool) -> None:  # noqa: ANN401
    """Ask whether so much money is meant to be spent. Raises NotMeant at a no, and where nobody can be asked.

    Without a terminal a cap is answer enough.
    """
    from batcher.cli.ask import can_ask, sure
    from batcher.errors import NotMeant
    from batcher.run.forecast import asks
    from batcher.show.words import jobs, money

    limits = settings.limits
    if yes or opened.owner.is_sandbox or (not can_ask() and limits.max_cost_usd is not None):
        return
    waiting, cost, spent = await opened.purse.to_spend(limits.max_cost_usd)
    if not asks(cost, limits.max_cost_usd, spent, limits.confirm_above_usd):
        return
    said = f"{jobs(waiting)} may cost {money(cost)}"
    capped = "" if limits.max_cost_usd is None else f", and no more than {money(limits.max_cost_usd)} in all"
    refused = NotMeant(
        f"{said}, more than {money(limits.confirm_above_usd)} (confirm_above_usd), and nobody can be asked; "
        "nothing was sent",
        f"if that is meant, add --yes, or set a cap: --max-cost {cost:.2f}",
    )
    if not can_ask():
        raise refused
    sure(f"{said}{capped}. Go on?", NotMeant("nothing was sent", "see a few first: add --sample 6"))


def _ask_unlisted(many: Any) -> None:  # noqa: ANN401 - a TooManyUnlisted, imported late
    """Ask whether an edit that leaves out most of what is done is meant. Raises NotMeant."""
    from batcher.cli.ask import can_ask, sure
    from batcher.errors import NotMeant

    refused = NotMeant(f"{many} by this manifest; nothing was changed", "if that is meant, add --replace-done")
    if not can_ask():
        raise refused
    sure(f"{many}; their files stay. Go on?", refused)


async def _model(opened: Any, manifest: Any, asked: str) -> Any:  # noqa: ANN401
    from batcher.catalog import bundled
    from batcher.cli.prepare import unknown_model
    from batcher.errors import WrongUse

    try:
        return await opened.model(asked)
    except WrongUse:
        raise unknown_model(manifest, asked, list(bundled(opened.owner.vendor))) from None


async def _check_manifest(opened: Any, manifest: Any, wanted: o.Wanted) -> None:  # noqa: ANN401
    """Refuse another manifest on the same directory, unless it was named. Raises WrongRun."""
    from batcher.cli.prepare import is_another
    from batcher.errors import WrongRun

    known = (await opened.meta()).get("manifest")
    if wanted.out is None and is_another(manifest, known):
        raise WrongRun(
            f"{opened.out} belongs to {known}", f"choose a directory: -o DIR, or -o {opened.out} if it is meant"
        )


def _facts(manifest: Any, settings: Any, wanted: o.Wanted) -> dict[str, object]:  # noqa: ANN401
    from batcher.plain import command
    from batcher.run.run import policy_facts

    return {
        "name": manifest.name,
        "whole": None if manifest.file == "-" else command("run", Path(manifest.file), *wanted.words(whole=True)),
        "manifest": manifest.key,
        "manifest_file": manifest.file if manifest.file == "-" else manifest.path.name,
        "manifest_sha256": manifest.sha256,
        "rows_sha256": manifest.rows_digest(),
        "root": str(manifest.root),
        "policy": policy_facts(settings),
        "selection": wanted.selection.facts(),
        "agreed": False,
    }
