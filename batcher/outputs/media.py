"""What a downloaded file is, by its bytes: format, size in pixels, and whether it is whole."""

import io
import mmap
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Final, cast

from PIL import Image, UnidentifiedImageError

from batcher.pixels import DECODING

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


_MARK: Final = 0xFF
_START_OF_SCAN: Final = 0xDA


Content = bytes | mmap.mmap
"""A whole file, in memory or mapped."""


class NotMedia(Exception):
    """The bytes are not what was promised, and why."""


@dataclass(frozen=True, slots=True)
class Media:
    """What a file is. Sizes in pixels; None for a video."""

    extension: str
    mime: str
    width: int | None = None
    height: int | None = None


def examine(content: Content) -> Media:
    """Say what these bytes are, and see that they are whole: by structure, or decoded where that tells nothing.

    A video is recognised by its head. Raises NotMedia. A PNG's checksums cover each of its bytes, a JPEG says where
    it ends, a WebP how long it is; to decode them would take fifty times as long, for each image of the night.
    """
    if video := _video(content):
        return video
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _image(content)
    except UnidentifiedImageError:
        raise NotMedia(f"it is no image or video; it begins with {content[:16]!r}") from None
    except NotMedia:
        raise
    except Exception as error:  # whatever a decoder raises is said of the bytes
        if isinstance(error, OSError) and error.errno:  # but for the disk's own errors
            raise
        raise NotMedia(f"it cannot be decoded: {error}") from None


def _image(content: Content) -> Media:
    stream = io.BytesIO(content) if isinstance(content, bytes) else cast("IO[bytes]", content)
    with Image.open(stream) as image:
        if image.format not in _IMAGES:
            raise NotMedia(f"it is a {image.format}, which no model makes")
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise NotMedia(f"it has {width} x {height} pixels, over the cap of {MAX_PIXELS // 1_000_000} megapixels")
        if see := _STRUCTURES.get(image.format):
            see(content)
        else:
            with DECODING.of(width, height):
                image.load()
                image.close()
        return Media(*_IMAGES[image.format], width, height)


def _see_png(content: Content) -> None:
    """Walk a PNG's chunks, each with its CRC-32, to its end."""
    at = 8
    with memoryview(content) as view:
        while at + 12 <= len(view):
            length, kind = struct.unpack_from(">I4s", view, at)
            after = at + 12 + length
            if after > len(view):
                break
            with view[at + 4 : after - 4] as covered:
                if zlib.crc32(covered) != struct.unpack_from(">I", view, after - 4)[0]:
                    raise NotMedia(f"it is damaged: a checksum of its {kind.decode('ascii', 'replace')} is wrong")
            if kind == b"IEND":
                return
            at = after
    raise NotMedia("it cannot be decoded: it ends too soon")


def _see_jpeg(content: Content) -> None:
    """Walk a JPEG's segments to its picture, and look for the mark of its end behind that."""
    at = 2
    while at + 4 <= len(content) and content[at] == _MARK:
        if content[at + 1] == _MARK:  # a mark may be filled up
            at += 1
            continue
        if content[at + 1] == _START_OF_SCAN:
            if content.rfind(b"\xff\xd9", at) < 0:
                break
            return
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    raise NotMedia("it cannot be decoded: it ends too soon")


def _see_webp(content: Content) -> None:
    if int.from_bytes(content[4:8], "little") + 8 > len(content):
        raise NotMedia("it cannot be decoded: it ends too soon")


_STRUCTURES: Final[Mapping[str, Callable[[Content], None]]] = {
    "PNG": _see_png,
    "JPEG": _see_jpeg,
    "MPO": _see_jpeg,
    "WEBP": _see_webp,
}


def _video(content: Content) -> Media | None:
    """Return what video this is, None for none. Raises NotMedia where it is cut off, or only begins like one."""
    head = content[:64]
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in {b"avif", b"avis", b"heic", b"mif1", b"heix"}:
            return None
        _see_boxes(content)
        return Media("mov", "video/quicktime") if brand == b"qt  " else Media("mp4", "video/mp4")
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return Media("webm", "video/webm") if b"webm" in head else Media("mkv", "video/x-matroska")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        _see_webp(content)  # another form of RIFF
        return Media("avi", "video/x-msvideo")
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
