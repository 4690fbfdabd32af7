"""What a run would do and cost, and every fault of its manifest. Sends nothing, makes nothing, prints nothing."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from batcher.catalog import Model, bundled, offered, read_entry
from batcher.errors import BatcherError, Fault, ManifestFaulty, WrongUse
from batcher.hosting.inline import ImageFactsCache
from batcher.job import State
from batcher.ledger.import_jobs import unlists_most
from batcher.ledger.reader import KnownImages, Reader, has_ledger
from batcher.manifest.expansion_counts import ExpansionCounts
from batcher.manifest.faults import did_you_mean
from batcher.manifest.job_id import fingerprint
from batcher.manifest.manifest import Manifest
from batcher.manifest.seen_keys import SeenKeys
from batcher.outputs.finished_jobs import finished
from batcher.provider import PROVIDERS
from batcher.provider.embedded_sandbox import sandbox
from batcher.provider.sign_in import destination, remote
from batcher.runs.dependencies import http_wire
from batcher.runs.expanding import (
    expansion,
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
from batcher.runs.forecast import STATES, PlannedJobs, at_each_provider, bill, expected, space
from batcher.runs.remote_catalogue import look_up
from batcher.runs.reuse import held_by_siblings
from batcher.runs.run_request import RunRequest
from batcher.settings import Destination, Endpoint
from batcher.terminal_text import command

_HELD: Final = (State.FAILED, State.UNCERTAIN, State.CANCELLED)
"""States in which a job waits for the user's word."""
_SAMPLED: Final = 16
"""Jobs above which a sample is a good beginning."""


@dataclass(frozen=True, slots=True)
class PlannedCost:
    """USD. None: not known, for some job has no price."""

    estimated: float | None = 0.0
    limit: float | None = None
    """The spending cap, None: there is none."""
    repriced: float | None = None
    """By what this run was billed so far."""
    bills: int = 0
    """So many of these were looked at."""
    by_class: Sequence[Mapping[str, Any]] = ()
    affordable: int | None = None
    """Jobs that the cap pays for, where it is not enough for all."""
    confirm_above: float | None = None
    asks: bool = False
    """`run` asks first."""
    note: str = ""


@dataclass(slots=True)
class Plan:
    """What a run would do. What could not be told for faults is as it is by default."""

    name: str | None = None
    jobs: int = 0
    equal_rows: int = 0
    cost_usd: PlannedCost = field(default_factory=PlannedCost)
    faults: list[Fault] = field(default_factory=list)
    """What is wrong with the manifest, up to 50."""
    fault_count: int = 0
    hint: str = ""
    """What helps against the faults."""
    photos: Mapping[str, Any] | None = None
    whole: "PlannedRun | None" = None
    """All else, where there are no faults."""

    def to_json(self) -> dict[str, Any]:
        """Return it as `plan --json` prints it."""
        cost: Mapping[str, Any] = {"estimated": self.cost_usd.estimated}
        found: dict[str, Any] = {"name": self.name, "jobs": self.jobs, "equal_rows": self.equal_rows}
        if self.photos is not None:
            found["photos"] = self.photos
        if self.whole is not None:
            cost = asdict(self.cost_usd)
            found |= asdict(self.whole)
        return {
            **found,
            "cost_usd": cost,
            "faults": [asdict(one) for one in self.faults],
            "fault_count": self.fault_count,
        }

    def raise_faults(self) -> None:
        """Raise ManifestFaulty if there are any."""
        if self.fault_count:
            raise ManifestFaulty(self.faults, self.fault_count, self.hint)


@dataclass(frozen=True, slots=True)
class PlannedRun:
    """What is known of a run whose manifest has no faults. Sizes in bytes."""

    selected: int
    to_buy: int
    rows: int
    rejected: int
    providers: Sequence[Mapping[str, Any]]
    images: int
    images_outside: Sequence[str]
    inlined_bytes: int
    model: str
    out: str
    provider: str
    vendor: str
    reused: int
    begun: int
    held: Mapping[str, int]
    """Of the begun, those that wait for the user's word, by state."""
    expected: Mapping[str, Any] | None
    space: Mapping[str, Any]
    samples: Sequence[Mapping[str, Any]]
    settings: Mapping[str, Mapping[str, object]]
    warnings: Sequence[str]
    next: str | None


