"""The state of a run from its ledger: counts, money, files, and why it stopped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from batcher.errors import Stopped, WrongUse
from batcher.job import SETTLED, State
from batcher.ledger.lock import is_locked
from batcher.ledger.reader import Reader
from batcher.manifest.faults import did_you_mean
from batcher.money import billed_ratios, expected_end, exposure
from batcher.pacing.budget import restored
from batcher.settings import SANDBOX
from batcher.show.board import Board, Money, named
from batcher.show.eta import RECENT, SettledCount, left
from batcher.show.run_status import Example, RunCost, RunStatus
from batcher.show.words import held, left_behind, money, waiting
from batcher.terminal_text import command, plain

_COLUMN: Final = 48
"""Columns of a value in a table."""


def status(out: Path) -> RunStatus:
    """Return where a run stands. Raises NotFound, LedgerUnreadable."""
    with Reader(out) as reader:
        return status_of(reader)


def status_of(reader: Reader) -> RunStatus:
    """The same, from a reader that is open."""
    meta = reader.meta()
    rows = reader.ask("states")
    listed = [row for row in rows if row["listed"]]
    states = {state.value: sum(row["jobs"] for row in listed if row["state"] == state) for state in State}
    stopped = _without_a_word(reader, states) or reader.stopped()
    files = reader.ask("files")[0]
    errors: dict[str, int] = {}
    for row in listed:
        if row["kind"]:
            errors[row["kind"]] = errors.get(row["kind"], 0) + row["jobs"]
    return RunStatus(
        name=_text(meta.get("name")),
        provider=_text(meta.get("provider")),
        vendor=_text(meta.get("vendor")),
        total=sum(row["jobs"] for row in listed),
        selected=sum(row["jobs"] for row in listed if row["selected"]),
        waiting=sum(row["jobs"] for row in listed if row["selected"] and row["state"] == State.PENDING),
        whole=_text(meta.get("whole")),
        states=states,
        unlisted=sum(row["jobs"] for row in rows if not row["listed"]),
        rejected=_number(meta.get("rejected")),
        errors=errors,
        cost_usd=_cost(reader, meta),
        files=files["files"],
        bytes=int(files["bytes"]),
        requests=_number(meta.get("requests")),
        stopped=stopped,
        examples={kind: _example(reader, kind) for kind in errors},
    )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _without_a_word(reader: Reader, states: Mapping[str, int]) -> Stopped | None:
    """Return why nothing is at work where the last start did not come to say so: it was killed, or the power went."""
    if reader.meta().get("ended") is not False or is_locked(reader.out):
        return None
    message = "; ".join(
        ["nothing is at work: the last run ended unexpectedly (killed, or a crash)", *left_behind(states)]
    )
    return Stopped("interrupted", message, 0, command("resume", reader.out), retryable=True)


def _example(reader: Reader, kind: str) -> Example:
    """Return one job that failed, or is uncertain, in this way."""
    row = reader.ask("example", kind=kind)[0]
    return Example(row["id"], row["name"], row["message"] or "")


ALSO: Final = ("model", "sample", "row", "original", "state", "kind")
"""What jobs can be told apart by beside their variables and inputs."""


def by_value(reader: Reader, variable: str) -> list[dict[str, Any]]:
    """Return jobs and money by the values of a variable or an input. Raises WrongUse where no job has it."""
    rows = reader.ask("by_value", by=variable)
    if variable not in ALSO and all(row["value"] is None for row in rows):
        known = [*(row["key"] for row in reader.ask("variables")), *ALSO]
        raise WrongUse(f"--by {variable}: no job has it{did_you_mean(variable, known)}")
    return [{name: row[name] for name in _OF_A_VALUE} | _money_of(row) for row in rows]


def _money_of(row: Any) -> dict[str, float]:  # noqa: ANN401 - a row
    return {"billed_usd": round(row["billed"], 6), "unbilled_usd": round(row["unbilled"], 6)}


_OF_A_VALUE: Final = ("value", "jobs", "done", "failed", "uncertain", "cancelled", "left")


def table(rows: Sequence[Mapping[str, Any]], variable: str, most: int = 100) -> Iterator[str]:
    """Write that for people: the first `most` values, and how many more there are."""
    from rich.cells import cell_len

    names = [name for name in _OF_A_VALUE[1:] if name in {"jobs", "done"} or any(row[name] for row in rows)]
    head = [variable, *names, "billed"]
    cells = [
        [_short(row["value"]), *(f"{row[name]:,}" for name in names), money(row["billed_usd"])] for row in rows[:most]
    ]
    wide = [max(cell_len(one[n]) for one in [head, *cells]) for n in range(len(head))]
    for one in [head, *cells]:
        first = one[0] + " " * (wide[0] - cell_len(one[0]))
        yield plain("  ".join([first, *(text.rjust(width) for text, width in zip(one[1:], wide[1:], strict=True))]))
    if len(rows) > most:
        yield f"... and {len(rows) - most:,} more values: --json has them all"


def _short(value: object) -> str:
    text = "(none)" if value in {None, ""} else str(value)
    return text if len(text) <= _COLUMN else text[: _COLUMN - 1] + "…"


def board_of(reader: Reader, now: float) -> Board:
    """Return where a run that is at work stands, as the run itself shows it. `now`: a stamp, in seconds since 1970."""
    meta, status = reader.meta(), status_of(reader)
    states = {state.value: 0 for state in State}
    for row in reader.ask("states"):
        if row["listed"] and row["selected"]:
            states[row["state"]] += row["jobs"]
    started = min(now, float(meta.get("started_at") or now))  # type: ignore[arg-type]
    ages = (min(RECENT, now - started), now - started)
    lately, whole = (SettledCount(reader.ask("done_since", after=now - age)[0]["jobs"], age) for age in ages)
    to_come = sum(count for state, count in states.items() if State(state) not in SETTLED)
    policy: Any = meta.get("policy") or {}
    trouble = _trouble(reader, now)
    cost = status.cost_usd
    in_flight = to_come - states[State.PENDING]
    end, waiting = _end(reader, cost, states[State.PENDING])
    words = (*trouble.words, *_waits(reader))
    if trouble.stopping:
        to_come, end = in_flight, None
    elif waiting < states[State.PENDING]:
        words = (*words, f"the limit pays for about {waiting:,} more of {states[State.PENDING]:,}")
        to_come = in_flight + waiting
    return Board(
        name=str(status.name),
        where=named(str(status.provider), str(status.vendor)),
        rehearsal=status.provider == SANDBOX,
        states=states,
        elapsed=now - started,
        rate=lately.rate,
        left=left(to_come, lately, whole),
        money=Money(cost.billed, end, cost.limit),
        ceiling=int(policy.get("limits", {}).get("concurrency") or 0),
        window=trouble.window,
        holds=trouble.holds,
        stopping=trouble.stopping,
        trouble=words,
        kinds=status.errors,
    )


@dataclass(frozen=True, slots=True)
class _Trouble:
    holds: int
    window: int | None
    words: tuple[str, ...]
    stopping: bool


def _trouble(reader: Reader, now: float) -> _Trouble:
    """Return what the last events say of the server."""
    holds, window, silence, hold, stopping = 0, None, "", "", ""
    for row in reader.ask("latest_trouble"):
        facts = json.loads(row["facts"])
        if row["type"] in {"Stopping", "Started"}:
            stopping = f"no more is submitted: {facts['message']}" if row["type"] == "Stopping" else ""
            continue
        if row["type"] == "Silence":
            silence = facts["message"] if facts["since"] is not None else ""
            continue
        holds, window = holds + 1, facts.get("window")
        until = row["at"] + facts["seconds"]
        hold = held(facts["why"], until - now, reached=facts.get("reached", True)) if now < until else ""
    return _Trouble(holds, window, tuple(one for one in (silence, stopping, hold) if one), bool(stopping))


def _waits(reader: Reader) -> list[str]:
    """Return what jobs wait for that did not come as it should, if any do."""
    row = reader.ask("waits")[0]
    return [waiting(row["jobs"], f"{row['name']} {row['message']}")] if row["jobs"] else []


def _end(reader: Reader, cost: RunCost, pending: int) -> tuple[tuple[float, float] | None, int]:
    """Return the least and the most that a run may have cost at its end, and how many that wait there is money for.

    By estimates, and by what was billed.
    """
    waiting = float(reader.ask("left_estimate")[0][0])
    if not cost.worst_case and not waiting:
        return None, pending
    each = waiting / pending if pending else 0.0
    billed = each * billed_ratios(reader.ask("bills")).overall
    end = expected_end(pending, each, billed, cost.worst_case, cost.limit)
    return (end.least, end.most), end.jobs


def _cost(reader: Reader, meta: Mapping[str, Any]) -> RunCost:
    rows = reader.ask("money")
    known = exposure(rows)
    limit = (meta.get("policy") or {}).get("limits", {}).get("max_cost_usd")
    budget = restored(
        limit,
        money=rows,
        classes=meta.get("price_classes"),
        results=reader.ask("results"),
        unbilled=reader.ask("unbilled"),
    )
    return RunCost(
        estimated=round(reader.ask("estimate")[0][0], 6),
        billed=round(known.billed, 6),
        reserved=round(max(0.0, budget.committed - known.billed - known.at_risk), 6),
        at_risk=round(known.at_risk, 6),
        worst_case=round(budget.committed, 6),
        without_bill=round(known.without_bill, 6),
        limit=limit,
    )
