"""What a run would do and cost, told from its jobs as they stream by and from what earlier work took."""

import math
import os
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain, tee
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from batcher.catalog import Model, offers
from batcher.clock import chance
from batcher.errors import BatcherError
from batcher.job import Spec, State
from batcher.ledger.import_jobs import spread
from batcher.ledger.reader import Reader
from batcher.manifest.row_check import looks_like_many
from batcher.money import affordable, exposure, fits, needs_consent
from batcher.runs.history import bills, past
from batcher.settings import SANDBOX, Policy

_SHOWN: Final = 3
"""Jobs that a plan shows in full."""
_QUICK, _SLOW = 0.8, 1.3
"""The range around the pace of an earlier run."""


_PAGE: Final = 2_500
"""Ids that the ledger is asked about at once."""
_CLASSES: Final = 65_535
"""Classes of price that are told apart; a manifest has a handful."""


StatesOf = Callable[[Iterable[Sequence[str]]], Iterator[Mapping[str, tuple[str, bool]]]]
"""Tells, for pages of ids, the states of the jobs that a ledger knows, and whether each is listed."""


class PlannedClass(NamedTuple):
    """What sets a job's price and the space that it takes."""

    request_class: str
    each: float | None
    outputs: int


class _Ids:
    """Ids of jobs, 64 bits each, in a file that has no name; the last are in memory."""

    def __init__(self) -> None:
        self._last = array("q")
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="batcher-")  # noqa: SIM115 - closed with this
        self._in_file = 0

    def __len__(self) -> int:
        return self._in_file + len(self._last)

    def append(self, job_id: str) -> None:
        """Add an id."""
        self._last.append(int.from_bytes(bytes.fromhex(job_id), "big", signed=True))
        if len(self._last) >= _PAGE:
            self._move_out()

    def pages(self) -> Iterator[list[str]]:
        """Yield all of them, a page at a time."""
        yield from (self.at(range(start, min(start + _PAGE, len(self)))) for start in range(0, len(self), _PAGE))

    def at(self, places: Sequence[int]) -> list[str]:
        """Return the ids at these places; they are read in one go where these follow each other."""
        if not places:
            return []
        if self._last:
            self._move_out()
        first, last = places[0], places[-1]
        if last - first + 1 == len(places):
            return [_text(number) for number in self._read(first, len(places))]
        return [_text(self._read(place, 1)[0]) for place in places]

    def close(self) -> None:
        """Forget them."""
        self._file.close()

    def _move_out(self) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(self._last.tobytes())
        self._file.flush()
        self._in_file += len(self._last)
        self._last = array("q")

    def _read(self, place: int, count: int) -> "array[int]":
        found = array("q")
        found.frombytes(os.pread(self._file.fileno(), 8 * count, 8 * place))
        return found


def _text(number: int) -> str:
    return f"{number & 0xFFFF_FFFF_FFFF_FFFF:016x}"


STATES: Final = (State.PENDING, *(state for state in State if state is not State.PENDING))
"""The states of jobs by number; 0: nothing has begun."""


