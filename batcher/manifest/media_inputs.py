"""The images of one job: local files found and measured, URLs kept as they are written; how a job id counts them."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from batcher.catalog import Model
from batcher.hosting.inline import ImageFactsCache, ImageNotUsable, at_most, why_no_data_uri, why_not
from batcher.job import Image
from batcher.manifest.expansion_counts import ExpansionCounts
from batcher.manifest.manifest import Manifest
from batcher.manifest.urls import why_not_fetchable

Path = tuple[str | int, ...]
MOST_OUTSIDE: Final = 10_000
"""Images outside of the manifest's folder that are remembered by name."""
_OTHER_MEDIA: Final = re.compile("video|audio|media|file")


class RowFault(Exception):
    """A job cannot be made of this row; a fault is made of it."""

    def __init__(self, field: str, message: str, *, of_manifest: bool = False) -> None:
        """`of_manifest`: its settings are at fault, whatever row it shows in."""
        super().__init__(message)
        self.field = field
        self.of_manifest = of_manifest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowFault) and (self.field, str(self)) == (other.field, str(other))

    def __hash__(self) -> int:
        return hash((self.field, str(self)))

    def __str__(self) -> str:
        return str(self.args[0])


class MediaField(NamedTuple):
    """What one media input comes to."""

    sent: object
    """As it is sent, with `sha256:HEX` in the place of each local image."""
    sources: tuple[str, ...]
    """As the manifest names them."""
    images: tuple[Image, ...] = ()
    """The local ones."""
    inline: int = 0
    """Characters of the data URIs that the manifest itself holds."""


class MediaInputs:
    """Finds and measures the local images that a manifest names; URLs are kept as they are written."""

    def __init__(self, looks: ImageFactsCache, manifest: Manifest, seen: ExpansionCounts, *, loopback: bool) -> None:
        """`seen`: counts local images. `loopback`: the server can fetch what is at this machine's own addresses."""
        self._outside = seen.outside
        self._photos = seen.photos
        self._loopback = loopback
        self._root = os.path.realpath(manifest.root)
        self._folders: dict[str, str] = {}
        """A folder that images lie in, and where it really is."""
        self._looks = looks
        self._manifest = manifest
        self._max_side = manifest.document.images.max_side
        self.counts = True
        """The job at hand is not left out: its photos are counted."""
        self._last: dict[str, tuple[object, MediaField]] = {}
        """What is the same object in every job is looked at once."""

    def placed(self, field: str, value: object) -> MediaField:
        """Look at the value of a media input. Raises RowFault."""
        last, placed = self._last.get(field, (None, None))
        if placed is None or last is not value:
            sources: list[str] = []
            images: list[Image] = []
            sent = self._put((field,), value, sources, images)
            inline = sum(len(source) for source in sources if source[:5].lower() == "data:")
            placed = MediaField(sent, tuple(sources), tuple(images), inline)
            self._last[field] = value, placed
        return placed

    def wrong(self, field: str, value: object) -> list[RowFault]:
        """Return all that is wrong with the value of a media input, not the first alone."""
        if isinstance(value, list):
            return [bad for item in value for bad in self.wrong(field, item)]
        try:
            self._put((field,), value, [], [])
        except RowFault as bad:
            return [bad]
        return []

    def _put(self, path: Path, value: object, sources: list[str], images: list[Image]) -> object:
        if isinstance(value, list):
            return [self._put((*path, index), item, sources, images) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        sources.append(value)
        image = self._one(str(path[0]), path, value)
        if image is None:
            return value
        images.append(image)
        return f"sha256:{image.sha256}"

    def _one(self, field: str, path: Path, text: str) -> Image | None:
        """Look at a local image; None: it is a URL."""
        scheme = text.partition(":")[0].lower() if ":" in text[:12] else ""
        if scheme == "data":
            if problem := why_no_data_uri(text, self._kinds(field)):
                raise RowFault(field, problem)
            return None
        if scheme in {"http", "https"}:
            if problem := why_not_fetchable(text, loopback=self._loopback):
                raise RowFault(field, f"{text[:200]} {problem}")
            return None
        if "://" in text:
            raise RowFault(field, f"`{text}` is neither an https URL nor a local file")
        if not text.strip():
            raise RowFault(field, "is empty, where an image is required")
        path_of_it = self._manifest.root / text
        try:
            look = self._looks.at(path_of_it)
        except ImageNotUsable as unusable:
            self._count(text, unusable.problem)
            raise RowFault(field, str(unusable).replace(str(path_of_it), text)) from None
        if unusable_so := why_not(look, self._max_side):
            self._count(text, unusable_so.problem)
            raise RowFault(field, f"{text} {unusable_so}")
        self._count(text)
        if len(self._outside) < MOST_OUTSIDE and self._is_outside(text):
            self._outside[text] = None
        return Image(path, text, look.sha256, at_most(look, self._max_side), self._max_side)

    def _count(self, text: str, problem: str = "") -> None:
        if self.counts:
            self._photos.count(text, problem)

    @staticmethod
    def _kinds(field: str) -> frozenset[str]:
        """Return the kinds of media that an input may hold, by its name."""
        return frozenset({"video", "audio", "image"}) if _OTHER_MEDIA.search(field) else frozenset({"image"})

    def _is_outside(self, text: str) -> bool:
        """Return whether a local image does not really lie in the manifest's folder: by its path, or by a link."""
        path = self._manifest.root / text
        folder = str(path.parent)
        where = self._folders.get(folder)
        if where is None:
            where = self._folders[folder] = os.path.realpath(folder)
        real = os.path.realpath(path) if path.is_symlink() else f"{where}/{path.name}"
        return not real.startswith(self._root.rstrip("/") + "/")


def counted(
    model: Model, sent: Mapping[str, object], images: Sequence[Image], ignores: str | None
) -> Mapping[str, object]:
    """Return the inputs as a job id counts them."""
    if not images and ignores is None:
        return sent
    local = {image.field: image for image in images}

    def count(path: Path, value: object) -> object:
        if isinstance(value, list):
            return [count((*path, index), item) for index, item in enumerate(value)]
        if image := local.get(path):
            size = {} if image.max_side is None else {"max_side": image.max_side}
            return {"sha256": image.sha256, **size}
        if ignores == "query" and isinstance(value, str) and path[0] in model.media:
            return _without_query(value)
        return value

    return {name: count((name,), value) for name, value in sent.items()}


def _without_query(url: str) -> str:
    if not url.lower().startswith(("http://", "https://")):
        return url
    address, hash_, fragment = url.partition("#")
    return address.partition("?")[0] + hash_ + fragment
