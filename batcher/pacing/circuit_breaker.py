"""When a run is to stop by itself: too much that is uncertain, too many failures in a row."""

from dataclasses import dataclass
from typing import Final

from batcher.job import FailureKind, State

SINGLE_FILE_AFTER: Final = 3
"""Uncertain submissions in a row after which they go one at a time."""


@dataclass(slots=True)
class CircuitBreaker:
    """Counts since this start, and what is uncertain since the user last decided; what a crash left is not counted."""

    max_uncertain: int
    max_failures: int
    uncertain: int = 0
    """Submissions whose answers were lost since the user last decided about such: by earlier starts, too."""
    uncertain_in_a_row: int = 0
    failures_in_a_row: int = 0
    accepted: int = 0

    def saw(self, came_from: State, to: State, kind: FailureKind | None) -> None:
        """Record a move."""
        if came_from is State.SUBMITTING and to is State.RUNNING:
            self.accepted += 1
            self.uncertain_in_a_row = 0
        elif to is State.UNCERTAIN and kind is not FailureKind.CRASH:
            self.uncertain += 1
            self.uncertain_in_a_row += 1
        if to is State.FAILED:
            self.failures_in_a_row += 1
        elif to is State.DONE:
            self.failures_in_a_row = 0

    def found(self, count: int) -> None:
        """Record that so many uncertain submissions were found, and are at the server."""
        self.uncertain = max(0, self.uncertain - count)
        self.uncertain_in_a_row = 0

    def decided(self) -> None:
        """Record that the user has decided about what is uncertain."""
        self.uncertain = self.uncertain_in_a_row = 0

    @property
    def single_file(self) -> bool:
        """Submissions go one at a time until one is answered."""
        return self.uncertain_in_a_row >= SINGLE_FILE_AFTER

    @property
    def too_uncertain(self) -> bool:
        """More submissions were lost than the user allows."""
        return self.uncertain > self.max_uncertain

    @property
    def too_many_failures(self) -> bool:
        """More jobs failed in a row than the user allows."""
        return self.failures_in_a_row > self.max_failures
