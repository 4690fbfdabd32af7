"""Notices a row that may mean many products, and would make one picture of them all. Pure."""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

MANY: Final = 4
"""Images of one request from which their names are compared."""
_CAMERA: Final = re.compile(r"^(img|dsc[nf]?|p|pict?|photo|image|scan|pxl|mvimg|gopr)?[-_ ]?\d*$", re.IGNORECASE)
_TELLS: Final = 3
"""Letters that names must share at their beginning to be views of one thing."""


def looks_like_many(images: Sequence[str]) -> bool:
    """Return whether images of one request look like as many products: at least four, whose names share no beginning.

    `mug-front.jpg, mug-back.jpg` are views of one thing; `IMG_1.jpg, IMG_2.jpg` could be anything.
    """
    if len(images) < MANY:
        return False
    stems = [PurePosixPath(urlsplit(image).path).stem for image in images]
    if any(image.startswith("data:") for image in images):
        return False
    shared = _beginning(stems)
    return len(shared.strip("-_ ")) < _TELLS or bool(_CAMERA.match(shared))


def _beginning(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    first, last = min(texts), max(texts)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:same]
