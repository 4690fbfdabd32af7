"""The options that `run` and `plan` share, and what they make of a manifest's settings."""

import os
from pathlib import Path
from typing import Annotated

import typer

from batcher.cli import complete
from batcher.errors import BatcherError, NotFound, WrongUse
from batcher.job import SETTLED, State
from batcher.ledger.reader import Reader
from batcher.terminal_text import command

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
        help="Who makes the results: runcomfy (the default) or fal; overrides `provider:` in the manifest.",
        autocompletion=complete.provider,
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="field=value: an input for every job; can be repeated. [env: BATCHER_SET, one a line]"),
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
        help="Take over finished results of another run directory: nothing is bought; can be repeated.",
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
    typer.Option(
        "--patience", envvar="BATCHER_PATIENCE", help="How long to wait for a service that does not answer: 6h."
    ),
]
Sandbox = Annotated[
    bool,
    typer.Option(
        "--sandbox",
        envvar="BATCHER_SANDBOX",
        help="Rehearse on the embedded sandbox: no token, no cost. BATCHER_SANDBOX_ARGS gives its options.",
    ),
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


def by_environment(context: typer.Context) -> frozenset[str]:
    """Return the parameters of the command at work that the environment gives."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "ENVIRONMENT")


def newest(out: Path | None) -> Path:
    """Return the run directory that is meant: as it is named, else the newest under runs/, which is then said."""
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

    try:
        with Reader(out) as reader:
            rows = reader.ask("states")
    except BatcherError:
        return False
    return any(
        State(row["state"]) not in SETTLED and (row["state"] != State.PENDING or (row["listed"] and row["selected"]))
        for row in rows
    )


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


def as_text(given: str) -> str:
    """Return an argument as text that can be written down: bytes that are none become `?`."""
    return given.encode("utf-8", "replace").decode("utf-8")
