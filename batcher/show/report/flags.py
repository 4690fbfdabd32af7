"""What should be looked at twice in a picture, from facts alone: blank, of another shape or size, unchanged, a twin."""

from collections.abc import Mapping
from typing import Final

from batcher.catalog import asked_side
from batcher.show.report.album import PictureFacts

Flags = dict[str, str]
"""What is odd -> in words."""

WORDS: Final = {
    "blank": "blank",
    "shape": "wrong shape",
    "size": "too small",
    "unchanged": "looks unchanged",
    "twin": "looks identical",
    "missing": "file missing",
    "changed": "file changed",
    "unreadable": "cannot be shown",
}
"""Every flag, as it is named on the page."""

_FLAT: Final = 10
"""Levels of 255: less contrast than this between any two places is one colour."""
_SHAPE: Final = 0.04
"""Relative difference of two aspect ratios that still counts as the same: models round sizes."""
_SAME_MEAN, _SAME_MOST = 2.0, 12
"""Levels of 255, on average and at most, by which a picture may differ from its original and count as unchanged."""
_TWIN_MEAN: Final = 1.5
"""Levels of 255, on average, by which two outputs may differ and count as identical."""


def flags(inputs: Mapping[str, object], look: PictureFacts, original: PictureFacts | None) -> Flags:
    """Return what is odd about an output of these inputs, beside its first original."""
    found: Flags = {}
    if look.contrast < _FLAT:
        found["blank"] = "it is of a single colour"
    if odd := _shape(inputs.get("aspect_ratio"), look):
        found["shape"] = odd
    if odd := _small(inputs, look):
        found["size"] = odd
    if original and "blank" not in found and _unchanged(look, original):
        found["unchanged"] = "it looks the same as its original"
    return found


def _shape(asked: object, look: PictureFacts) -> str | None:
    width, colon, height = str(asked).partition(":")
    if not (colon and width.isdigit() and height.isdigit() and int(width) and int(height)):
        return None  # `auto`, or none asked for
    off = (look.width / look.height) / (int(width) / int(height))
    return None if 1 - _SHAPE < off < 1 + _SHAPE else f"asked for {asked}, came as {look.width} x {look.height}"


def _small(inputs: Mapping[str, object], look: PictureFacts) -> str | None:
    """Return a flag if it is well below what was asked for. `2K` may mean a longer side or an area: either will do."""
    if (found := asked_side(inputs)) is None:
        return None
    asked, side = found
    long, mean = max(look.width, look.height), (look.width * look.height) ** 0.5
    enough = long >= 0.9 * side or mean >= 0.9 * side
    return None if enough else f"asked for {asked}, came as {look.width} x {look.height}"


def _unchanged(look: PictureFacts, original: PictureFacts) -> bool:
    shape = (look.width / look.height) / (original.width / original.height)
    if not 1 - _SHAPE < shape < 1 + _SHAPE:
        return False
    apart = [abs(a - b) for a, b in zip(look.tiny, original.tiny, strict=True)]
    return sum(apart) / len(apart) < _SAME_MEAN and max(apart) < _SAME_MOST


class DuplicateFinder:
    """Finds outputs that are the same picture, by their bytes or by their looks."""

    def __init__(self) -> None:
        self._groups: dict[str, tuple[bytes, list[int]]] = {}

    def take(self, place: int, look: PictureFacts) -> None:
        """Add an output, by its position in the report."""
        if look.contrast < _FLAT:
            return
        tiny, group = self._groups.setdefault(look.print, (look.tiny, []))
        if sum(abs(a - b) for a, b in zip(tiny, look.tiny, strict=True)) / len(tiny) < _TWIN_MEAN:
            group.append(place)

    def groups(self) -> list[list[int]]:
        """Return the places of those that are the same."""
        return [group for _, group in self._groups.values() if len(group) > 1]
