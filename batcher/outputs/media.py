"""What a downloaded file is, by its bytes: format, size in pixels, and whether it is whole."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image, UnidentifiedImageError

MAX_PIXELS: Final = 128_000_000
"""Above this an image is not decoded: a few hundred kilobytes can unfold to gigabytes."""
_IMAGES: Final = {
    "PNG": ("png", "image/png"),
    "JPEG": ("jpg", "image/jpeg"),
    "MPO": ("jpg", "image/jpeg"),
    "WEBP": ("webp", "image/webp"),
    "GIF": ("gif", "image/gif"),
    "AVIF": ("avif", "image/avif"),
    "TIFF": ("tif", "image/tiff"),
    "BMP": ("bmp", "image/bmp"),
}


class NotMedia(Exception):
    """The bytes are not what was promised, and why."""


@dataclass(frozen=True, slots=True)
class Media:
    """What a file is. Sizes in pixels; None for a video."""

    extension: str
    mime: str
    width: int | None = None
    height: int | None = None


def examine(file: Path) -> Media:
    """Decode an image whole, or recognise a video by its head. Raises NotMedia."""
    with file.open("rb") as opened:
        head = opened.read(64)
    if video := _video(head):
        return video
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _image(file)
    except UnidentifiedImageError:
        raise NotMedia(f"it is no image or video; it begins with {head[:16]!r}") from None
    except NotMedia:
        raise
    except Exception as error:  # whatever a decoder raises is said of the bytes
        if isinstance(error, OSError) and error.errno:  # but for the disk's own errors
            raise
        raise NotMedia(f"it cannot be decoded: {error}") from None


def _image(file: Path) -> Media:
    with Image.open(file) as image:
        if image.format not in _IMAGES:
            raise NotMedia(f"it is a {image.format}, which no model makes")
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise NotMedia(f"it has {width} x {height} pixels, over the cap of {MAX_PIXELS // 1_000_000} megapixels")
        image.load()
        return Media(*_IMAGES[image.format], width, height)


def _video(head: bytes) -> Media | None:
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in {b"avif", b"avis", b"heic", b"mif1", b"heix"}:
            return None
        return Media("mov", "video/quicktime") if brand == b"qt  " else Media("mp4", "video/mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Media("webm", "video/webm") if b"webm" in head else Media("mkv", "video/x-matroska")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Media("avi", "video/x-msvideo")
    return None
