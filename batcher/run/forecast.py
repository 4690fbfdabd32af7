"""What a run would do and cost, told from its jobs as they stream by and from what earlier work took."""

import shutil
from array import array
from collections import Counter
from pathlib import Path
from typing import Any, Final

from batcher.clock import chance
from batcher.errors import BatcherError
from batcher.job import Spec
from batcher.ledger.enrolment import spread
from batcher.ledger.reader import Reader
from batcher.manifest.fused import looks_like_many
from batcher.run.past import bills, past
from batcher.settings import SANDBOX, Policy

_SHOWN: Final = 3
_GUESS: Final = {"1K": 1.8e6, "2K": 6e6, "4K": 20e6}
"""Bytes of a file of that resolution, before any is known: PNG."""
_QUICK, _SLOW = 0.8, 1.3
"""The range around the pace of an earlier run."""


class Seen:
    """What is kept of the jobs as they stream by: ids, prices, and a few to show: the first, the last, one between."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.priced: list[tuple[str | None, float | None]] = []
        """Resolution and estimate."""
        self.outputs = array("H")
        self.rows = array("q")
        self.images, self.image_bytes = array("H"), array("q")
        self.model = ""
        self._fused: list[tuple[int, int]] = []
        self._shown: list[Spec] = []
        self._prices: dict[tuple[str | None, float | None], tuple[str | None, float | None]] = {}
        self._chance = chance(0)

    def take(self, spec: Spec, outputs: int, *, chosen: bool) -> None:
        """Take a job in that makes so many outputs."""
        if not chosen:
            return
        self.model = spec.model
        self.ids.append(spec.id)
        resolution = spec.inputs.get("resolution")
        price = (None if resolution is None else str(resolution), spec.estimated_usd)
        self.priced.append(self._prices.setdefault(price, price))
        self.outputs.append(min(1000, outputs))
        self.images.append(min(65_535, len(spec.images)))
        self.image_bytes.append(sum(image.bytes for image in spec.images))
        if (not self.rows or self.rows[-1] != spec.row) and looks_like_many(spec.sources):
            self._fused.append((spec.row, len(spec.sources)))
        self.rows.append(spec.row)
        self._show(spec)

    def _show(self, spec: Spec) -> None:
        if len(self._shown) < _SHOWN:
            self._shown.append(spec)
            return
        if self._chance.random() < 1 / len(self.ids):
            self._shown[1] = self._shown[2]
        self._shown[2] = spec

    def kept(self, limit: int | None, sample: int | None) -> list[int]:
        """Give the places of the jobs that a selection leaves."""
        kept = list(range(len(self.ids)))[:limit]
        return kept if sample is None else spread(self.rows[: len(kept)], sample)

    def samples(self) -> list[dict[str, object]]:
        """Give the jobs to show."""
        return [{"job_id": one.id, "name": one.name, "inputs": as_named(one)} for one in self._shown]

    def warnings(self) -> list[str]:
        """Give what looks like a slip."""
        if not self._fused:
            return []
        row, count = self._fused[0]
        more = f", and {len(self._fused) - 1:,} more rows" if len(self._fused) > 1 else ""
        said = f"row {row} has {count} images that look like {count} products{more}: one request makes one picture of "
        return [said + 'them all; for a picture each, give each its own row, as `jobs: {glob: "photos/*.jpg"}` does']


def as_named(spec: Spec) -> Any:  # noqa: ANN401 - JSON
    """Give a job's inputs with each local image as the manifest names it."""
    paths = {f"sha256:{image.sha256}": image.path for image in spec.images}

    def named(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [named(item) for item in value]
        return paths.get(value, value) if isinstance(value, str) else value

    return {name: named(value) for name, value in spec.inputs.items()}


def bill(seen: Seen, to_buy: list[int], settings: Policy, out: Path, provider: str) -> dict[str, Any]:
    """Give what the jobs to buy would cost, by the price list and by what was billed."""
    billed = bills(out, provider)
    groups: Counter[tuple[str | None, float | None]] = Counter(seen.priced[index] for index in to_buy)
    unknown = any(each is None for _, each in groups)
    estimated = round(sum((each or 0.0) * count for (_, each), count in groups.items()), 6)
    repriced = sum(
        (each or 0.0) * count * billed.factor(seen.model, resolution) for (resolution, each), count in groups.items()
    )
    limit, spent = settings.limits.max_cost_usd, _spoken_for(out, provider)
    known = max(estimated, repriced)
    short = limit is not None and known > limit - spent + 1e-9
    mean = known / len(to_buy) if to_buy else 0.0
    above = settings.limits.confirm_above_usd
    return {
        "estimated": None if unknown else estimated,
        "repriced": round(repriced, 6) if billed.count and not unknown else None,
        "bills": billed.count,
        "by_resolution": [
            {"resolution": resolution, "jobs": count, "each": each}
            for (resolution, each), count in sorted(groups.items(), key=str)
        ],
        "limit": limit,
        "affordable": int(max(0.0, limit - spent) / mean + 1e-9) if short and mean and limit is not None else None,
        "confirm_above": above,
        "asks": provider != SANDBOX and asks(known, limit, spent, above),
    }


def expected(out: Path, provider: str, jobs: int) -> dict[str, Any] | None:
    """Give how long that may take, by what a past run took."""
    before = past(out, provider)
    if before is None or not jobs:
        return None
    seconds = jobs / before.rate
    return {"seconds": [round(seconds * _QUICK, 1), round(seconds * _SLOW, 1)], "from": str(before.folder)}


def space(out: Path, provider: str, seen: Seen, to_buy: list[int]) -> dict[str, Any]:
    """Give the bytes that outputs may need, and those that are free."""
    before = past(out, provider)
    each = before.bytes_each if before else None
    guess = sum(
        (each or _GUESS.get(seen.priced[index][0] or "", _GUESS["1K"])) * seen.outputs[index] for index in to_buy
    )
    folder = out.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return {"needed": round(guess), "known": each is not None, "free": shutil.disk_usage(folder).free}


def asks(cost: float, limit: float | None, spent: float, above: float) -> bool:
    """Say whether so much is to be spent that the user is asked first. `spent`: what of the limit is spoken for."""
    return (cost if limit is None else min(cost, max(0.0, limit - spent))) > above


def _spoken_for(out: Path, provider: str) -> float:
    try:
        with Reader(out) as reader:
            rows = reader.ask("money") if reader.meta().get("provider") == provider else []
    except BatcherError:
        return 0.0
    counted = (row for row in rows if row["outcome"] not in {"turned_away", "refused"})
    return float(sum(row["billed"] + row["unbilled"] for row in counted))