async def plan(wanted: RunRequest) -> Plan:
    """Return what a run would do; faults of the manifest are in it."""
    found = Plan(name=wanted.manifest.name)
    try:
        await _plan_into(found, wanted)
    except ManifestFaulty as faulty:
        found.faults, found.fault_count, found.hint = [*faulty.faults], faulty.count, faulty.hint
    return found


async def _plan_into(found: Plan, wanted: RunRequest) -> None:
    """Add to a plan; what is known stays there when faults are raised."""
    manifest = wanted.manifest
    owner = destination(vendor(manifest, wanted.provider), sandbox=wanted.sandbox)
    out = out_dir(manifest, wanted.out, owner)
    model = await find_model(owner, manifest, model_id(manifest, wanted.model), out)
    settings = wanted.overrides.over(policy(manifest))
    rejected: list[str] = []
    jobs = expansion(
        manifest,
        model,
        ImageFactsCache(KnownImages(out)),
        options_at(owner, wanted.options),
        lambda _row, _header, reason: rejected.append(reason),
        capped=settings.limits.max_cost_usd is not None,
    )
    seen = PlannedJobs(sampled=wanted.selection.sample is not None)
    try:
        for spec, chosen in jobs:
            seen.take(spec, model.outputs(spec.inputs), chosen=chosen)
    finally:
        found.jobs, found.equal_rows = jobs.expansion_counts.jobs, jobs.expansion_counts.equal_rows
        found.photos = jobs.expansion_counts.photos.facts()
    kept = seen.kept(wanted.selection.limit, wanted.selection.sample)
    if not kept and jobs.expansion_counts.jobs:
        raise nothing_selected(manifest, wanted.selection)
    left, held, unlisted = _not_begun(out, owner, seen, kept)
    begun = len(kept) - len(left)
    to_buy, near = _not_reusable(wanted.reuse, out, owner, seen, left)
    images, image_bytes = seen.images(to_buy)
    prices = model.prices if manifest.document.prices is None else None
    cost = bill(seen, to_buy, settings, out, owner.provider)
    found.cost_usd = PlannedCost(**cost, note=prices.note if prices else "")
    found.whole = PlannedRun(
        selected=len(kept),
        to_buy=len(to_buy),
        rows=jobs.expansion_counts.rows,
        rejected=len(rejected),
        providers=at_each_provider(seen, to_buy, owner.vendor, cost["estimated"]),
        images=images,
        images_outside=[*jobs.expansion_counts.outside],
        inlined_bytes=image_bytes,
        model=model.id,
        out=str(out),
        provider=owner.provider,
        vendor=owner.vendor,
        reused=len(left) - len(to_buy),
        begun=begun,
        held=held,
        expected=expected(out, owner.provider, len(to_buy)),
        space=space(out, owner.provider, seen, to_buy),
        samples=seen.samples(),
        settings=wanted.overrides.sources(manifest.document, settings),
        warnings=[*seen.warnings(), *_said_before(jobs.expansion_counts, wanted, out, owner, unlisted), *near],
        next=_next(wanted, len(to_buy), begun),
    )
    seen.close()


def _said_before(
    counted: ExpansionCounts, wanted: RunRequest, out: Path, owner: Destination, left_out: int
) -> list[str]:
    """Return what `run` would warn of, or ask; `left_out`: finished jobs that the manifest no longer names."""
    said = warnings(counted.unkept, counted.outside, counted.blank, counted.not_taken)
    try:
        with Reader(out) as reader:
            known = reader.meta()
            if wanted.out is None and is_another(wanted.manifest, known.get("manifest")):
                said.append(
                    f"{out} belongs to {known['manifest']}: `run` asks for another directory, or for this by -o"
                )
            if reader.owner() not in {None, owner}:
                said.append(f"{out} holds results of {known['provider']}; `run` will refuse it: choose another with -o")
            done = sum(row["jobs"] for row in reader.ask("states") if row["listed"] and row["state"] == "done")
    except BatcherError:
        return said
    if left_out > 0:
        asks = "; `run` asks first (--replace-done)" if unlists_most(left_out, done) else ""
        said.append(f"{left_out:,} finished jobs are no longer named: they leave the totals, their files stay{asks}")
    return said


