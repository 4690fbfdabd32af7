"""How much of the user's money is spoken for. All amounts in USD."""

from collections.abc import Hashable
from dataclasses import dataclass, field

_A_HAIR = 1e-9


@dataclass(slots=True)
class _Held:
    kind: Hashable
    estimate: float
    usd: float


@dataclass(slots=True)
class Budget:
    """What was billed, what may yet be, and the cap. Nothing is submitted that could carry it past the cap.

    A bill above its estimate makes every job of that kind dearer, those in flight too: what can pass the cap is
    bounded by what was in flight when the first such bill came.
    """

    limit: float | None
    spoken_for: float = 0.0
    """Billed, else estimated, of everything submitted; uncertain jobs at full price."""
    broad: bool = False
    """Money is short: one job of each row goes before a second of any."""
    rose: bool = False
    """Some kind of job has become dearer since this was last looked at."""
    _held: dict[str, _Held] = field(default_factory=dict)
    _factors: dict[Hashable, float] = field(default_factory=dict)
    """Kind -> the most that was billed for each dollar of an estimate."""

    def price(self, kind: Hashable, estimate: float | None) -> float:
        """Give what a job may cost: its estimate, or more where such jobs were billed more."""
        return (estimate or 0.0) * self._factors.get(kind, 1.0)

    def affords(self, kind: Hashable, estimate: float | None) -> bool:
        """Say whether a job of that kind and estimate may be submitted; under a limit, one without a price may not."""
        if self.limit is None:
            return True
        return estimate is not None and self.spoken_for + self.price(kind, estimate) <= self.limit + _A_HAIR

    @property
    def is_passed(self) -> bool:
        """More is spoken for, what has not left yet among it, than the limit allows."""
        return self.limit is not None and self.spoken_for > self.limit + _A_HAIR

    def short_of(self, estimated: float) -> bool:
        """Say whether jobs of that estimate, all that are left, cost more than what is left of the money."""
        return self.limit is not None and self.spoken_for + estimated * self.dearest > self.limit + _A_HAIR

    @property
    def dearest(self) -> float:
        """The most that was billed for a dollar of an estimate, of any kind of job."""
        return max(self._factors.values(), default=1.0)

    def reserve(self, job_id: str, kind: Hashable, estimate: float | None) -> None:
        """Set aside what a job may cost, as it is submitted."""
        held = self._held[job_id] = _Held(kind, estimate or 0.0, self.price(kind, estimate))
        self.spoken_for += held.usd

    def hold(self, job_id: str, kind: Hashable, estimate: float | None) -> None:
        """Take note of a job that an earlier process submitted: it is spoken for at its estimate, and may be dearer."""
        held = self._held[job_id] = _Held(kind, estimate or 0.0, self.price(kind, estimate))
        self.spoken_for += held.usd - held.estimate

    def release(self, job_id: str) -> None:
        """Give it back: certainly not accepted."""
        if held := self._held.pop(job_id, None):
            self.spoken_for -= held.usd

    def settle(self, job_id: str, kind: Hashable, estimate: float | None, billed: float | None) -> None:
        """Put the bill in the place of what was set aside, by this process or an earlier one; learn from it."""
        if billed is None:
            return
        held = self._held.pop(job_id, None)
        self.spoken_for += billed - (held.usd if held else estimate or 0.0)
        self.learn(kind, held.estimate if held else estimate, billed)

    def keep(self, job_id: str) -> None:
        """Take note that a job is done without a bill: what was set aside stays spoken for, for good."""
        self._held.pop(job_id, None)

    def learn(self, kind: Hashable, estimate: float | None, billed: float) -> None:
        """Take in a bill: what is in flight may cost as much."""
        if not estimate or billed / estimate <= self._factors.get(kind, 1.0):
            return
        self._factors[kind] = billed / estimate
        self.rose = True
        for held in self._held.values():
            if held.kind == kind:
                dearer = self.price(kind, held.estimate)
                self.spoken_for += dearer - held.usd
                held.usd = dearer
