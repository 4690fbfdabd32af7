"""The options that `run` and `plan` share, and what they make of a manifest's settings."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batcher.cli import complete
from batcher.errors import WrongUse

if TYPE_CHECKING:
    from batcher.runs.wanted import Overrides, Selection

Manifest = Annotated[str, typer.Argument(help="A YAML, CSV or JSONL manifest; - reads it from standard input.")]
Out = Annotated[Path, typer.Argument(help="The run directory.", autocompletion=complete.out)]
NewestOut = Annotated[
    Path | None,
    typer.Argument(help="The run directory; without it, the newest under runs/.", autocompletion=complete.out),
]
OnlyOut = Annotated[
    Path | None,
    typer.Argument(
        help="The run directory; without it, the one under runs/ that is unfinished.", autocompletion=complete.out
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--out",
        envvar="BATCHER_OUT",
        help="Run directory; default runs/NAME, with .PROVIDER at another provider, with .sandbox in a rehearsal.",
    ),
]
ModelId = Annotated[
    str | None,
    typer.Option(
        "--model",
        envvar="BATCHER_MODEL",
        help="Model id, for CSV and JSONL manifests.",
        autocompletion=complete.model,
    ),
]
Provider = Annotated[
    str | None,
    typer.Option(
        "--provider",
        envvar="BATCHER_PROVIDER",
        help="Who makes the results, as `provider:` in the manifest; the page on providers lists them.",
        autocompletion=complete.provider,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="field=value: an input for every job; may stand more than once. [env: BATCHER_SET, one a line]"
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(
        "-j", "--concurrency", min=1, max=10_000, envvar="BATCHER_CONCURRENCY", help="Jobs at the server at once."
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, envvar="BATCHER_LIMIT", help="Only the first N jobs.")]
Sample = Annotated[
    int | None, typer.Option(min=1, envvar="BATCHER_SAMPLE", help="Only N jobs, spread evenly: see before you spend.")
]
Where = Annotated[
    str | None, typer.Option(envvar="BATCHER_WHERE", help="Only rows of which this is true, as in: sku == 'A7'.")
]
SkipInvalid = Annotated[
    bool,
    typer.Option("--skip-invalid", envvar="BATCHER_SKIP_INVALID", help="Put bad rows into OUT/rejected.csv and go on."),
]
Reuse = Annotated[
    list[Path] | None,
    typer.Option(
        "--reuse",
        envvar="BATCHER_REUSE",
        help="Take over finished results of another run directory: nothing is bought; may stand more than once.",
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        min=0,
        envvar="BATCHER_MAX_COST",
        help="Spending cap in USD. Until a first bill tells the price, jobs count at ten times their estimate.",
    ),
]
MaxTime = Annotated[str | None, typer.Option(envvar="BATCHER_MAX_TIME", help="Submit nothing after this long: 8h.")]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        envvar="BATCHER_UNTIL",
        help="Submit nothing after this time of day, as this machine shows it: 03:00.",
    ),
]
PatienceOption = Annotated[
    str | None,
    typer.Option("--patience", envvar="BATCHER_PATIENCE", help="How long a silent service is waited for: 6h."),
]
Sandbox = Annotated[
    bool,
    typer.Option("--sandbox", envvar="BATCHER_SANDBOX", help="Rehearse on the embedded sandbox: no token, no cost."),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask about a cost above limits.confirm_above_usd.")]
ReplaceDone = Annotated[
    bool,
    typer.Option("--replace-done", help="Do not ask about an edit that leaves out most of the jobs that are done."),
]
AcceptMoved = Annotated[
    bool, typer.Option("--accept-moved", help="Go on with an older copy of a ledger, whose lost jobs stay uncertain.")
]
Json = Annotated[bool, typer.Option("--json", envvar="BATCHER_JSON", help="JSON on standard output.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", envvar="BATCHER_QUIET", help="No progress.")]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits as the command line has them: times as text. None: not given."""

    concurrency: int | None = None
    max_cost: float | None = None
    max_time: str | None = None
    patience: str | None = None
    until: str | None = None

    def overrides(self, by_environment: frozenset[str] = frozenset()) -> "Overrides":
        """Return them as values; `by_environment`: the parameters that the environment gives. Raises WrongUse."""
        from batcher.runs.wanted import Overrides

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
class Words:
    """The options of `run` and `plan`, as they were given: to be written again as words of a command."""

    out: Path | None
    model: str | None
    provider: str | None
    sets: Mapping[str, str]
    selection: "Selection"
    limits: Limits
    reuse: Sequence[Path]
    skip_invalid: bool
    sandbox: bool
    by_environment: frozenset[str]

    def __call__(self, whole: bool = False) -> list[str]:
        """Return the options again, those of the environment left out; `whole`: no selection."""
        chosen = self.selection
        given = {
            "--out": self.out,
            "--model": self.model,
            "--provider": self.provider,
            "--limit": None if whole else chosen.limit,
            "--sample": None if whole else chosen.sample,
            "--where": None if whole else chosen.where,
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


def by_environment(context: typer.Context) -> frozenset[str]:
    """Give the parameters of the command at work that the environment gives."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "ENVIRONMENT")


def newest(out: Path | None) -> Path:
    """Return the run directory that is meant: as it is named, else the newest under runs/, which is then said."""
    from batcher.errors import NotFound

    if out is not None:
        return out
    found = max(Path("runs").glob("*/ledger.sqlite"), key=_last_written, default=None)
    if found is None:
        raise NotFound("there is no run under runs/", "name a run directory")
    typer.echo(f"{found.parent} (the newest run):", err=True)
    return found.parent


def _last_written(ledger: Path) -> float:
    """Return when a ledger was last written: its log of changes is newer than itself while a run works."""
    files = (ledger, ledger.with_name(f"{ledger.name}-wal"))
    return max(file.stat().st_mtime for file in files if file.exists())


def only_unfinished(out: Path | None) -> Path:
    """Return the run directory that is meant: as it is named, else the one under runs/ that has work left."""
    from batcher.plain import command

    if out is not None:
        return out
    unfinished = [ledger.parent for ledger in sorted(Path("runs").glob("*/ledger.sqlite")) if _has_work(ledger.parent)]
    if len(unfinished) == 1:
        typer.echo(f"{unfinished[0]} (the only run that is unfinished):", err=True)
        return unfinished[0]
    if not unfinished:
        raise WrongUse("no run under runs/ is unfinished", "name a run directory")
    listed = ", ".join(str(one) for one in unfinished)
    raise WrongUse(
        f"{len(unfinished)} runs under runs/ are unfinished: {listed}", f"name one: {command('resume', unfinished[0])}"
    )


def _has_work(out: Path) -> bool:
    from batcher.errors import BatcherError
    from batcher.job import SETTLED, State
    from batcher.ledger.reader import Reader

    try:
        with Reader(out) as reader:
            rows = reader.ask("states")
    except BatcherError:
        return False
    return any(
        State(row["state"]) not in SETTLED and (row["state"] != State.PENDING or (row["listed"] and row["selected"]))
        for row in rows
    )


def _seconds(option: str, text: str | None) -> float | None:
    from batcher.settings import seconds

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
    from batcher.settings import time_of_day

    try:
        return None if text is None else str(time_of_day(text))
    except ValueError as error:
        raise WrongUse(f"{option} {text}: {error}") from None


def all_sets(sets: list[str] | None) -> dict[str, str]:
    """Read what the environment sets, a line each, and the command line, which wins."""
    of_environment = [line for line in os.environ.get("BATCHER_SET", "").splitlines() if line.strip()]
    return read_sets(of_environment, "BATCHER_SET: ") | read_sets(sets)


def read_sets(sets: list[str] | None, option: str = "--set ") -> dict[str, str]:
    """Read `field=value` options."""
    found = {}
    for one in sets or []:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise WrongUse(f"{option}{one}: write name=value")
        if name.strip() in found:
            raise WrongUse(f"{option}{one}: {name.strip()} is set twice")
        found[name.strip()] = value
    return found
