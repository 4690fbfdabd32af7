"""Looks at a local image once, and turns it into a `data:` URI when its job is sent. Knows no manifest."""

import base64
import errno
import hashlib
import io
import json
import math
import os
import stat
import warnings
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final

from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from batcher.job import Image, Spec
from batcher.pixels import DECODING

MAX_BYTES: Final = 6 * 2**20
MAX_PIXELS: Final = 32_000_000
MAX_REQUEST: Final = 64 * 2**20
_MIME: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
_BLOCK: Final = 2**20
_HEAD: Final = 2**16
"""Bytes around the pixels of an image, and around the images of a request."""
_QUALITIES: Final = (92, 85, 75, 60)


class NotUsable(Exception):
    """The image cannot be sent, and why."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a local image is."""

    sha256: str
    bytes: int
    format: str
    width: int
    height: int


class Looks:
    """Remembers looks by path, size and time of change, so that an unchanged file is not read again."""

    def __init__(self, known: Mapping[str, tuple[int, int, str]] | None = None) -> None:
        self._known = dict(known or {})
        self.fresh: dict[str, tuple[int, int, str]] = {}
        """What was read anew: path -> size, mtime in ns, facts as JSON."""

    def at(self, path: Path) -> Look:
        """Look at a file. Raises NotUsable where it is missing or no image."""
        try:
            found = path.stat()
        except (OSError, ValueError):  # a NUL byte in its name
            raise NotUsable(f"{path} does not exist") from None
        if not stat.S_ISREG(found.st_mode):
            raise NotUsable(f"{path} is no regular file")
        key = str(path)
        size, mtime, facts = self._known.get(key, (-1, -1, ""))
        if (size, mtime) == (found.st_size, found.st_mtime_ns):
            return Look(**json.loads(facts))
        look = _look(path)
        self._known[key] = self.fresh[key] = (found.st_size, found.st_mtime_ns, json.dumps(asdict(look)))
        return look


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to be read; a pipe or a device is not waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is no regular file")
    return os.fdopen(fd, "rb")


def _look(path: Path) -> Look:
    try:
        with open_regular(path) as file:
            return _look_into(file, str(path))
    except OSError as error:
        raise NotUsable(f"{path} cannot be read: {error.strerror}") from None


