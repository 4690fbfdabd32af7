"""How things are said in the terminal: amounts, durations, the one next command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from batcher.job import State
from batcher.provider import FIRST, PROVIDERS
from batcher.settings import SANDBOX
from batcher.show.run_status import RunStatus
from batcher.terminal_text import command, is_own_command

_ADVICE: Final = {
    "lost": "may have been accepted, and billed; `retry --state uncertain` says what is known, and asks",
    "crash": "may have been accepted, and billed; `retry --state uncertain` says what is known, and asks",
    "invalid": "the server refuses these as they are: edit their rows",
    "refused": "refused as they are: edit their rows",
    "source": "their images changed or vanished: put them back, or run the manifest again",
    "bad_output": "`retry` fetches them again; where that brings the same, `retry --again` buys them anew",
    "expired": "`retry` asks for them again; where that fails too, `retry --again` buys them anew",
    "no_output": "`retry` asks for them again; where that fails too, `retry --again` buys them anew",
    "unfetched": "`retry` fetches them again, and buys nothing",
    "timeout": "`retry` waits for them again, and buys nothing",
    "gone": "`retry` asks for them again; where the server does not know them, `retry --again` buys them anew",
    "failed": "`retry` buys them anew",
}
"""What can be done about each kind of failure."""
_LOOKED_FOR: Final = (
    "may have been accepted, and billed; each start looks for them in the list of past requests, "
    "`retry --state uncertain` asks whether to buy them again"
)
"""What is done about lost submissions where the vendor has such a list."""
_HELPED: Final = ("timeout", "gone", "expired", "bad_output", "no_output", "unfetched", "failed", "source")
"""Kinds of failure that `retry` can help; of the others it would only buy the same refusal again."""
_WORDS: Final = 100
"""Characters of an example's message."""


def money(usd: float | None) -> str:
    """Write an amount of dollars."""
    return "unknown" if usd is None else f"${usd:,.2f}"


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Write a duration."""
    seconds = round(seconds)
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds} s"
    if seconds < 3600:  # noqa: PLR2004
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def span(seconds: float) -> str:
    """Write a duration as an option takes it: `1h30m`."""
    if seconds != int(seconds):
        return f"{seconds:g}s"
    hours, rest = divmod(int(seconds), 3600)
    parts = [(hours, "h"), (rest // 60, "m"), (rest % 60, "s")]
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"


def left_behind(states: Mapping[str, int]) -> list[str]:
    """Return what is to be said of jobs that a run left on their way, by how far they had come."""
    said = []
    if running := states.get(State.RUNNING, 0):
        said.append(f"{running:,} {'runs' if running == 1 else 'run'} on at the server")
    if fetching := states.get(State.FETCHING, 0):
        are = "has ended there, and is" if fetching == 1 else "have ended there, and are"
        said.append(f"{fetching:,} {are} fetched by the next start")
    if cut := states.get(State.SUBMITTING, 0):
        were = "was being submitted: it" if cut == 1 else "were being submitted: they"
        said.append(f"{cut:,} {were} may be billed, and the next start holds that as uncertain")
    return said


def waiting(count: int, example: str) -> str:
    """Write how many jobs wait for something that did not come as it should, and what the latest waits for."""
    return example if count == 1 else f"{jobs(count)} wait so; {example}"


def jobs(count: int) -> str:
    """Write a number of jobs."""
    return f"{count:,} job{'' if count == 1 else 's'}"


def rows(count: int) -> str:
    """Write a number of rows."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def files(count: int) -> str:
    """Write a number of files."""
    return f"{count:,} file{'' if count == 1 else 's'}"


def counts(states: Mapping[str, int]) -> str:
    """Write how many jobs are in each state, the empty ones left out."""
    found = [f"{states[state]:,} {state}" for state in State if states.get(state)]
    return ", ".join(found) or "no jobs"


def held(why: str, seconds: float, *, reached: bool) -> str:
    """Return why nothing is submitted for some seconds; `reached`: the server has said so."""
    if not reached:
        return f"cannot reach the API; trying again in {duration(seconds)}"
    return f"the API takes no more for now ({why}); trying again in {duration(seconds)}"


