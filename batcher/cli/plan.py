"""`batcher plan`: says what `run` would do and cost, and every fault of the manifest; sends nothing."""

import asyncio
import json as json_
from pathlib import Path
from typing import Annotated, Any

import typer

from batcher.cli import options as o

_SAMPLED = 16
"""Jobs above which a sample is a good beginning."""


def plan(
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
    yes: o.Yes = False,
    replace_done: o.ReplaceDone = False,
    json: o.Json = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Name each photo that cannot be sent, with --skip-invalid.")
    ] = False,
) -> int:
    """Say what `run` would do and cost, and every fault of the manifest; submit nothing.

    Example: batcher plan products.yaml
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
        verbose=verbose,
    )
    return asyncio.run(show_plan(wanted, as_json=json))


async def show_plan(wanted: o.Wanted, *, as_json: bool) -> int:
    """Expand the manifest, and print what came of it."""
    from batcher.errors import EXIT_MANIFEST, EXIT_OK, ManifestFaulty

    found: dict[str, Any] = {"name": None, "jobs": 0, "equal_rows": 0, "cost_usd": {"estimated": 0.0}}
    try:
        await _plan_into(found, wanted)
        faults: ManifestFaulty | None = None
    except ManifestFaulty as faulty:
        faults = faulty
    found["faults"] = [
        {"file": one.file, "line": one.line, "field": one.field, "message": one.message}
        for one in (faults.faults if faults else ())
    ]
    found["fault_count"] = faults.count if faults else 0
    if as_json:
        typer.echo(json_.dumps(found, ensure_ascii=False))
    if faults and not as_json:
        raise faults
    if faults:
        from batcher.cli import _say_faults

        _say_faults(faults)
        return EXIT_MANIFEST
    if not as_json:
        _print(found, verbose=wanted.verbose)
    return EXIT_OK


async def _plan_into(found: dict[str, Any], wanted: o.Wanted) -> None:
    """Add to what is found: what is known stays there when faults are raised."""
    from batcher.cli.prepare import expansion, model_id, nothing_selected, out_dir, policy, vendor
    from batcher.hosting.inline import Looks
    from batcher.ledger.reader import KnownImages
    from batcher.manifest.manifest import open_manifest
    from batcher.provider.sign_in import destination
    from batcher.run.forecast import PlannedJobs, at_each_provider, bill, expected, space

    manifest = open_manifest(wanted.manifest, name=wanted.out.name if wanted.out else None)
    found["name"] = manifest.name
    owner = destination(vendor(manifest, wanted.provider), sandbox=wanted.sandbox)
    out, provider = out_dir(manifest, wanted.out, owner), owner.provider
    model = await find_model(owner, manifest, model_id(manifest, wanted.model), out)
    settings = wanted.given.over(policy(manifest))
    rejected: list[str] = []
    jobs = expansion(
        manifest,
        model,
        Looks(KnownImages(out)),
        wanted.options,
        lambda _row, _header, reason: rejected.append(reason),
        capped=settings.limits.max_cost_usd is not None,
        owner=owner,
    )
    seen = PlannedJobs(sampled=wanted.selection.sample is not None)
    try:
        for spec, chosen in jobs:
            seen.take(spec, model.outputs(spec.inputs), chosen=chosen)
    finally:
        found |= {
            "jobs": jobs.census.jobs,
            "equal_rows": jobs.census.equal_rows,
            "photos": jobs.census.photos.facts(),
        }
    kept = seen.kept(wanted.selection.limit, wanted.selection.sample)
    if not kept and jobs.census.jobs:
        raise nothing_selected(manifest, wanted.selection)
    left, begun, unlisted = _not_begun(out, owner, seen, kept)
    to_buy, near = _not_reusable(wanted.reuse, out, owner, seen, left)
    images, image_bytes = seen.images(to_buy)
    prices = model.prices if manifest.document.prices is None else None
    cost = bill(seen, to_buy, settings, out, provider)
    found |= {
        "selected": len(kept),
        "to_buy": len(to_buy),
        "rows": jobs.census.rows,
        "rejected": len(rejected),
        "cost_usd": cost | {"note": prices.note if prices else ""},
        "providers": at_each_provider(seen, to_buy, owner.vendor, cost["estimated"]),
        "images": images,
        "images_outside": [*jobs.census.outside],
        "inlined_bytes": image_bytes,
        "model": model.id,
        "out": str(out),
        "provider": provider,
        "vendor": owner.vendor,
        "reused": len(left) - len(to_buy),
        "begun": begun,
        "expected": expected(out, provider, len(to_buy)),
        "space": space(out, provider, seen, to_buy),
        "samples": seen.samples(),
        "settings": wanted.given.sources(manifest.document, settings),
        "warnings": [
            *seen.warnings(),
            *_said_before(jobs.census, manifest, wanted, out, owner, unlisted),
            *near,
        ],
        "next": _next(wanted, len(to_buy), begun),
    }
    seen.close()


def _said_before(
    census: Any,  # noqa: ANN401
    manifest: Any,  # noqa: ANN401
    wanted: o.Wanted,
    out: Any,  # noqa: ANN401
    owner: Any,  # noqa: ANN401
    left_out: int,
) -> list[str]:
    """Return what `run` would warn of, or ask; `left_out`: finished jobs that the manifest no longer names."""
    from batcher.cli.prepare import is_another, warnings
    from batcher.errors import BatcherError
    from batcher.ledger.enrolment import unlists_most
    from batcher.ledger.reader import Reader

    said = warnings(census.unkept, census.outside, census.blank)
    try:
        with Reader(out) as reader:
            known = reader.meta()
            if wanted.out is None and is_another(manifest, known.get("manifest")):
                said.append(
                    f"{out} belongs to {known['manifest']}: `run` asks for another directory, or for this by -o"
                )
            if reader.owner() not in {None, owner}:
                said.append(f"{out} holds results of {known['provider']}: `run` refuses it, choose another with -o")
            done = sum(row["jobs"] for row in reader.ask("states") if row["listed"] and row["state"] == "done")
    except BatcherError:
        return said
    if left_out > 0:
        asks = "; `run` asks first (--replace-done)" if unlists_most(left_out, done) else ""
        said.append(f"{left_out:,} finished jobs are no longer named: they leave the totals, their files stay{asks}")
    return said


def _next(wanted: o.Wanted, to_buy: int, begun: int) -> str | None:
    """Give the command that buys what was priced; at first, where it is much, a few of it."""
    from batcher.plain import command

    if not to_buy or wanted.manifest == "-":
        return None
    narrowed = any((wanted.selection.limit, wanted.selection.sample, wanted.selection.where))
    first = ["--sample", "6"] if to_buy > _SAMPLED and not narrowed and not begun else []
    return command("run", Path(wanted.manifest), *wanted.words(), *first)


def _not_begun(out: Any, owner: Any, seen: Any, kept: Any) -> tuple[Any, int, int]:  # noqa: ANN401 - a Path, PlannedJobs
    """Compare the jobs with what the run directory knows.

    Return the places of those that are not begun or settled there, how many others there are, and how many jobs are
    done there that the manifest no longer names.
    """
    from batcher.errors import BatcherError
    from batcher.ledger.reader import Reader

    try:
        with Reader(out) as reader:
            done = sum(row["jobs"] for row in reader.ask("states") if row["listed"] and row["state"] == "done")
            begun, still_done = seen.compared(reader.states_of)
            if reader.owner() != owner:
                return kept, 0, done - still_done
            left = seen.left_of(kept, begun)
            return left, len(kept) - len(left), done - still_done
    except BatcherError:  # there is none yet, or none that can be read: `run` says so
        return kept, 0, 0


def _not_reusable(folders: Any, out: Any, owner: Any, seen: Any, left: Any) -> tuple[Any, list[str]]:  # noqa: ANN401
    """Return the places of the jobs that `--reuse` would not take over; without it, which runs nearby have some."""
    from batcher.manifest.identity import fingerprint
    from batcher.manifest.seen_keys import SeenKeys
    from batcher.outputs.finished import finished
    from batcher.run.reuse import held_by_siblings

    if folders:
        held = SeenKeys()
        for one in (one for folder in folders for one in finished(folder) if one.provider == owner.provider):
            held.put(fingerprint(one.job_id.encode()), 1)
        to_buy = seen.without(left, lambda ids: {one for one in ids if held.get(fingerprint(one.encode()))})
        held.close()
        return to_buy, []
    near = held_by_siblings(out, owner, lambda: seen.id_pages(left)).items()
    return left, [
        f"{sibling} has results of {count:,} of these: --reuse {sibling} takes them over, unbought"
        for sibling, count in near
    ]


async def find_model(owner: Any, manifest: Any, asked: str, out: Any) -> Any:  # noqa: ANN401
    """Return the model: bundled, known to the run directory, or from the API's catalogue."""
    from difflib import get_close_matches
    from tempfile import TemporaryDirectory

    from batcher.catalog import bundled, offered, read_entry
    from batcher.cli.prepare import unknown_model
    from batcher.errors import WrongUse
    from batcher.ledger.reader import Reader, has_ledger
    from batcher.manifest.faults import did_you_mean
    from batcher.provider import PROVIDERS
    from batcher.provider.rehearsal import sandbox
    from batcher.provider.sign_in import remote
    from batcher.run.catalogue import look_up
    from batcher.run.parts import http_wire

    known = bundled(owner.vendor)
    if found := offered(asked, owner.vendor):
        return found
    if asked in bundled():
        raise unknown_model(manifest, asked, list(known))
    if has_ledger(out):
        with Reader(out) as reader:
            if entry := reader.models().get(asked):
                return read_entry(entry)  # type: ignore[arg-type]

    async def ask(endpoint: Any) -> Any:  # noqa: ANN401
        if not endpoint.token:
            near = did_you_mean(asked, list(known)) if get_close_matches(asked, list(known), cutoff=0.6) else ""
            raise endpoint.missing(f"{asked} is not bundled, and the API's catalogue needs a token{near}")
        endpoint.check_token()
        wire = http_wire(endpoint)
        try:
            return await look_up(wire, PROVIDERS[endpoint.vendor], asked)
        except WrongUse:
            raise unknown_model(manifest, asked, list(known)) from None
        finally:
            await wire.close()

    if not owner.is_sandbox:
        return await ask(remote(manifest.root, owner.vendor))
    with TemporaryDirectory() as folder:
        async with sandbox(type(out)(folder), owner.vendor) as endpoint:
            return await ask(endpoint)


def _print(found: dict[str, Any], *, verbose: bool) -> None:
    import sys

    from batcher.cli.fitted import fitted
    from batcher.show.bill import lines

    for line in lines(found, verbose=verbose):
        typer.echo(line if line.startswith("\n") else fitted(line, sys.stdout, hang=12))
