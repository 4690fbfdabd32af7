"""Begins a run: opens its directory, takes the manifest's jobs in, takes over results, settles what is to be asked."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from batcher.catalog import Model, bundled
from batcher.errors import LedgerInUse, ManifestFaulty, NotFound, NotMeant, TokenMissing, WrongRun, WrongUse
from batcher.hosting.inline import ImageFactsCache
from batcher.ledger.import_jobs import Choice, NothingSelected, TooManyUnlisted
from batcher.ledger.reader import KnownImages, has_ledger
from batcher.manifest.expansion_counts import ExpansionCounts
from batcher.manifest.manifest import Manifest
from batcher.money import needs_consent
from batcher.provider.proxies import of_environment
from batcher.provider.sign_in import destination
from batcher.runs import costs
from batcher.runs.dependencies import Dependencies
from batcher.runs.expanding import (
    expansion,
    fingerprint,
    is_another,
    model_id,
    nothing_selected,
    options_at,
    out_dir,
    policy,
    unknown_model,
    vendor,
    warnings,
)
from batcher.runs.opening import discard, open_directory
from batcher.runs.rejected import Rejected
from batcher.runs.reuse import held_by_siblings, reuse, waiting_in
from batcher.runs.run import Run
from batcher.runs.run_directory import RunDirectory
from batcher.runs.run_request import RunRequest
from batcher.settings import Policy
from batcher.show.words import jobs, money
from batcher.terminal_text import command

Say = Callable[[str], None]
"""Is told what the user should read, a line at a time."""
_COUNTED: Final[Mapping[str, Any]] = {
    "rejected": 0,
    "unkept": 0,
    "outside": (),
    "blank": {},
    "not_taken": {},
    "unmade": 0,
}


@dataclass(frozen=True, slots=True)
class Cost:
    """What is to be spent, where it is so much that the user is asked. USD."""

    waiting: int
    """Jobs."""
    usd: float
    limit: float | None
    above: float

    def __str__(self) -> str:
        return f"{jobs(self.waiting)} may cost {money(self.usd)}"


class Questions(Protocol):
    """Whom the user's decisions come from. What is not agreed to is raised as NotMeant."""

    def cost(self, cost: Cost) -> None:
        """Ask whether so much money is to be spent."""
        ...

    def unlisted(self, many: TooManyUnlisted) -> None:
        """Ask whether an edit is meant that leaves out most of the jobs that are done."""
        ...


@asynccontextmanager
async def begin(
    wanted: RunRequest, questions: Questions, say: Say, dependencies: Dependencies | None = None
) -> AsyncIterator[Run]:
    """Open the run directory of a manifest, with its jobs taken in and everything agreed to: it can be worked on.

    Raises ManifestFaulty, WrongRun, NotMeant, LedgerInUse, NotFound, TokenMissing. What was not agreed to is not left
    for `resume` to buy: a directory that was made for it is taken back.
    """
    manifest = wanted.manifest
    for folder in wanted.reuse:
        if not (folder / "files").is_dir():
            raise NotFound(f"{folder} is not a run directory: there are no files in it")
    owner = destination(vendor(manifest, wanted.provider), sandbox=wanted.sandbox)
    out = out_dir(manifest, wanted.out, owner)
    asked = model_id(manifest, wanted.model)
    settings = wanted.overrides.over(policy(manifest))
    if not wanted.sandbox:
        of_environment().of(owner.provider)  # one that cannot be used is said before anything is made
    fresh = not has_ledger(out)
    rebuild = any(folder.resolve() == out.resolve() for folder in wanted.reuse)
    begun = False
    try:
        async with open_directory(
            out, wanted=owner, beside=manifest.root, make=True, rebuild=rebuild, dependencies=dependencies
        ) as opened:
            run = Run(opened, settings)
            await _take_in(run, asked, wanted, questions, say)
            fresh = not await _take_over(opened, wanted.reuse, say) and fresh  # what was brought is in its ledger alone
            await confirm_cost(run, questions)
            await opened.note({"agreed": True})
            begun = True
            yield run
    except LedgerInUse:  # the directory is another's
        raise
    except BaseException as error:
        undone = not begun or isinstance(error, ManifestFaulty | TokenMissing | NotMeant)
        if fresh and not rebuild and undone:
            discard(out, keep_reasons=isinstance(error, ManifestFaulty))
        raise


async def confirm_cost(run: Run, questions: Questions) -> None:
    """Ask whether so much money is to be spent, where it is more than the settings let go unasked."""
    limits = run.policy.limits
    if run.directory.owner.is_sandbox:
        return
    waiting, usd, spent = await costs.to_spend(run.directory.ledger, limits.max_cost_usd)
    if needs_consent(usd, spent, limits.max_cost_usd, limits.confirm_above_usd):
        questions.cost(Cost(waiting, usd, limits.max_cost_usd, limits.confirm_above_usd))


