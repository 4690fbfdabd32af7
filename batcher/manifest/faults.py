"""Gathers what is wrong with a manifest: the first fifty in full, the rest counted."""

from difflib import get_close_matches
from typing import Final

from batcher.errors import Fault, ManifestFaulty

SHOWN: Final = 50
"""Faults that are named; the others are counted."""


class Faults:
    """All faults of one manifest."""

    def __init__(self) -> None:
        self.shown: list[Fault] = []
        self.count = 0

    def copy(self) -> "Faults":
        """Return the same, to add others to."""
        copied = Faults()
        copied.shown, copied.count = [*self.shown], self.count
        return copied

    def add(self, fault: Fault) -> None:
        """Note one."""
        self.count += 1
        if len(self.shown) < SHOWN:
            self.shown.append(fault)

    def __bool__(self) -> bool:
        return self.count > 0

    def error(self, hint: str = "") -> ManifestFaulty:
        """Return them all as one error."""
        return ManifestFaulty(self.shown, self.count, hint)


def did_you_mean(word: str, known: "list[str] | dict[str, object] | set[str]") -> str:
    """Return `; did you mean X?` where something known is near, else what is known."""
    names = sorted(known)
    if near := get_close_matches(word, names, n=1, cutoff=0.6):
        return f"; did you mean `{near[0]}`?"
    return f"; known: {', '.join(names[:20])}" if names else ""
