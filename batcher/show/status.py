"""The state of a run from its ledger: counts, money, files, and why it stopped."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from batcher.job import State
from batcher.ledger.reader import Reader


def status(out: Path) -> dict[str, Any]:
    """Give what `status --json` prints. Raises NotFound, LedgerUnreadable."""
    with Reader(out) as reader:
        return status_of(reader)


def status_of(reader: Reader) -> dict[str, Any]:
    """The same, from a reader that is open."""
    meta = reader.meta()
    rows = reader.ask("states")
    listed = [row for row in rows if row["listed"]]
    stopped = reader.stopped()
    files = reader.ask("files")[0]
    errors: dict[str, int] = {}
    for row in listed:
        if row["kind"]:
            errors[row["kind"]] = errors.get(row["kind"], 0) + row["jobs"]
    return {
        "name": meta.get("name"),
        "provider": meta.get("provider"),
        "total": sum(row["jobs"] for row in listed),
        "selected": sum(row["jobs"] for row in listed if row["selected"]),
        "states": {state.value: sum(row["jobs"] for row in listed if row["state"] == state) for state in State},
        "unlisted": sum(row["jobs"] for row in rows if not row["listed"]),
        "rejected": meta.get("rejected", 0),
        "errors": errors,
        "cost_usd": _money(reader, meta),
        "files": files["files"],
        "bytes": int(files["bytes"]),
        "requests": meta.get("requests", 0),
        "stopped": _stopped(asdict(stopped)) if stopped else None,
    }


def _stopped(stopped: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stopped.items() if key != "exit_code"}


def _money(reader: Reader, meta: Mapping[str, Any]) -> dict[str, float | None]:
    rows = reader.ask("money")
    billed = sum(row["billed"] for row in rows)
    at_risk = sum(row["unbilled"] for row in rows if row["outcome"] == "uncertain")
    reserved = sum(row["unbilled"] for row in rows if row["outcome"] in {"open", "done", "failed", "cancelled"})
    policy = meta.get("policy") or {}
    return {
        "estimated": round(reader.ask("estimate")[0][0], 6),
        "billed": round(billed, 6),
        "reserved": round(reserved, 6),
        "at_risk": round(at_risk, 6),
        "worst_case": round(billed + reserved + at_risk, 6),
        "limit": policy.get("limits", {}).get("max_cost_usd"),
    }
