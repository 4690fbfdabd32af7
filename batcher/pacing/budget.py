"""How much of the user's money is spoken for. All amounts in USD."""

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """What was billed, what may yet be, and the cap. Nothing is submitted that could carry it past the cap."""

    limit: float | None
    spoken_for: float = 0.0
    """Billed, else estimated, of everything submitted; uncertain jobs at full price."""

    def affords(self, estimate: float | None) -> bool:
        """Say whether a job of that estimate may be submitted."""
        if self.limit is None:
            return True
        return self.spoken_for + (estimate or 0.0) <= self.limit + 1e-9

    def reserve(self, estimate: float | None) -> None:
        """Set a job's estimate aside, as it is submitted."""
        self.spoken_for += estimate or 0.0

    def release(self, estimate: float | None) -> None:
        """Give it back: certainly not accepted."""
        self.spoken_for -= estimate or 0.0

    def settle(self, estimate: float | None, billed: float | None) -> None:
        """Put the bill in the estimate's place."""
        if billed is not None:
            self.spoken_for += billed - (estimate or 0.0)