async def _take_in(run: Run, asked: str, wanted: RunRequest, questions: Questions, say: Say) -> None:
    opened = run.directory
    await _check_manifest(opened, wanted)
    model = await _model(opened, wanted.manifest, asked)
    capped = run.policy.limits.max_cost_usd is not None
    stands_for = fingerprint(wanted.manifest, model, wanted.options, wanted.selection, capped=capped)
    if await opened.has_taken(stands_for):
        meta = await opened.meta()
        counted = {name: meta.get(name, nothing) for name, nothing in _COUNTED.items()}
    else:
        counted = await _expand(run, model, wanted, stands_for, questions, say)
    await opened.note(_facts(wanted, run.policy) | counted)
    for warning in warnings(counted["unkept"], counted["outside"], counted["blank"], counted["not_taken"]):
        say(f"warning: {warning}")
        await opened.warn(warning)


async def _expand(
    run: Run, model: Model, wanted: RunRequest, stands_for: str, questions: Questions, say: Say
) -> dict[str, Any]:
    """Import the manifest's jobs, all or none; return the rows that were rejected, and what to warn of."""
    opened, manifest, capped = run.directory, wanted.manifest, run.policy.limits.max_cost_usd is not None
    known = KnownImages(opened.out)
    looks, options = ImageFactsCache(known), options_at(opened.owner, wanted.options)
    choice = Choice(wanted.selection.limit, wanted.selection.sample)
    sure = wanted.replace_done
    while True:
        reject = Rejected(opened.out / "rejected.csv", manifest)
        expanded = expansion(manifest, model, looks, options, reject, capped=capped)
        chosen = replace(choice, partly=partial(_is_partial, expanded.expansion_counts))
        counted = partial(_counted, reject, expanded.expansion_counts)
        facts = partial(_with, _facts(wanted, run.policy), counted)
        try:
            imported = await opened.import_jobs(
                expanded, looks.fresh, chosen, sure=sure, stands_for=stands_for, facts=facts
            )
        except ManifestFaulty:
            if reject.count and not expanded.expansion_counts.jobs:  # its reasons are what helps
                reject.keep()
            raise
        except NothingSelected:
            raise nothing_selected(manifest, wanted.selection) from None
        except TooManyUnlisted as many:
            questions.unlisted(many)
            sure = True
        else:
            reject.keep()
            if imported.unlists_done:
                say(f"note: {jobs(imported.unlists_done)} that are done are no longer named: their files stay")
            return counted()
        finally:
            reject.discard()
            known.close()


def _is_partial(expansion_counts: ExpansionCounts) -> bool:
    """Return whether jobs that `--where` leaves out could not be made: the manifest names more than is known."""
    return bool(expansion_counts.unmade)


def _counted(reject: Rejected, expansion_counts: ExpansionCounts) -> dict[str, Any]:
    return {
        "rejected": reject.count,
        "unkept": expansion_counts.unkept,
        "outside": [*expansion_counts.outside],
        "blank": dict(expansion_counts.blank),
        "not_taken": expansion_counts.not_taken,
        "unmade": expansion_counts.unmade,
    }


def _with(facts: dict[str, object], counted: Callable[[], dict[str, Any]]) -> dict[str, object]:
    return facts | counted()


async def _take_over(opened: RunDirectory, folders: Sequence[Path], say: Say) -> int:
    """Take over finished results where that is asked for, and count the jobs; else say which runs nearby have some."""
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
        say(f"note: {said}: --reuse {sibling} takes them over, at no cost")
    return 0


async def _model(opened: RunDirectory, manifest: Manifest, asked: str) -> Model:
    try:
        return await opened.model(asked)
    except WrongUse:
        raise unknown_model(manifest, asked, list(bundled(opened.owner.vendor))) from None


async def _check_manifest(opened: RunDirectory, wanted: RunRequest) -> None:
    """Refuse another manifest on the same directory, unless it was named. Raises WrongRun."""
    known = (await opened.meta()).get("manifest")
    if wanted.out is None and is_another(wanted.manifest, known):
        raise WrongRun(
            f"{opened.out} belongs to {known}", f"choose a directory: -o DIR, or -o {opened.out} if it is meant"
        )


def _facts(wanted: RunRequest, settings: Policy) -> dict[str, object]:
    manifest = wanted.manifest
    again = None
    narrowed = wanted.selection.limit is not None or wanted.selection.sample is not None
    if wanted.words is not None and manifest.file != "-" and (narrowed or not wanted.selection.where):
        again = command("run", Path(manifest.file), *wanted.words(True))  # noqa: FBT003 - the whole manifest
    return {
        "name": manifest.name,
        "whole": again,
        "manifest": manifest.key,
        "manifest_file": manifest.file if manifest.file == "-" else manifest.path.name,
        "manifest_sha256": manifest.sha256,
        "rows_sha256": manifest.rows_digest(),
        "root": str(manifest.root),
        "policy": settings.to_json(),
        "selection": wanted.selection.facts(),
        "agreed": False,
    }
