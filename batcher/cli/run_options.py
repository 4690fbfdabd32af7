"""From the options of `run` and `plan` to what they ask for: their manifest, opened, and their words for later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from batcher.cli import options as o
from batcher.cli.confirm import plain_signals
from batcher.errors import WrongUse
from batcher.manifest.expand import Options
from batcher.manifest.manifest import open_manifest
from batcher.runs.run_request import Overrides, RunRequest, Selection
from batcher.settings import seconds, time_of_day


@dataclass(frozen=True, slots=True)
class LimitOptions:
    """Limits as the command line has them: times as text. None: not given."""

    concurrency: int | None = None
    max_cost: float | None = None
    max_time: str | None = None
    patience: str | None = None
    until: str | None = None

    def overrides(self, by_environment: frozenset[str] = frozenset()) -> Overrides:
        """Return them as values; `by_environment`: the parameters that the environment gives. Raises WrongUse."""
        named = frozenset({"max_cost": "max_cost_usd"}.get(name, name) for name in by_environment)
        return Overrides(
            self.concurrency,
            self.max_cost,
            _seconds("--max-time", self.max_time),
            _seconds("--patience", self.patience),
            _time_of_day("--until", self.until),
            named,
        )


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of `run` and `plan`, as they were given: to be written again as words of a command."""

    out: Path | None
    model: str | None
    provider: str | None
    sets: Mapping[str, str]
    selection: Selection
    limits: LimitOptions
    reuse: Sequence[Path]
    skip_invalid: bool
    sandbox: bool
    by_environment: frozenset[str]

    def __call__(self, whole: bool = False) -> list[str]:
        """Return the options again, those of the environment left out; `whole`: all that `--where` leaves."""
        chosen = self.selection
        given = {
            "--out": self.out,
            "--model": self.model,
            "--provider": self.provider,
            "--limit": None if whole else chosen.limit,
            "--sample": None if whole else chosen.sample,
            "--where": chosen.where,
            "--concurrency": self.limits.concurrency,
            "--max-cost": self.limits.max_cost,
            "--max-time": self.limits.max_time,
            "--until": self.limits.until,
            "--patience": self.limits.patience,
        }
        hidden = {f"--{name.replace('_', '-')}" for name in self.by_environment}
        words = [f"--set={name}={value}" for name, value in self.sets.items()]
        words += [word for folder in self.reuse if "--reuse" not in hidden for word in ("--reuse", str(folder))]
        for name, value in given.items():
            if value is not None and name not in hidden:
                words += [name, f"{value:g}" if isinstance(value, float) else str(value)]
        flags = {"--skip-invalid": self.skip_invalid, "--sandbox": self.sandbox}
        return [*words, *(name for name, on in flags.items() if on and name not in hidden)]


def words(
    context: typer.Context,
    *,
    out: Path | None,
    model: str | None,
    provider: str | None,
    sets: list[str] | None,
    selection: Selection,
    limits: LimitOptions,
    reuse: Sequence[Path] | None,
    skip_invalid: bool,
    sandbox: bool,
) -> RunOptions:
    """Return the options of a command as values. Raises WrongUse."""
    return RunOptions(
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


def opened(manifest: str, said: RunOptions, *, replace_done: bool = False) -> RunRequest:
    """Open the manifest that a command names; return it with what is asked of it. Raises NotFound, ManifestFaulty."""
    overrides = said.limits.overrides(said.by_environment)
    with plain_signals():  # standard input may be waited for
        found = open_manifest(manifest, name=said.out.name if said.out else None)
    return RunRequest(
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


def _seconds(option: str, text: str | None) -> float | None:

    if text is None:
        return None
    try:
        found = seconds(text)
    except ValueError as error:
        raise WrongUse(f"{option} {text}: {error}") from None
    if not isinstance(found, int | float) or found <= 0:
        raise WrongUse(f"{option} {text}: must be more than nothing")
    return float(found)


def _time_of_day(option: str, text: str | None) -> str | None:

    try:
        return None if text is None else str(time_of_day(text))
    except ValueError as error:
        raise WrongUse(f"{option} {text}: {error}") from None
