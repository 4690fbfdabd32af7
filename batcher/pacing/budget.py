"""How much of the user's money is spent or reserved. All amounts in USD.

What a class of requests costs is not known before the first bill: an estimate may be wrong by a factor. So until then a
job is reserved at ten times its estimate, and the budget that is left is not spent before anything was billed.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Final

from batcher.money import LedgerRow, exposure, fits, price_class

UNKNOWN: Final = 10.0
"""Times its estimate at which a job is reserved while no bill of its class has come."""
RESULTS: Final = 3
"""Results without a bill after which their class counts as known, at its estimate: some servers bill nobody at once."""


@dataclass(slots=True)
class KnownPrice:
    """What is known of the price of one class of requests."""

    factor: float = 1.0
    """The most that was billed for each dollar of an estimate."""
    bills: int = 0
    results: int = 0
    """That came without a bill."""

    @property
    def is_known(self) -> bool:
        """A bill has come, or results enough without one."""
        return self.bills > 0 or self.results >= RESULTS


@dataclass(slots=True)
class _Held:
    kind: Hashable
    estimate: float
    usd: float


@dataclass(slots=True)
class Budget:
    """What was billed, what may yet be, and the cap. Nothing is submitted that could carry it past the cap.

    A bill above its estimate makes every job of that class dearer, those in flight too: what can pass the cap is
    bounded by what was in flight when the first such bill came.
    """

    limit: float | None
    committed: float = 0.0
    """Billed, else reserved, of everything submitted.

    What is uncertain, or ended at the server without a word, keeps its reservation: it may be billed yet.
    """
    broad: bool = False
    """Money is short: one job of each row goes before a second of any."""
    price_changed: bool = False
    """What some class of jobs costs was learned since this was last looked at."""
    classes: dict[Hashable, KnownPrice] = field(default_factory=dict)
    _held: dict[str, _Held] = field(default_factory=dict)

    def price(self, kind: Hashable, estimate: float | None) -> float:
        """Return what a job may cost: its estimate, or more where such jobs were billed more."""
        known = self.classes.get(kind)
        return (estimate or 0.0) * (known.factor if known else 1.0)

    def reservation(self, kind: Hashable, estimate: float | None) -> float:
        """Return what is set aside for a job under a limit, where nothing else stands in the way."""
        known = self.classes.get(kind)
        return self.price(kind, estimate) * (1.0 if self.limit is None or (known and known.is_known) else UNKNOWN)

    def affords(self, kind: Hashable, estimate: float | None, *, alone: bool) -> bool:
        """Return whether a job of that class and estimate may be submitted; under a limit, one without a price may not.

        `alone`: nothing else is being worked on. Then one whose estimate fits may go, though its reservation does not:
        its bill tells what the others cost.
        """
        if self.limit is None:
            return True
        if estimate is None:
            return False
        needed = self.reservation(kind, estimate)
        if alone:
            needed = min(needed, self.price(kind, estimate))
        return fits(needed, self.committed, self.limit)

    @property
    def is_passed(self) -> bool:
        """More is spent or reserved, what has not left yet among it, than the limit allows."""
        return not fits(0.0, self.committed, self.limit)

    def short_of(self, estimated: float) -> bool:
        """Return whether jobs of that estimate, all that are left, cost more than what is left of the money."""
        if self.limit is None:
            return False
        surplus = sum(held.usd - self.price(held.kind, held.estimate) for held in self._held.values())
        return not fits(estimated * self.highest_ratio, self.committed - surplus, self.limit)

    @property
    def highest_ratio(self) -> float:
        """The most that was billed for a dollar of an estimate, of any class of jobs."""
        return max((one.factor for one in self.classes.values()), default=1.0)

    def change_limit(self, limit: float | None) -> None:
        """Go by another limit from now on."""
        self.limit = limit
        self._reserve_anew(self._held.values())

    def reserve(self, job_id: str, kind: Hashable, estimate: float | None) -> None:
        """Set aside what a job may cost, as it is submitted: no more than what the limit leaves."""
        self.committed += estimate or 0.0
        self.hold(job_id, kind, estimate)

    def hold(self, job_id: str, kind: Hashable, estimate: float | None) -> None:
        """Reserve for a job that an earlier process submitted, and that counts at its estimate already."""
        held = self._held[job_id] = _Held(kind, estimate or 0.0, estimate or 0.0)
        self._reserve_anew([held])

    def _reserve_anew(self, some: Iterable[_Held]) -> None:
        """Set aside what these may cost by what is known now; what is not known yet takes no more than the limit."""
        for held in some:
            self.committed -= held.usd
            price = self.price(held.kind, held.estimate)
            left = price if self.limit is None else self.limit - self.committed
            held.usd = max(price, min(self.reservation(held.kind, held.estimate), left))
            self.committed += held.usd

    def release(self, job_id: str) -> None:
        """Release what was reserved: the job was certainly not accepted."""
        if held := self._held.pop(job_id, None):
            self.committed -= held.usd

    def settle(self, job_id: str, kind: Hashable, estimate: float | None, billed: float | None) -> None:
        """Put the bill in the place of what was set aside, by this process or an earlier one; learn from it."""
        if billed is None:
            return
        held = self._held.pop(job_id, None)
        self.committed += billed - (held.usd if held else estimate or 0.0)
        self.learn(kind, held.estimate if held else estimate, billed)

    def settle_unbilled(self, job_id: str, *, has_result: bool) -> None:
        """Count a job at its estimate that has ended without a bill; nothing of one that was billed before."""
        if held := self._held.pop(job_id, None):
            self.committed += held.estimate - held.usd
            if has_result:
                self.learn(held.kind, held.estimate, None)

    def learn(self, kind: Hashable, estimate: float | None, billed: float | None) -> None:
        """Learn from a bill, or from a result without one: what is in flight may cost as much.

        A bill of nothing tells no price: it is what a generation that failed is billed.
        """
        if not estimate or (billed is not None and billed <= 0):
            return
        known = self.classes.setdefault(kind, KnownPrice())
        before = (known.is_known, known.factor)
        if billed is None:
            known.results += 1
        else:
            known.bills += 1
            known.factor = max(known.factor, billed / estimate)
        if (known.is_known, known.factor) != before:
            self.price_changed = True
            self._reserve_anew([held for held in self._held.values() if held.kind == kind])

    def noted(self) -> list[list[object]]:
        """Return what is known of prices, as it is written down for the next start."""
        return [[kind, one.factor, one.bills, one.results] for kind, one in self.classes.items()]


def restored(
    limit: float | None,
    *,
    money: Iterable[LedgerRow],
    classes: object,
    results: Iterable[LedgerRow],
    unbilled: Iterable[LedgerRow],
) -> Budget:
    """Return the budget of what a ledger knows.

    `money`: billed and unbilled, by outcome; `classes`: what `Budget.noted` gave at the end of the last start;
    `results`: the latest, with their bills or none; `unbilled`: what is at the server, or may be.
    """
    budget = Budget(limit, exposure(money).total)
    for kind, factor, bills, without in classes if isinstance(classes, list) else ():
        budget.classes[price_class(*kind)] = KnownPrice(float(factor), int(bills), int(without))
    for row in results:
        budget.learn(price_class(row["model"], row["class"]), row["estimated"], row["billed"])
    for row in unbilled:
        budget.hold(row["id"], price_class(row["model"], row["class"]), row["estimated"])
    budget.price_changed = False
    return budget