class PlannedJobs:
    """What is kept of the jobs as they stream by: a few bytes of each, and a few to show."""

    def __init__(self, *, sampled: bool) -> None:
        """`sampled`: a sample will be asked for, which needs the rows."""
        self._sampled = sampled
        self._last_row = 0
        self.model = ""
        self.inputs: set[str] = set()
        """The names of all inputs that some job sets."""
        self._ids, self._others = _Ids(), _Ids()
        """Of the jobs that `--where` leaves, and of those that it leaves out."""
        self._class_of = array("H")
        self._rows = array("I")
        self._images, self._image_bytes = array("H"), array("I")
        """Of each job, from the first on that has a local image."""
        self._classes: dict[PlannedClass, int] = {}
        self._fused = 0
        self._first_fused = (0, 0)
        self._shown: list[Spec] = []
        self._chance = chance(0)

    def __len__(self) -> int:
        return len(self._ids)

    def take(self, spec: Spec, outputs: int, *, chosen: bool) -> None:
        """Add a job that makes so many outputs."""
        if not chosen:
            self._others.append(spec.id)
            return
        self.model = spec.model
        self.inputs.update(spec.inputs)
        self._ids.append(spec.id)
        price = PlannedClass(spec.request_class, spec.estimated_usd, outputs)
        self._class_of.append(self._classes.setdefault(price, min(len(self._classes), _CLASSES)))
        if spec.images and not self._images:
            self._images.frombytes(bytes(2 * (len(self._ids) - 1)))
            self._image_bytes.frombytes(bytes(4 * (len(self._ids) - 1)))
        if spec.images or self._images:
            self._images.append(min(65_535, len(spec.images)))
            self._image_bytes.append(sum(image.bytes for image in spec.images))
        if self._last_row != spec.row and looks_like_many(spec.sources):
            self._first_fused = self._first_fused if self._fused else (spec.row, len(spec.sources))
            self._fused += 1
        self._last_row = spec.row
        if self._sampled:
            self._rows.append(spec.row)
        self._show(spec)

    def _show(self, spec: Spec) -> None:
        if len(self._shown) < _SHOWN:
            self._shown.append(spec)
            return
        if self._chance.random() < 1 / len(self._ids):
            self._shown[1] = self._shown[2]
        self._shown[2] = spec

    def kept(self, limit: int | None, sample: int | None) -> Sequence[int]:
        """Return the places of the jobs that a selection leaves."""
        kept = range(len(self._ids))[:limit]
        return kept if sample is None else spread(self._rows[: len(kept)], sample)

    def id_pages(self, places: Sequence[int]) -> Iterator[list[str]]:
        """Yield the ids of the jobs at these places, a page at a time."""
        for start in range(0, len(places), _PAGE):
            yield self._ids.at(places[start : start + _PAGE])

    def compared(self, states_of: StatesOf) -> tuple[bytearray, int]:
        """Return the states of the jobs that `--where` leaves, by numbers in `STATES`; how many listed are done."""
        begun, done = bytearray(), 0
        pages = tee(chain(self._ids.pages(), self._others.pages()))
        for ids, states in zip(pages[0], states_of(pages[1]), strict=True):
            done += sum(state == State.DONE and listed for state, listed in states.values())
            begun += bytes(STATES.index(states.get(one, (State.PENDING, True))[0]) for one in ids)
        return begun, done

    @staticmethod
    def left_of(places: Sequence[int], begun: bytearray) -> "array[int]":
        """Return the places of the jobs that are pending, by the states that `compared` returns."""
        return array("I", (place for place in places if not begun[place]))

    def without(self, places: Sequence[int], dropped: Callable[[list[str]], AbstractSet[str]]) -> "array[int]":
        """Return the places of the jobs that are not among the dropped ones; `dropped`: which of some ids are."""
        left = array("I")
        for start, ids in zip(range(0, len(places), _PAGE), self.id_pages(places), strict=True):
            gone = dropped(ids)
            left.extend(place for place, one in zip(places[start : start + _PAGE], ids, strict=True) if one not in gone)
        return left

    def by_class(self, places: Sequence[int]) -> Counter[PlannedClass]:
        """Count the jobs at these places by what sets their price."""
        counts = Counter(self._class_of[place] for place in places)
        classes = {number: price for price, number in self._classes.items()}
        return Counter({classes[number]: count for number, count in counts.items()})

    def images(self, places: Sequence[int]) -> tuple[int, int]:
        """Return how many local images these jobs send, and of how many bytes."""
        if not self._images:
            return 0, 0
        return sum(self._images[place] for place in places), sum(self._image_bytes[place] for place in places)

    def close(self) -> None:
        """Forget their ids."""
        self._ids.close()
        self._others.close()

    def samples(self) -> list[dict[str, object]]:
        """Return a few jobs to show: the first, the last, one between."""
        return [{"job_id": one.id, "name": one.name, "inputs": as_named(one)} for one in self._shown]

    def warnings(self) -> list[str]:
        """Return what looks like a slip."""
        if not self._fused:
            return []
        row, count = self._first_fused
        more = f", and {self._fused - 1:,} more rows" if self._fused > 1 else ""
        said = f"row {row} has {count} images that look like {count} products{more}: one request makes one picture of "
        return [said + 'them all; for a picture each, give each its own row, as `jobs: {glob: "photos/*.jpg"}` does']


