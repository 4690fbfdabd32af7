"""`batcher plan`: says what `run` would do and cost, and every fault of the manifest; sends nothing."""

import asyncio
import json as json_
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from batcher.cli import options as o
from batcher.cli.messages import say_faults
from batcher.cli.run_options import LimitOptions, opened, words
from batcher.cli.wrap import wrapped
from batcher.errors import EXIT_MANIFEST, EXIT_OK, ManifestFaulty
from batcher.runs import planning
from batcher.runs.run_request import RunRequest, Selection
from batcher.show.bill import lines


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
    yes: o.Yes = False,  # noqa: ARG001 - the options of `run`: nothing is asked here
    replace_done: o.ReplaceDone = False,
    json: o.Json = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Name each photo that cannot be sent, with --skip-invalid.")
    ] = False,
) -> int:
    """Show what `run` would do and cost, and every fault of the manifest; submit nothing.

    Example: batcher plan products.yaml
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
    return show_plan(lambda: opened(manifest, said, replace_done=replace_done), as_json=json, verbose=verbose)


def show_plan(opened: Callable[[], RunRequest], *, as_json: bool, verbose: bool) -> int:
    """Print what a run would do; `opened` opens its manifest. Raises ManifestFaulty where that is not said as JSON."""
    try:
        found = asyncio.run(planning.plan(opened()))
    except ManifestFaulty as faulty:
        found = planning.Plan(faults=[*faulty.faults], fault_count=faulty.count, hint=faulty.hint)
    facts = found.to_json()
    if as_json:
        typer.echo(json_.dumps(facts, ensure_ascii=False))
        if found.fault_count:
            say_faults(ManifestFaulty(found.faults, found.fault_count, found.hint))
        return EXIT_MANIFEST if found.fault_count else EXIT_OK
    found.raise_faults()
    for line in lines(facts, verbose=verbose):
        typer.echo(line if line.startswith("\n") else wrapped(line, sys.stdout, hang=12))
    return EXIT_OK
