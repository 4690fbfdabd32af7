"""The user's money: what is spent or may have to be, what a limit pays for, what jobs cost by what was billed.

Facts come in, amounts in USD go out; the engine's budget, `plan`, `status` and the board reckon with it alike.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Protocol

ROUNDING: Final = 1e-9
"""USD by which sums may differ: far below a bill, far above what adding a million of them loses."""
_WHOLE: Final = 1e-6
"""Of a job: a quotient so little below a whole number is that number."""
_FREE: Final = frozenset({"turned_away", "refused"})
"""Outcomes of attempts that nothing is paid for."""


class LedgerRow(Protocol):
    """A row of the ledger."""

    def __getitem__(self, column: str, /) -> Any: ...  # noqa: ANN401 - as sqlite3 has it


def price_class(model: object, request_class: object) -> tuple[str, str]:
    """Return what jobs have in common that cost the same and take the same time: their model and their class."""
    return _shared(str(model), "" if request_class in {None, "None"} else str(request_class))


@lru_cache(1000)
def _shared(model: str, request_class: str) -> tuple[str, str]:
    """Return one pair for all jobs that have it: there may be a million."""
    return model, request_class


@dataclass(frozen=True, slots=True)
class Exposure:
    """What the user has paid, or may have to, by bills and estimates. USD."""

    billed: float
    reserved: float
    """Of what was accepted, and not billed."""
    at_risk: float
    """Of what is uncertain: it may be billed yet."""
    without_bill: float
    """Of the reserved, what has its results already: no bill may come for these."""

    @property
    def total(self) -> float:
        """The most that it may come to, if bills are as estimated."""
        return self.billed + self.reserved + self.at_risk


def exposure(rows: Iterable[LedgerRow]) -> Exposure:
    """Return what a ledger knows of money: its rows have `outcome`, `billed` and the estimates that are `unbilled`."""
    billed = reserved = at_risk = without_bill = 0.0
    for row in rows:
        billed += row["billed"]
        if row["outcome"] == "uncertain":
            at_risk += row["unbilled"]
        elif row["outcome"] not in _FREE:
            reserved += row["unbilled"]
        if row["outcome"] == "done":
            without_bill += row["unbilled"]
    return Exposure(billed, reserved, at_risk, without_bill)


def fits(needed: float, spent: float, limit: float | None) -> bool:
    """Return whether the limit pays for so much more; `spent`: what is spent or reserved already."""
    return limit is None or spent + needed <= limit + ROUNDING


def affordable(jobs: int, each: float, spent: float, limit: float | None) -> int:
    """Return how many of so many jobs the limit pays for, at that price each."""
    if limit is None or each <= 0:
        return jobs
    return min(jobs, max(0, int((limit - spent) / each + _WHOLE)))


def needs_consent(cost: float, spent: float, limit: float | None, above: float) -> bool:
    """Return whether so much may be spent, as far as the limit lets it, that the user is asked first."""
    return (cost if limit is None else min(cost, max(0.0, limit - spent))) > above


@dataclass(frozen=True, slots=True)
class End:
    """What a run may have cost at its end."""

    jobs: int
    """Of those that wait, what the limit pays for."""
    least: float
    most: float


def expected_end(jobs: int, estimate: float, billed: float, spent: float, limit: float | None) -> End:
    """Return how a run may end, of which so many jobs wait: by an estimate of each, and by what such were billed."""
    paid = affordable(jobs, max(estimate, billed), spent, limit)
    least, most = sorted(spent + paid * each for each in (estimate, billed))
    return End(paid, least, most)


@dataclass(frozen=True, slots=True)
class BilledRatios:
    """What was billed for each dollar of an estimate."""

    bills: int
    overall: float
    """Of all jobs together; 1 where there is no bill."""
    by_class: Mapping[Hashable, float]

    def of(self, model: str, request_class: str) -> float:
        """Return the ratio for such a job; 1 where no bill tells."""
        return self.by_class.get(price_class(model, request_class), 1.0)


def billed_ratios(rows: Iterable[LedgerRow]) -> BilledRatios:
    """Return what bills tell: rows have `model`, `class`, `billed` and `estimated`."""
    sums: dict[Hashable, tuple[float, float]] = {}
    bills = 0
    for row in rows:
        bills += 1
        key = price_class(row["model"], row["class"])
        billed, estimated = sums.get(key, (0.0, 0.0))
        sums[key] = (billed + row["billed"], estimated + row["estimated"])
    estimated = sum(estimated for _, estimated in sums.values())
    overall = sum(billed for billed, _ in sums.values()) / estimated if estimated else 1.0
    return BilledRatios(bills, overall, {key: billed / estimated for key, (billed, estimated) in sums.items()})
