"""Says what a run would do and cost, before it: lines for people, from the facts that `plan --json` prints."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from batcher.manifest.photos import kinds
from batcher.settings import SANDBOX
from batcher.show.words import duration, jobs, money, rows, size
from batcher.terminal_text import command, plain

_LONG: Final = 200
"""Characters of an input that a plan shows."""
_WHICH: Final = {1: ("the one",), 2: ("first", "last"), 3: ("first", "middle", "last")}


def lines(found: Mapping[str, Any], *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines; `verbose`: each photo that cannot be sent by its name."""
    yield f"{found['name']}: {jobs(found['jobs'])} from {rows(found['rows'])}, for {found['model']}{_where(found)}"
    yield ""
    for name, text in _facts(found, verbose=verbose):
        yield f"  {name:<9} {text}"
    if verbose:
        named = found["photos"]["named"].items()
        yield from (f"  {'':<9} {problem}: {path}" for problem, paths in named for path in paths)
    yield from (f"  {'warning':<9} {one}" for one in found["warnings"])
    samples = found["samples"]
    for which, sample in zip(_WHICH.get(len(samples), ()), samples, strict=True):
        yield f"\n  {which:<9} files/{sample['name']}  ({sample['job_id']})"
        for name, value in sample["inputs"].items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            yield plain(f"    {name}: {text if len(text) < _LONG else text[: _LONG - 3] + '...'}")
    set_ = {name: one for name, one in found["settings"].items() if one["from"] != "default"}
    if set_:
        yield ""
    for name, one in set_.items():
        yield f"  {name} = {one['value']}  (from the {one['from']})"
    if found["next"]:
        yield f"\nnext: {found['next']}"


def _where(found: Mapping[str, Any]) -> str:
    """Return who makes the results, where a user might think of another."""
    if found["provider"] == SANDBOX:
        return " on the sandbox" + (f" as {found['vendor']}" if len(found["providers"]) > 1 else "")
    return f" at {found['vendor']}" if len(found["providers"]) > 1 else ""


def _facts(found: Mapping[str, Any], *, verbose: bool) -> Iterator[tuple[str, str]]:
    if found["selected"] != found["jobs"]:
        yield "selected", f"{found['selected']:,} of them"
    if found["equal_rows"]:
        yield "equal", f"{found['equal_rows']:,} equal to earlier rows: further samples of the same inputs"
    if begun := found["begun"] - sum(found["held"].values()):
        yield "done", f"{begun:,} are done or under way already, and cost nothing more"
    if found["held"]:
        held = ", ".join(f"{count:,} {state}" for state, count in found["held"].items())
        again = command("retry", Path(found["out"]), "--state", next(iter(found["held"])))
        yield "held", f"{held}: `run` leaves them as they are. To queue them again: {again}"
    if found["reused"]:
        yield "reused", f"{found['reused']:,} are taken over from another run, and cost nothing"
    if (photos := found["photos"])["total"]:
        named = " (-v names them)" if photos["others"] and not verbose else ""
        yield "photos", f"{photos['total']:,}: {kinds(photos['usable'], photos['others'])}{named}"
    if found["rejected"]:
        yield "rejected", f"{rows(found['rejected'])} would be skipped: faults in them"
    if not found["to_buy"]:
        yield "left", "nothing: no job would be bought"
        if found["begun"]:
            yield "results", f"are in {found['out']}"
        return
    yield from _cost(found["cost_usd"])
    yield from _at_each_provider(found)
    yield "time", _time(found["expected"])
    if found["images"]:
        yield "sends", f"{found['images']:,} local images, {size(found['inlined_bytes'])}"
    yield "space", _space(found["space"])
    yield "results", f"go to {found['out']}"


def _cost(cost: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    parts = [
        f"{one['jobs']:,} x {one['class'] or 'one'} at {money(one['each'])}" if one["each"] is not None else ""
        for one in cost["by_class"]
    ]
    note = f" ({cost['note']})" if cost["note"] else ""
    of = f": {', '.join(parts)}" if parts and all(parts) else ""
    yield "cost", f"{money(cost['estimated'])} estimated{of}{note}"
    if cost["bills"]:
        yield "", f"{money(cost['repriced'])} by the last {cost['bills']:,} bills of this run"
    if cost["limit"] is not None:
        enough = cost["affordable"] is None
        word = (
            "is enough" if enough else f"pays for about {cost['affordable']:,}, one of each row before a second of any"
        )
        yield "limit", f"{money(cost['limit'])} {word}"
    if cost["asks"]:
        yield "asks", f"before it spends, on a terminal: it is above confirm_above_usd {money(cost['confirm_above'])}"


def _at_each_provider(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return what the same jobs cost at each provider that offers the model, where there are several."""
    several = found["providers"] if len(found["providers"]) > 1 else []
    for name, one in zip(["providers", *[""] * len(several)], several, strict=False):
        how = "as planned" if one["provider"] == found["vendor"] else f"--provider {one['provider']}"
        lacks = f"; it does not take {', '.join(one['lacks'])}" if one["lacks"] else ""
        yield name, f"{money(one['estimated'])} at {one['provider']} ({one['model']}), {how}{lacks}"


def _time(expected: Mapping[str, Any] | None) -> str:
    if expected is None:
        return "not known yet: a --sample of six would tell the pace"
    low, high = map(duration, expected["seconds"])
    return f"{low} to {high}, at the pace of {expected['from']}"


def _space(space: Mapping[str, Any]) -> str:
    guess = "as its files so far are" if space["known"] else "a guess"
    return f"about {size(space['needed'])} ({guess}), {size(space['free'])} free"
