"""`batcher retry`: lets failed, uncertain or cancelled jobs go on."""

import asyncio
import json as json_
from collections import Counter
from dataclasses import replace
from typing import Annotated

import typer

from batcher.cli import complete
from batcher.cli import options as o
from batcher.cli.confirm import can_ask, sure
from batcher.cli.jobs import JobId, KindOption, adoptions, check
from batcher.control.client import Done
from batcher.control.commands import JobsRetried
from batcher.errors import NotMeant, WrongUse
from batcher.job import Job, State
from batcher.ledger.reader import Reader
from batcher.ledger.retry import RetrySelection
from batcher.runs import controlling
from batcher.show.words import jobs, money
from batcher.terminal_text import command, plain

_SHOWN = 5
"""Messages and hints that are printed before a question."""
_NAMED = 20_000
"""Jobs that are named one by one to whoever moves them: some four megabytes."""


def retry(
    out: o.Out,
    *,
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            help="failed (the default), uncertain or cancelled; with --again: all.",
            autocompletion=complete.state,
        ),
    ] = None,
    kind: KindOption = None,
    job: JobId = None,
    again: Annotated[
        bool, typer.Option("--again", help="Buy again, whatever came of them; with --job, a finished one too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask about jobs that may be billed twice.")] = False,
    json: o.Json = False,
) -> int:
    """Queue failed, uncertain or cancelled jobs again; ask first where one may be billed twice.

    Example: batcher retry runs/products && batcher resume runs/products
    """
    check(state, kind)
    state = state or (None if again else "failed")
    if state not in {"failed", "uncertain", "cancelled", None}:
        raise WrongUse(f"--state {state}: only failed, uncertain and cancelled jobs are retried")
    which = RetrySelection(state, kind, None if job is None else o.as_text(job), again)
    which, kinds = _ask(out, which, yes=yes)
    waited = _left_out(out, which)
    if again and which.job is None and not which.only and not json:
        typer.echo("finished jobs are bought again one at a time: add --job ID", err=True)
    _tell(out, asyncio.run(controlling.retry(out, which)), kinds, as_json=json)
    if not json:
        _warn_of_those_left(out, which, waited)
    return 0


def _left_out(out: o.Out, which: RetrySelection) -> int:
    """Count the jobs that are meant, wait, and that no start sends: they are not selected, or no longer named."""
    with Reader(out) as reader:
        return reader.left_out(None if which.only is None else list(which.only))


def _warn_of_those_left(out: o.Out, which: RetrySelection, waited: int) -> None:
    """Warn of jobs that wait now and that no `resume` sends; `waited`: how many of these waited before."""
    left = _left_out(out, which) - (waited if which.only is None else 0)
    if left > 0:
        typer.echo(f"{jobs(left)} of these wait until `run` selects them: the last start's selection left them out")


def _ask(out: o.Out, which: RetrySelection, *, yes: bool) -> tuple[RetrySelection, str]:
    """Print what may be billed twice, and ask whether to go on; return what was agreed to.

    Raises WrongUse where nobody can answer, NotMeant at a no.
    """
    found = _Found()
    with Reader(out) as reader:
        told_at = reader.ask("last_event")[0][0]
        for job, _ in reader.jobs(which.state, which.kind, which.job):
            if target := which.target(job):
                found.take(job, target, which)
    if which.job and not found.count:
        raise WrongUse(
            f"no job {which.job} can be retried in this way",
            f"see: {command('jobs', out)}; an uncertain one needs --state uncertain, a done one --again",
        )
    which = replace(which, only=found.only, told_at=None if found.only is not None else told_at)
    kinds = found.words()
    if not found.risky or yes:
        return which, kinds
    if which.state == "uncertain":
        _say_evidence(out)
    said = f"{jobs(found.risky)} may be billed twice, up to {money(found.risk_usd)}"
    if not can_ask():
        raise WrongUse(f"{said}; nothing was changed", "if that is meant, add --yes")
    kept = NotMeant("nothing was changed" if which.state != "uncertain" else "they stay as they are")
    try:
        sure(f"{said}. Go on?", kept)
    except NotMeant:
        if which.state == "uncertain":  # that is a decision too: they count no more as a sign of trouble
            asyncio.run(controlling.leave_uncertain(out))
        raise
    return which, kinds


class _Found:
    """What is told of the jobs that are meant, as they stream by."""

    def __init__(self) -> None:

        self.count = self.risky = 0
        self.risk_usd = self._anew_usd = 0.0
        self.only: dict[str, int] | None = {}
        """Each with its attempt; None where they are many, and none may be billed twice."""
        self._kinds: Counter[str] = Counter()

    def take(self, job: Job, target: State, which: RetrySelection) -> None:
        """Count a job, and what buying it anew may cost."""
        self.count += 1
        self._kinds[job.kind or job.state] += 1
        cost = job.spec.estimated_usd or 0.0
        if which.buys(job):
            self.risky += 1
            self.risk_usd += cost
        elif target is State.PENDING:
            self._anew_usd += cost
        if self.only is not None:
            self.only[job.id] = job.attempt
            if len(self.only) > _NAMED and not self.risky:
                self.only = None

    def words(self) -> str:
        """Return what went wrong, with how many jobs, and what those that are bought anew may cost."""
        said = ", ".join(f"{count:,} {kind}" for kind, count in self._kinds.most_common())
        cost = self._anew_usd + self.risk_usd
        return f" ({said}{f'; may cost {money(cost)}' if cost else ''})" if said else ""


def _say_evidence(out: o.Out) -> None:
    """Print what was seen on the wire of the uncertain submissions, each message once."""
    with Reader(out) as reader:
        words = Counter(job.message or "" for job, _ in reader.jobs("uncertain"))
        hints = [hint for _, found in adoptions(out, reader) for hint in found]
    for message, count in words.most_common(_SHOWN):
        typer.echo(plain(f"  {count:,} x {message}"), err=True)
    typer.echo(
        f"  (jobs --state uncertain lists them; your history at the vendor may know their ids: "
        f"{command('adopt', out, '--job')} ID --request-id R)",
        err=True,
    )
    if hints:
        typer.echo("  answers that may hold a request id: if the vendor's history has it, adopt it, unbought", err=True)
    for hint in hints[:_SHOWN]:
        typer.echo(f"    {hint}", err=True)
    if len(hints) > _SHOWN:
        typer.echo(
            f"    ... and {len(hints) - _SHOWN:,} more: {command('jobs', out, '--state', 'uncertain')}", err=True
        )


def _uncertain(out: o.Out) -> str:
    """Return how many jobs are uncertain, which are queued again only where that is asked for."""
    with Reader(out) as reader:
        count = sum(row["jobs"] for row in reader.ask("states") if row["state"] == State.UNCERTAIN)
    return f": {jobs(count)} uncertain, see --state uncertain" if count else ""


def _tell(out: o.Out, done: Done[JobsRetried], kinds: str, *, as_json: bool) -> None:

    moved = done.result.jobs
    if as_json:
        typer.echo(json_.dumps({"jobs": moved, "left_to_run_at_work": done.by_run}))
    elif done.by_run and moved:
        typer.echo(f"{jobs(moved)} will go on{kinds}: the run that is at work takes them up")
    elif moved:
        typer.echo(f"{jobs(moved)} will go on{kinds}; next: {command('resume', out)}")
    else:
        typer.echo(f"nothing to try again{_uncertain(out)}; what became of each job: {command('jobs', out)}")
