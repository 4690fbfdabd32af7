"""From the options of `run` and `plan` to what they ask for: their manifest, opened, and their words for later."""

from collections.abc import Sequence
from pathlib import Path

import typer

from batcher.cli import options as o
from batcher.cli.ask import plain_signals
from batcher.manifest.expand import Options
from batcher.manifest.manifest import open_manifest
from batcher.runs.wanted import Selection, Wanted


def words(
    context: typer.Context,
    *,
    out: Path | None,
    model: str | None,
    provider: str | None,
    sets: list[str] | None,
    selection: Selection,
    limits: o.Limits,
    reuse: Sequence[Path] | None,
    skip_invalid: bool,
    sandbox: bool,
) -> o.Words:
    """Return the options of a command as values. Raises WrongUse."""
    return o.Words(
        out=out,
        model=model,
        provider=provider,
        sets=o.all_sets(sets),
        selection=selection,
        limits=limits,
        reuse=tuple(reuse or ()),
        skip_invalid=skip_invalid,
        sandbox=sandbox,
        by_environment=o.by_environment(context),
    )


def opened(manifest: str, said: o.Words, *, replace_done: bool = False) -> Wanted:
    """Open the manifest that a command names; return it with what is asked of it. Raises NotFound, ManifestFaulty."""
    overrides = said.limits.overrides(said.by_environment)
    with plain_signals():  # standard input may be waited for
        found = open_manifest(manifest, name=said.out.name if said.out else None)
    return Wanted(
        manifest=found,
        out=said.out,
        model=said.model,
        provider=said.provider,
        options=Options(said.sets, said.selection.where, said.skip_invalid),
        overrides=overrides,
        selection=said.selection,
        sandbox=said.sandbox,
        reuse=said.reuse,
        replace_done=replace_done,
        words=said,
    )
