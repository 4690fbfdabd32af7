"""How things are said in the terminal: amounts, durations, the one next command."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from batcher.job import State
from batcher.plain import command, is_own_command
from batcher.settings import SANDBOX

_MAYBE: Final = ": may have been accepted, and billed; `retry --state uncertain` says what is known, and asks"
_HELP: Final = {
    "lost": _MAYBE,
    "crash": _MAYBE,
    "bad_output": ": `retry` fetches it again; where that brings the same, `retry --again` buys it anew",
    "expired": ": `retry` asks for it again; where that fails too, `retry --again` buys it anew",
    "no_output": ": `retry` asks for it again; where that fails too, `retry --again` buys it anew",
}
"""What can be done about a kind of failure that the next command may not end."""


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


def jobs(count: int) -> str:
    """Write a number of jobs."""
    return f"{count:,} job{'' if count == 1 else 's'}"


def rows(count: int) -> str:
    """Write a number of rows."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def counts(states: Mapping[str, int]) -> str:
    """Write how many jobs are in each state, the empty ones left out."""
    found = [f"{states[state]:,} {state}" for state in State if states.get(state)]
    return ", ".join(found) or "no jobs"


def summary(found: Mapping[str, Any], out: Path, took: float | None = None) -> list[str]:
    """Say at the end of a run what is done, what is not and why, and the one command that goes on. `took`: seconds."""
    states, cost = found["states"], found["cost_usd"]
    rehearsal = " (rehearsal on the sandbox: no money was spent)" if found["provider"] == SANDBOX else ""
    lines = [f"{found['name']}: {counts(states)}{rehearsal}"]
    if others := found["total"] - found["selected"]:
        lines.append(f"{jobs(others)} more of the manifest {'is' if others == 1 else 'are'} not selected by this run")
    if found["files"]:
        lasted = "" if took is None else f"; this start took {duration(took)}"
        lines.append(f"{found['files']:,} files, {size(found['bytes'])}, in {out / 'files'}{lasted}")
    if cost["worst_case"]:
        parts = [f"{'pretended bill' if rehearsal else 'billed'} {money(cost['billed'])}"]
        if cost["reserved"]:
            parts.append(f"not billed yet, or bill unknown: {money(cost['reserved'])}")
        if cost["at_risk"]:
            parts.append(f"at risk in uncertain jobs: {money(cost['at_risk'])}")
        lines.append("; ".join(parts))
    if cost["limit"] is not None and cost["worst_case"] > cost["limit"] + 0.005:
        over = money(cost["worst_case"] - cost["limit"])
        lines.append(
            f"over the limit of {money(cost['limit'])} by {over}: it was lowered, or jobs in flight were billed more"
        )
    elif cost["limit"] is not None and cost["without_bill"]:
        lines.append(f"{money(cost['without_bill'])} of it came without a bill: there the limit rests on estimates")
    lines.extend(f"{count:,} {kind}{_HELP.get(kind, '')}" for kind, count in sorted(found["errors"].items()))
    if found["rejected"]:
        lines.append(f"{found['rejected']:,} rows rejected, see {out / 'rejected.csv'}")
    if found["stopped"]:
        lines.append(f"stopped ({found['stopped']['reason']}): {found['stopped']['message']}")
    if then := next_command(found, out):
        lines.append(f"next: {then}")
    return lines


def next_command(found: Mapping[str, Any], out: Path) -> str | None:
    """Give the one command that goes on from here; None where nothing is left to do."""
    if found["stopped"] and is_own_command(str(found["stopped"]["next"])):
        return str(found["stopped"]["next"])
    states = found["states"]
    if found["waiting"]:  # let go on by the user, or never begun
        return command("resume", out)
    if states["failed"]:
        return command("retry", out) + " && " + command("resume", out)
    if states["uncertain"]:
        return command("retry", out, "--state", "uncertain")
    if states["cancelled"]:
        return command("retry", out, "--state", "cancelled") + " && " + command("resume", out)
    if found["total"] > found["selected"] and is_own_command(str(found["whole"] or "")):
        return str(found["whole"])
    return None
