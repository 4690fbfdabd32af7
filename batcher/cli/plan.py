"""`batcher plan`: says what `run` would do and cost, and every fault of the manifest; sends nothing."""

import asyncio
import json as json_
import random
from typing import Any

import typer

from batcher.cli import options as o

_SHOWN = 3


def plan(
    manifest: o.Manifest,
    *,
    out: o.OutOption = None,
    model: o.ModelId = None,
    sets: o.Sets = None,
    concurrency: o.Concurrency = None,
    limit: o.Limit = None,
    sample: o.Sample = None,
    where: o.Where = None,
    skip_invalid: o.SkipInvalid = False,
    reuse: o.Reuse = None,
    max_cost: o.MaxCost = None,
    max_time: o.MaxTime = None,
    patience: o.PatienceOption = None,
    sandbox: o.Sandbox = False,
    yes: o.Yes = False,
    json: o.Json = False,
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
        options=Options(o.read_sets(sets), where, skip_invalid),
        given=o.Given(concurrency, max_cost, max_time, patience),
        selection=Selection(limit, sample, where),
        sandbox=sandbox,
        reuse=reuse,
        yes=yes,
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
        _print(found)
    return EXIT_OK


async def _plan_into(found: dict[str, Any], wanted: o.Wanted) -> None:
    """Add to what is found: what is known stays there when faults are raised."""
    from batcher.cli.prepare import expansion, model_id, out_dir, policy, warnings
    from batcher.hosting.inline import Looks
    from batcher.ledger.enrolment import spread
    from batcher.manifest.manifest import open_manifest
    from batcher.settings import SANDBOX, remote

    manifest = open_manifest(wanted.manifest, name=wanted.out.name if wanted.out else None)
    found["name"] = manifest.name
    out = out_dir(manifest, wanted.out, sandbox=wanted.sandbox)
    model = await find_model(wanted, manifest, model_id(manifest, wanted.model), out)
    settings = wanted.given.over(policy(manifest))
    rejected: list[str] = []
    options = wanted.options
    jobs = expansion(manifest, model, Looks(), options, lambda _row, _header, reason: rejected.append(reason))
    costs, rows, ids, shown = [], [], [], _Shown()
    try:
        for spec, chosen in jobs:
            if chosen:
                ids.append(spec.id)
                costs.append(spec.estimated_usd)
                rows.append(spec.row)
                shown.take(spec)
    finally:
        found |= {"jobs": jobs.census.jobs, "equal_rows": jobs.census.equal_rows}
    kept = list(range(len(costs)))[: wanted.selection.limit]
    if wanted.selection.sample is not None:
        kept = spread(rows[: len(kept)], wanted.selection.sample)
    ids = [ids[index] for index in kept]
    provider = SANDBOX if wanted.sandbox else remote(manifest.root).provider
    reused, near = _reusable(wanted.reuse, out, provider, ids)
    begun = _begun(out, provider, ids)
    free = reused | begun
    costs = [0.0 if ids[place] in free else costs[index] for place, index in enumerate(kept)]
    prices = model.prices if manifest.document.prices is None else None
    found |= {
        "selected": len(costs),
        "rows": jobs.census.rows,
        "rejected": len(rejected),
        "cost_usd": {
            "estimated": round(sum(cost or 0.0 for cost in costs), 6) if None not in costs else None,
            "note": prices.note if prices else "",
        },
        "inlined_bytes": jobs.census.inlined_bytes,
        "model": model.id,
        "out": str(out),
        "provider": provider,
        "reused": sum(one in reused for one in ids),
        "begun": len(begun),
        "samples": shown.samples(),
        "settings": wanted.given.sources(manifest.document, settings),
        "warnings": [*warnings(manifest, options), *near],
    }


def _begun(out: Any, provider: str, ids: list[str]) -> set[str]:  # noqa: ANN401 - a Path
    """Give the jobs that the run directory has begun or settled already: `run` buys none of them again."""
    from batcher.errors import BatcherError
    from batcher.ledger.reader import Reader

    try:
        with Reader(out) as reader:
            return reader.begun(ids) if reader.meta().get("provider") == provider else set()
    except BatcherError:  # there is none yet, or none that can be read: `run` says so
        return set()


def _reusable(folder: Any, out: Any, provider: str, ids: list[str]) -> tuple[set[str], list[str]]:  # noqa: ANN401 - Paths
    """Give the jobs that `--reuse` would take over; without it, which runs nearby have some."""
    from batcher.outputs.finished import finished
    from batcher.run.reuse import held_by_siblings

    if folder is not None:
        return {one.job_id for one in finished(folder) if one.provider == provider}, []
    near = held_by_siblings(out, provider, lambda: [ids]).items()
    return set(), [
        f"{sibling} has results of {count:,} of these: --reuse {sibling} takes them over, unbought"
        for sibling, count in near
    ]


class _Shown:
    """Keeps the first job, the last, and one between, drawn evenly."""

    def __init__(self) -> None:
        self._seen = 0
        self._kept: list[Any] = []
        self._chance = random.Random(0)  # noqa: TID251, S311 - which sample is shown is no secret, and the same each time

    def take(self, spec: Any) -> None:  # noqa: ANN401 - a Spec
        self._seen += 1
        if len(self._kept) < _SHOWN:
            self._kept.append(spec)
            return
        if self._chance.random() < 1 / self._seen:
            self._kept[1] = self._kept[2]
        self._kept[2] = spec

    def samples(self) -> list[dict[str, object]]:
        return [{"job_id": one.id, "name": one.name, "inputs": as_named(one)} for one in self._kept]


def as_named(spec: Any) -> Any:  # noqa: ANN401 - a Spec; JSON comes out
    """Give a job's inputs with each local image as the manifest names it."""
    paths = {f"sha256:{image.sha256}": image.path for image in spec.images}

    def named(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [named(item) for item in value]
        return paths.get(value, value) if isinstance(value, str) else value

    return {name: named(value) for name, value in spec.inputs.items()}


async def find_model(wanted: o.Wanted, manifest: Any, asked: str, out: Any) -> Any:  # noqa: ANN401
    """Give the model: bundled, known to the run directory, or from the API's catalogue."""
    from tempfile import TemporaryDirectory

    from batcher.catalog import bundled, read_entry
    from batcher.cli.prepare import unknown_model
    from batcher.errors import TokenMissing, WrongUse
    from batcher.ledger.reader import Reader
    from batcher.provider.rehearsal import sandbox
    from batcher.run.catalogue import look_up
    from batcher.run.parts import http_wire
    from batcher.settings import remote

    if asked in (known := bundled()):
        return known[asked]
    if (out / "ledger.sqlite").exists():
        with Reader(out) as reader:
            if entry := reader.models().get(asked):
                return read_entry(entry)  # type: ignore[arg-type]

    async def ask(endpoint: Any) -> Any:  # noqa: ANN401
        if not endpoint.token:
            raise TokenMissing(f"{asked} is not bundled, and the API's catalogue needs a token")
        wire = http_wire(endpoint)
        try:
            return await look_up(wire, asked)
        except WrongUse:
            raise unknown_model(manifest, asked, list(known)) from None
        finally:
            await wire.close()

    if not wanted.sandbox:
        return await ask(remote(manifest.root))
    with TemporaryDirectory() as folder:
        async with sandbox(type(out)(folder)) as endpoint:
            return await ask(endpoint)


def _print(found: dict[str, Any]) -> None:
    from batcher.show.words import jobs, money, size

    cost = found["cost_usd"]
    typer.echo(f"{found['name']}: {jobs(found['jobs'])} from {found['rows']:,} rows, for {found['model']}")
    if found["selected"] != found["jobs"]:
        typer.echo(f"  of which {found['selected']:,} are selected")
    if found["equal_rows"]:
        typer.echo(f"  {found['equal_rows']:,} equal to earlier rows: they make further samples of the same inputs")
    if found["begun"]:
        typer.echo(f"  {found['begun']:,} are done or under way already, and cost nothing more")
    if found["reused"]:
        typer.echo(f"  {found['reused']:,} are taken over from another run, and cost nothing")
    if found["rejected"]:
        typer.echo(f"  {found['rejected']:,} bad rows would be skipped")
    typer.echo(f"  estimated cost {money(cost['estimated'])}" + (f" ({cost['note']})" if cost["note"] else ""))
    if found["inlined_bytes"]:
        typer.echo(f"  local images to send: {size(found['inlined_bytes'])}")
    typer.echo(f"  results go to {found['out']}")
    for warning in found["warnings"]:
        typer.echo(f"  warning: {warning}")
    for sample in found["samples"]:
        typer.echo(f"\n  files/{sample['name']}  ({sample['job_id']})")
        for name, value in sample["inputs"].items():
            text = json_.dumps(value, ensure_ascii=False)
            typer.echo(f"    {name}: {text if len(text) < 200 else text[:197] + '...'}")  # noqa: PLR2004
    changed = {name: one for name, one in found["settings"].items() if one["from"] != "default"}
    for name, one in changed.items():
        typer.echo(f"\n  {name} = {one['value']}  (from the {one['from']})")
