"""Counts the local photos that a manifest names: how many can be sent, and what the others are."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from batcher.manifest.job_id import fingerprint
from batcher.manifest.seen_keys import SeenKeys

MOST_NAMED: Final = 10_000
"""Photos that cannot be sent that are remembered by name."""


@dataclass(slots=True)
class Photos:
    """The photos that were looked at, each counted once."""

    usable: int = 0
    others: Counter[str] = field(default_factory=Counter)
    """By what is the matter with them: `HEIC`, `broken`, `too large`, `missing`."""
    named: dict[str, str] = field(default_factory=dict)
    """Path: what is the matter with it."""
    _seen: SeenKeys = field(default_factory=SeenKeys)

    def count(self, path: str, problem: str = "") -> None:
        """Count a photo; `problem`: why it cannot be sent, in a word."""
        key = fingerprint(os.fsencode(path))
        if self._seen.get(key):
            return
        self._seen.put(key, 1)
        if not problem:
            self.usable += 1
            return
        self.others[problem] += 1
        if len(self.named) < MOST_NAMED:
            self.named[path] = problem

    @property
    def total(self) -> int:
        """How many there are."""
        return self.usable + self.others.total()

    def __str__(self) -> str:
        """Return how many there are: `41 photos: 36 usable, 2 HEIC, 1 TIFF, 2 broken`."""
        plural = "photo" if self.total == 1 else "photos"
        return f"{self.total:,} {plural}: {kinds(self.usable, self.others)}"

    def facts(self) -> dict[str, Any]:
        """Return what `plan --json` says of them."""
        by_problem: dict[str, list[str]] = {}
        for path, problem in self.named.items():
            by_problem.setdefault(problem, []).append(path)
        return {"total": self.total, "usable": self.usable, "others": dict(self.others), "named": by_problem}

    def close(self) -> None:
        """Forget which were seen; the counts stay."""
        self._seen.close()


def kinds(usable: int, others: Mapping[str, int]) -> str:
    """Return how many photos can be sent, and what the others are: `36 usable, 2 HEIC, 2 broken`."""
    counts = [f"{count:,} {problem}" for problem, count in sorted(others.items(), key=_by_count)]
    return ", ".join([f"{usable:,} usable", *counts])


def _by_count(item: tuple[str, int]) -> tuple[bool, int, str]:
    """Sort what is broken behind what has another form, the most first."""
    problem, count = item
    return problem.islower(), -count, problem