def summary(found: RunStatus, out: Path, took: float | None = None) -> list[str]:
    """Return the summary of a run: what is done, what is not and why, and the command that goes on. `took`: seconds."""
    states, cost = found.states, found.cost_usd
    rehearsal = ""
    if found.provider == SANDBOX:
        stands_for = f" as {found.vendor}" if found.vendor not in {None, FIRST} else ""
        rehearsal = f" (rehearsal on the sandbox{stands_for}: no money was spent)"
    lines = [f"{found.name}: {counts(states)}{rehearsal}"]
    if others := found.total - found.selected:
        lines.append(f"{jobs(others)} more of the manifest {'is' if others == 1 else 'are'} not selected by this run")
    if found.files:
        lasted = "" if took is None else f"; took {duration(took)}"
        lines.append(f"{files(found.files)}, {size(found.bytes)}, in {out / 'files'}{lasted}")
    if cost.worst_case:
        parts = [f"{'simulated cost' if rehearsal else 'billed'} {money(cost.billed)}"]
        if cost.reserved:
            parts.append(f"not billed yet, or bill unknown: {money(cost.reserved)}")
        if cost.at_risk:
            parts.append(f"at risk, for submissions whose answers were lost: {money(cost.at_risk)}")
        lines.append("; ".join(parts))
    if cost.limit is not None and cost.worst_case > cost.limit + 0.005:
        over = money(cost.worst_case - cost.limit)
        lines.append(
            f"over the limit of {money(cost.limit)} by {over}: it was lowered, or jobs in flight were billed more"
        )
    elif cost.limit is not None and cost.without_bill:
        lines.append(f"{money(cost.without_bill)} of it came without a bill: there the limit rests on estimates")
    for kind, count in sorted(found.errors.items(), key=lambda one: -one[1]):
        advice = _LOOKED_FOR if kind in {"lost", "crash"} and _lists_requests(found) else _ADVICE[kind]
        lines.append(f"{count:,} {kind}: {advice}")
        example = found.examples.get(kind)
        if example and example.message:
            lines.append(f"    as {example.name}: {_cut(example.message)}")
    if found.rejected:
        lines.append(f"{rows(found.rejected)} rejected, see {out / 'rejected.csv'}")
    if found.stopped:
        lines.append(f"stopped ({found.stopped.reason}): {found.stopped.message}")
    if then := next_command(found, out):
        lines.append(f"next: {then}")
    return lines


def _lists_requests(found: RunStatus) -> bool:
    """Return whether the run's provider has a list of past requests."""
    api = PROVIDERS.get(str(found.vendor))
    return api is not None and api.history is not None


def next_command(found: RunStatus, out: Path) -> str | None:
    """Return the one command that goes on from here; None where nothing is left to do."""
    if found.stopped and is_own_command(found.stopped.next):
        return found.stopped.next
    states = found.states
    if found.waiting:  # let go on by the user, or never begun
        return command("resume", out)
    if states["failed"]:
        return _after_failures(found.errors, out, cancelled=bool(states["cancelled"]))
    if states["uncertain"]:
        return command("resume", out) if _lists_requests(found) else command("retry", out, "--state", "uncertain")
    if states["cancelled"]:
        return command("retry", out, "--state", "cancelled") + " && " + command("resume", out)
    if found.total > found.selected and is_own_command(found.whole or ""):
        return found.whole
    return None


def _after_failures(errors: Mapping[str, int], out: Path, *, cancelled: bool) -> str:
    """Return the command that lets go on what can be helped; else the one that writes the rows that need an edit."""
    helped = [kind for kind in _HELPED if kind in errors]
    if not helped:
        return command("jobs", out, "--state", "failed", "--rows", "failed-rows.csv")
    others = {"invalid", "refused"} & set(errors)
    retries = [command("retry", out, "--kind", kind) for kind in helped] if others else [command("retry", out)]
    if cancelled:
        retries.append(command("retry", out, "--state", "cancelled"))
    return " && ".join([*retries, command("resume", out)])


def _cut(text: str) -> str:
    return text if len(text) <= _WORDS else f"{text[:_WORDS]}..."