def _next(wanted: RunRequest, to_buy: int, begun: int) -> str | None:
    """Return the command that buys what was priced; at first, where it is much, a few of it."""
    if not to_buy or wanted.words is None or wanted.manifest.file == "-":
        return None
    narrowed = any((wanted.selection.limit, wanted.selection.sample, wanted.selection.where))
    first = ["--sample", "6"] if to_buy > _SAMPLED and not narrowed and not begun else []
    return command("run", Path(wanted.manifest.file), *wanted.words(False), *first)  # noqa: FBT003 - with its selection


def _not_begun(
    out: Path, owner: Destination, seen: PlannedJobs, kept: Sequence[int]
) -> tuple[Sequence[int], dict[str, int], int]:
    """Compare the jobs with what the run directory knows.

    Return the places of those that are not begun or settled there, how many of the others are held, by state, and how
    many jobs are done there that the manifest no longer names.
    """
    with suppress(BatcherError), Reader(out) as reader:  # there is none, or none that can be read: `run` says so
        done = sum(row["jobs"] for row in reader.ask("states") if row["listed"] and row["state"] == "done")
        begun, still_done = seen.compared(reader.states_of)
        if reader.owner() != owner:
            return kept, {}, done - still_done
        states = Counter(begun[place] for place in kept)
        held = {state.value: states[STATES.index(state)] for state in _HELD if states[STATES.index(state)]}
        return seen.left_of(kept, begun), held, done - still_done
    return kept, {}, 0


def _not_reusable(
    folders: Sequence[Path], out: Path, owner: Destination, seen: PlannedJobs, left: Sequence[int]
) -> tuple[Sequence[int], list[str]]:
    """Return the places of the jobs that `--reuse` would not take over; without it, which runs nearby have some."""
    if folders:
        held = SeenKeys()
        for one in (one for folder in folders for one in finished(folder) if one.provider == owner.provider):
            held.put(fingerprint(one.job_id.encode()), 1)
        to_buy = seen.without(left, lambda ids: {one for one in ids if held.get(fingerprint(one.encode()))})
        held.close()
        return to_buy, []
    near = held_by_siblings(out, owner, lambda: seen.id_pages(left)).items()
    return left, [
        f"{sibling} has results of {count:,} of these: --reuse {sibling} takes them over, at no cost"
        for sibling, count in near
    ]


async def find_model(owner: Destination, manifest: Manifest, asked: str, out: Path) -> Model:
    """Return the model: bundled, known to the run directory, or from the API's catalogue.

    Raises ManifestFaulty where there is no such model, TokenMissing, Unreachable.
    """
    known = bundled(owner.vendor)
    if found := offered(asked, owner.vendor):
        return found
    if asked in bundled():
        raise unknown_model(manifest, asked, list(known))
    if has_ledger(out):
        with Reader(out) as reader:
            if entry := reader.models().get(asked):
                return read_entry(json.loads(json.dumps(entry)))
    if not owner.is_sandbox:
        return await _looked_up(remote(manifest.root, owner.vendor), manifest, asked)
    with TemporaryDirectory() as folder:
        async with sandbox(Path(folder), owner.vendor) as endpoint:
            return await _looked_up(endpoint, manifest, asked)


async def _looked_up(endpoint: Endpoint, manifest: Manifest, asked: str) -> Model:
    known = list(bundled(endpoint.vendor))
    if not endpoint.token:
        near = did_you_mean(asked, known) if get_close_matches(asked, known, cutoff=0.6) else ""
        raise endpoint.missing(f"{asked} is not bundled, and the API's catalogue needs a token{near}")
    endpoint.check_token()
    wire = http_wire(endpoint)
    try:
        return await look_up(wire, PROVIDERS[endpoint.vendor], asked)
    except WrongUse:
        raise unknown_model(manifest, asked, known) from None
    finally:
        await wire.close()
