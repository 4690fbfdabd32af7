"""From the ledger's jobs to what the page shows of them: a stream of cards, one an output. Memory holds their looks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from batcher.clock import rfc3339
from batcher.job import Job, Output, State
from batcher.outputs.sidecar import shortened, sidecar_file
from batcher.show.report.album import Album, PictureFacts, PictureToLook
from batcher.show.report.earlier import EarlierResult, EarlierResults
from batcher.show.report.flags import DuplicateFinder, Flags, flags

_AT_ONCE: Final = 200
"""Jobs whose pictures are looked at together."""
_SHOWN: Final = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/avif", "image/bmp", "image/svg+xml")
_LONG: Final = 200
"""Characters of a value by which cards can be filtered."""
_LONGEST: Final = 4_000
"""Characters of a text that a card has."""
_NONE: Final[list[Output | None]] = [None]

Card = dict[str, Any]
Shown = tuple[Job, list[Output]]


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where things are. `root`: what the manifest's paths count from; `out`: the run directory."""

    out: Path
    root: Path


@dataclass(slots=True)
class TextTable:
    """Each text once, by number: prompts and values come again and again."""

    texts: dict[str, int] = field(default_factory=dict)

    def number(self, text: str) -> int:
        """Return a text's number. A very long one is cut: the sidecar has all of it."""
        if len(text) > _LONGEST:
            text = text[:_LONGEST] + "…"
        return self.texts.setdefault(text, len(self.texts))