def _look_into(file: IO[bytes], name: str) -> Look:
    """Look at an image that is open at its beginning. Raises NotUsable where it is none; OSError is the disk's."""
    digest = hashlib.sha256()
    size = 0
    while block := file.read(_BLOCK):
        digest.update(block)
        size += len(block)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(file) as image:
                found, (width, height) = str(image.format), image.size
                image.verify()
    except (UnidentifiedImageError, Pillow.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise NotUsable(f"{name} is no JPEG, PNG or WebP that can be read; convert it, or give an https URL") from None
    return Look(digest.hexdigest(), size, found, width, height)


def why_not(look: Look, max_side: int | None) -> str | None:
    """Say why an image cannot be sent inline, and what helps; None where it can."""
    if look.format not in _MIME:
        return f"is a {look.format}; local images are sent as JPEG, PNG or WebP: convert it, or give an https URL"
    if shrinks(look, max_side):
        return None
    helps = "set `images: {max_side: 4096}` to have larger photos shrunk, or give an https URL"
    if look.bytes > MAX_BYTES:
        return f"has {look.bytes / 2**20:.1f} MiB; local images are sent up to 6 MiB: {helps}"
    if look.width * look.height > MAX_PIXELS:
        return f"has {look.width * look.height / 1e6:.0f} megapixels; local images are sent up to 32: {helps}"
    return None


def why_no_data_uri(text: str, kinds: Collection[str]) -> str | None:
    """Return why a data URI of the manifest cannot be sent, None where it can. `kinds`: `image`, `video`, `audio`."""
    head, comma, body = text.partition(",")
    kind = head.partition(":")[2].partition("/")[0].strip().lower()
    if not comma or kind not in kinds:
        return f"is a data URI that is no {' or '.join(sorted(kinds))}; it begins with {text[:40]!r}"
    if not head.rstrip().lower().endswith(";base64"):
        return "is a data URI without `;base64`"
    if len(body) > MAX_REQUEST:
        return f"is a data URI of {len(body) / 2**20:.0f} MiB; a request takes 64 MiB"
    try:
        content = base64.b64decode(body, validate=True)
    except ValueError as error:
        return f"is a data URI that cannot be decoded: {error}"
    if kind != "image":
        return None
    try:
        problem = why_not(_look_into(io.BytesIO(content), "the data URI"), None)
    except NotUsable as why:
        return str(why)
    return f"the data URI {problem}" if problem else None


def shrinks(look: Look, max_side: int | None) -> bool:
    """Say whether `max_side` has this image re-encoded."""
    return max_side is not None and (max(look.width, look.height) > max_side or look.bytes > MAX_BYTES)


def at_most(look: Look, max_side: int | None) -> int:
    """Give the bytes that are sent of an image; where it is shrunk, more than they can come to."""
    if max_side is None or not shrinks(look, max_side):
        return look.bytes
    scale = min(1.0, _side(look.width, look.height, max_side) / max(look.width, look.height))
    return min(look.bytes, MAX_BYTES, int(3 * look.width * look.height * scale**2) + _HEAD)


def _side(width: int, height: int, max_side: int) -> int:
    """Give the longest side that an image is shrunk to: the one set, or less where that has too many pixels."""
    return min(max_side, int(max(width, height) * math.sqrt(MAX_PIXELS / (width * height))))


def body(spec: Spec, root: Path) -> bytes:
    """Build a job's request body, its images read now. Raises NotUsable where one has vanished or changed.

    `root` is the manifest's folder.
    """
    inputs = json.loads(json.dumps(spec.inputs))
    for image in spec.images:
        _put(inputs, image.field, data_uri(image, root))
    built = json.dumps(inputs, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(built) > MAX_REQUEST + _HEAD:
        raise NotUsable(f"its request has {len(built) / 2**20:.0f} MiB; it takes 64 MiB")
    return built


def _put(value: object, path: tuple[str | int, ...], text: str) -> None:
    for part in path[:-1]:
        value = value[part]  # type: ignore[index]
    value[path[-1]] = text  # type: ignore[index]


def data_uri(image: Image, root: Path) -> str:
    """Read an image as the manifest meant it, shrunk if asked for. Raises NotUsable."""
    path = root / image.path
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        raise NotUsable(f"{image.path} can no longer be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise NotUsable(f"{image.path} has changed since the manifest was read: run the manifest again")
    try:
        content, mime = _encoded(content, image.max_side)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # cut off: its head was sound when it was looked at
        raise NotUsable(f"{image.path} cannot be decoded: {error}") from None
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(content: bytes, max_side: int | None) -> tuple[bytes, str]:
    with Pillow.open(io.BytesIO(content)) as picture:
        if max_side is not None and (max(picture.size) > max_side or len(content) > MAX_BYTES):
            if picture.format == "JPEG":
                picture.draft("RGB", (max_side, max_side))
            with DECODING.of(*picture.size):
                return _shrunk(picture, max_side)
        return content, _MIME[str(picture.format)]


def _shrunk(picture: Pillow.Image, max_side: int) -> tuple[bytes, str]:
    """Turn upright, shrink and re-encode until it fits: WebP where it is transparent and small, else JPEG."""
    upright = ImageOps.exif_transpose(picture)
    side = _side(*upright.size, max_side)
    upright.thumbnail((side, side), Pillow.Resampling.LANCZOS)
    profile = picture.info.get("icc_profile")
    if upright.has_transparency_data:
        out = io.BytesIO()
        upright.save(out, "WEBP", quality=92, icc_profile=profile)
        if out.tell() <= MAX_BYTES:
            return out.getvalue(), "image/webp"
    plain = upright.convert("RGB")
    for quality in _QUALITIES:
        out = io.BytesIO()
        plain.save(out, "JPEG", quality=quality, icc_profile=profile, subsampling=0)
        if out.tell() <= MAX_BYTES:
            return out.getvalue(), "image/jpeg"
    raise NotUsable(f"it has over 6 MiB even at {max_side} pixels: set a smaller images.max_side")
