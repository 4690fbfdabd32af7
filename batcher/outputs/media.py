"""What a downloaded file is, by its bytes: format, size in pixels, and whether it is whole."""

import io
import struct
import warnings
from dataclasses import dataclass
from typing import IO, Final, cast

from PIL import Image, UnidentifiedImageError

from batcher.image_structure import Content, NotWhole, check_riff, check_whole
from batcher.pixel_budget import DECODING

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
class MediaType:
    """What a file is. Sizes in pixels; None for a video."""

    extension: str
    mime: str
    width: int | None = None
    height: int | None = None


def examine(content: Content) -> MediaType:
    """Return what these bytes are, checked to be whole: by structure, or decoded where that tells nothing.

    A video is recognised by its head. Raises NotMedia.
    """
    try:
        if video := _video(content):
            return video
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _image(content)
    except UnidentifiedImageError:
        raise NotMedia(f"it is not an image or video; it begins with {content[:16]!r}") from None
    except NotMedia:
        raise
    except NotWhole as cut:
        raise NotMedia(f"it cannot be decoded: {cut}") from None
    except Exception as error:  # whatever a decoder raises is said of the bytes
        if isinstance(error, OSError) and error.errno:  # but for the disk's own errors
            raise
        raise NotMedia(f"it cannot be decoded: {error}") from None


def _image(content: Content) -> MediaType:
    stream = io.BytesIO(content) if isinstance(content, bytes) else cast("IO[bytes]", content)
    with Image.open(stream) as image:
        if image.format not in _IMAGES:
            raise NotMedia(f"it is a {image.format}, which no model makes")
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise NotMedia(f"it has {width} x {height} pixels, over the cap of {MAX_PIXELS // 1_000_000} megapixels")
        if not check_whole(content, image.format):
            with DECODING.of(width, height):
                image.load()
                image.close()
        return MediaType(*_IMAGES[image.format], width, height)


def _video(content: Content) -> MediaType | None:
    """Return what video this is, None for none. Raises NotMedia where it is cut off, or only begins like one."""
    head = content[:64]
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in {b"avif", b"avis", b"heic", b"mif1", b"heix"}:
            return None
        _see_boxes(content)
        return MediaType("mov", "video/quicktime") if brand == b"qt  " else MediaType("mp4", "video/mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        _see_segment(content)
        return MediaType("webm", "video/webm") if b"webm" in head else MediaType("mkv", "video/x-matroska")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        check_riff(content)
        return MediaType("avi", "video/x-msvideo")
    return None


def _see_boxes(content: Content) -> None:
    """Walk the boxes of an MP4 or QuickTime file to its end; one of them describes the film."""
    at, kinds = 0, set[bytes]()
    while at + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        if length == 1 and at + 16 <= len(content):
            length = int.from_bytes(content[at + 8 : at + 16], "big")
        kinds.add(kind)
        if length == 0:  # to the end of the file
            at = len(content)
        elif length < 8:  # noqa: PLR2004 - its own head
            break
        else:
            at += length
    if kinds.isdisjoint({b"moov", b"moof"}):
        raise NotMedia("it begins like a video, and has no film in it")
    if at != len(content):
        raise NotMedia("it cannot be decoded: it ends too soon")


def _see_segment(content: Content) -> None:
    """Check that a Matroska or WebM file has all of the segment whose length it announces, if it does (RFC 9559)."""
    head, width = _length(content, 4)
    at = 4 + width + head
    if content[at : at + 4] != b"\x18\x53\x80\x67":
        raise NotMedia("it begins like a video, and has no film in it")
    size, width = _length(content, at + 4)
    unknown = (1 << 7 * width) - 1
    if size != unknown and at + 4 + width + size > len(content):
        raise NotMedia("it cannot be decoded: it ends too soon")


def _length(content: Content, at: int) -> tuple[int, int]:
    """Read an element's length (RFC 8794): the number, and the bytes that it is written in."""
    first = content[at] if at < len(content) else 0
    width = 9 - first.bit_length()
    if not first or at + width > len(content):
        raise NotMedia("it cannot be decoded: it ends too soon")
    return int.from_bytes(content[at : at + width], "big") & (1 << 7 * width) - 1, width