class Gallery:
    """Makes cards of jobs, and counts what it sees on the way."""

    def __init__(self, places: ReportPaths, album: Album, history: EarlierResults) -> None:
        self._places = places
        self._history = history
        self._album = album
        self._twins = DuplicateFinder()
        self.words = TextTable()
        self.cards = 0
        self.flags: dict[str, int] = {}
        self.elsewhere: set[str] = set()
        """Originals that are not here."""

    def cards_of(self, jobs: Iterable[Shown]) -> Iterator[Card]:
        """Return a card for each output, or one for a job that has none; thumbnails are made on the way."""
        stream = iter(jobs)
        while some := list(islice(stream, _AT_ONCE)):
            earlier = self._history.of([job for job, _ in some])
            self._album.look_at(self._wanted(some, earlier))
            for job, outputs in some:
                older = self._older(earlier.get(job.id, ()))
                for output in [one for one in outputs if one.file] or _NONE:
                    card = self._card(job, output, len(outputs))
                    if older:
                        card["older"] = older
                    for flag in card.get("flags", ()):
                        self.flags[flag] = self.flags.get(flag, 0) + 1
                    yield card
                    self.cards += 1

    def twins(self) -> list[list[int]]:
        """Return the groups of cards whose pictures are the same."""
        groups = self._twins.groups()
        if groups:
            self.flags["twin"] = sum(map(len, groups))
        return groups

    def _wanted(self, jobs: Iterable[Shown], earlier: Mapping[str, Sequence[EarlierResult]]) -> Iterator[PictureToLook]:
        for results in earlier.values():
            yield from (PictureToLook(one.file, one.sha256) for one in results if one.mime in _SHOWN)
        for job, outputs in jobs:
            for image in job.spec.images:
                yield PictureToLook(self._places.root / image.path, image.sha256, original=True)
            for output in outputs:
                if output.file and output.sha256 and (output.mime or "") in _SHOWN:
                    yield PictureToLook(output.file, output.sha256)

    def _card(self, job: Job, output: Output | None, count: int) -> Card:
        spec = job.spec
        card: Card = {
            "id": job.id,
            "name": spec.name if count < 2 or not output else f"{spec.name}-{output.index}",  # noqa: PLR2004
            "state": job.state,
            "values": {name: self.words.number(value) for name, value in variables(job).items()},
            "prompt": self.words.number(str(spec.inputs.get("prompt", ""))),
            "before": self._originals(job),
            "row": spec.row,
        }
        said = {
            "request": job.request_id,
            "kind": job.kind,
            "message": job.message if job.kind else None,
            "billed": job.billed_usd,
            "estimated": spec.estimated_usd,
            "submitted": rfc3339(job.submitted_at),
            "took": _took(job),
            "inputs": self._inputs(job),
        }
        card |= {name: value for name, value in said.items() if value not in (None, {}, "")}
        return card | (self._after(job, output) if output else {})

    def _inputs(self, job: Job) -> Mapping[str, object]:
        """Return what the job sends beside its prompt, its images and what is a variable already."""
        images = {image.field[0] for image in job.spec.images}
        return {
            name: shortened(value)
            for name, value in job.spec.inputs.items()
            if name != "prompt" and name not in images and not _plain(value)
        }

    def _originals(self, job: Job) -> list[Card]:
        found: list[Card] = []
        local = {image.path: image.sha256 for image in job.spec.images}
        for source in job.spec.sources:
            sha256 = local.get(source) or self._album.by_url(source)
            card: Card = {"name": str(shortened(source))}
            look = self._album.of(sha256) if sha256 else None
            if sha256 and look and not self._album.trouble(sha256):
                card |= {"thumb": self._album.thumb(sha256), "src": self._album.view(sha256)}
                card |= {"width": look.width, "height": look.height}
            elif source.startswith(("https://", "http://")):
                card["link"] = source
                self.elsewhere.add(source)
            found.append(card)
        return found

    def _older(self, results: Sequence[EarlierResult]) -> list[Card]:
        """Return what the page shows of a job's earlier results; what is not there any more is left out."""
        found: list[Card] = []
        for one in results:
            look = self._album.of(one.sha256) if not self._album.trouble(one.sha256) else None
            if look is None and not (one.mime.startswith("video/") and (self._places.out / one.file).is_file()):
                continue
            card: Card = {
                "src": _address(one.file),
                "prompt": self.words.number(one.prompt),
                "at": rfc3339(one.at),
                "name": one.file,
                "mime": one.mime,
            }
            if look:
                card |= {"thumb": self._album.thumb(one.sha256), "width": look.width, "height": look.height}
            found.append(card)
        return found

    def _after(self, job: Job, output: Output) -> Card:
        file, sha256 = str(output.file), str(output.sha256)
        card: Card = {
            "src": _address(file),
            "sidecar": _address(sidecar_file(file)),
            "mime": output.mime,
            "bytes": output.bytes,
            "width": output.width,
            "height": output.height,
        }
        odd = self._trouble(output)
        if look := self._album.of(sha256):
            if not odd:
                card["thumb"] = self._album.thumb(sha256)
            odd |= flags(job.spec.inputs, look, self._first_original(job))
            self._twins.take(self.cards, look)
        return card | ({"flags": odd} if odd else {})

    def _trouble(self, output: Output) -> Flags:
        """Return what keeps a file from being shown; one that was seen before may be gone since."""
        match self._album.trouble(str(output.sha256)) or self._since(output):
            case "missing":
                return {"missing": "its file is not there any more: batcher verify fetches it again while it can"}
            case "changed":
                return {"changed": "its file is not what was written: batcher verify says more"}
            case "unreadable":
                return {"unreadable": "its file cannot be decoded"}
            case _:
                return {}

    def _since(self, output: Output) -> str | None:
        try:
            size = (self._places.out / str(output.file)).stat().st_size
        except OSError:
            return "missing"
        return None if size == output.bytes else "changed"

    def _first_original(self, job: Job) -> PictureFacts | None:
        local = {image.path: image.sha256 for image in job.spec.images}
        digests = (local.get(source) or self._album.by_url(source) for source in job.spec.sources)
        return next((look for digest in digests if digest and (look := self._album.of(digest))), None)


def variables(job: Job) -> dict[str, str]:
    """Return what tells a job from others: its variables and plain inputs as text, its model, original and sample."""
    spec = job.spec
    found = {name: _text(value) for name, value in spec.vars.items()}
    found |= {name: _text(value) for name, value in spec.inputs.items() if name != "prompt" and _plain(value)}
    if spec.sources:
        found.setdefault("original", _text(shortened(spec.sources[0])))
    return found | {"model": spec.model, "sample": str(spec.sample)}


def _plain(value: object) -> bool:
    return isinstance(value, bool | int | float) or (
        isinstance(value, str) and len(value) <= _LONG and not value.startswith(("sha256:", "data:", "http"))
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _took(job: Job) -> float | None:
    if job.completed_at is None or job.submitted_at is None or job.state not in {State.DONE, State.FETCHING}:
        return None
    return round(max(0.0, job.completed_at - job.submitted_at), 1)


def _address(file: str) -> str:
    """Return a file's address relative to the page: a name may hold what means something in an address."""
    return quote(file.encode("utf-8", "surrogateescape"))