def as_named(spec: Spec) -> Any:  # noqa: ANN401 - JSON
    """Return a job's inputs with each local image as the manifest names it."""
    paths = {f"sha256:{image.sha256}": image.path for image in spec.images}

    def named(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, list):
            return [named(item) for item in value]
        return paths.get(value, value) if isinstance(value, str) else value

    return {name: named(value) for name, value in spec.inputs.items()}


def bill(seen: PlannedJobs, to_buy: Sequence[int], settings: Policy, out: Path, provider: str) -> dict[str, Any]:
    """Return what the jobs to buy would cost, by the price list and by what was billed."""
    billed = bills(out, provider)
    groups: Counter[tuple[str, float | None]] = Counter()
    for price, count in seen.by_class(to_buy).items():
        groups[price.request_class, price.each] += count
    unknown = any(each is None for _, each in groups)
    estimated = round(sum((each or 0.0) * count for (_, each), count in groups.items()), 6)
    repriced = sum((each or 0.0) * count * billed.of(seen.model, name) for (name, each), count in groups.items())
    limit, spent = settings.limits.max_cost_usd, _spoken_for(out, provider)
    known = max(estimated, repriced)
    mean = known / len(to_buy) if to_buy else 0.0
    above = settings.limits.confirm_above_usd
    return {
        "estimated": None if unknown else estimated,
        "repriced": round(repriced, 6) if billed.bills and not unknown else None,
        "bills": billed.bills,
        "by_class": [
            {"class": name, "jobs": count, "each": each} for (name, each), count in sorted(groups.items(), key=str)
        ],
        "limit": limit,
        "affordable": None if fits(known, spent, limit) else affordable(len(to_buy), mean, spent, limit),
        "confirm_above": above,
        "asks": provider != SANDBOX and needs_consent(known, spent, limit, above),
    }


def at_each_provider(
    seen: PlannedJobs, to_buy: Sequence[int], here: str, estimated: float | None
) -> list[dict[str, Any]]:
    """Return what the same jobs would cost at each provider that offers their model, by its price list.

    `here`: the provider that is planned for, and what they cost there. What a job asks for that the model does not take
    elsewhere is named: these jobs would be faults there.
    """
    counts = seen.by_class(to_buy)
    found = []
    for name, model in offers(seen.model).items():
        elsewhere = 0.0
        for price, count in counts.items():
            each = model.prices.of(price.request_class or None) if model.prices else None
            elsewhere += math.nan if each is None else each * price.outputs * count
        usd = estimated if name == here else None if math.isnan(elsewhere) else round(elsewhere, 6)
        missing = sorted(seen.inputs - set(model.properties))
        found.append({"provider": name, "model": model.remote_id, "estimated": usd, "lacks": missing})
    return found


def expected(out: Path, provider: str, jobs: int) -> dict[str, Any] | None:
    """Return how long that may take, by what a past run took."""
    before = past(out, provider)
    if before is None or not jobs:
        return None
    seconds = jobs / before.rate
    return {"seconds": [round(seconds * _QUICK, 1), round(seconds * _SLOW, 1)], "from": str(before.folder)}


def space(out: Path, provider: str, seen: PlannedJobs, to_buy: Sequence[int]) -> dict[str, Any]:
    """Return the bytes that outputs may need, and those that are free."""
    before = past(out, provider)
    each = before.bytes_each if before else None
    guess = sum(
        (each or Model.output_bytes(price.request_class)) * price.outputs * count
        for price, count in seen.by_class(to_buy).items()
    )
    folder = out.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return {"needed": round(guess), "known": each is not None, "free": shutil.disk_usage(folder).free}


def _spoken_for(out: Path, provider: str) -> float:
    try:
        with Reader(out) as reader:
            rows = reader.ask("money") if reader.meta().get("provider") == provider else []
    except BatcherError:
        return 0.0
    return exposure(rows).total
