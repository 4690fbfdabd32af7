"""Looks at a local image once, and turns it into a `data:` URI when its job is sent. Knows no manifest."""

import base64
import errno
import hashlib
import io
import json
import math
import mmap
import os
import stat
import warnings
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from batcher.hosting.file_facts import FactsByPath, FileFacts
from batcher.image_structure import NotWhole, check_whole
from batcher.job import SEED, Image, Spec
from batcher.pixel_budget import DECODING

MAX_BYTES: Final = 6 * 2**20
"""Bytes of a local image that is sent as it is (`docs/manifest.md`)."""
MAX_PIXELS: Final = 32_000_000
"""Pixels of a local image that is sent."""
MAX_REQUEST: Final = 64 * 2**20
"""Bytes of a request with its images inside, where the provider allows no less."""
_MAGIC: Final = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"RIFF": "WebP"}
_MIME: Final = {"JPEG": "image/jpeg", "MPO": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
"""By Pillow's name. MPO is a JPEG with further pictures behind the first, as phones and stereo cameras write it."""
_BLOCK: Final = 2**20
"""Bytes that are read at once."""
_HEAD: Final = 2**16
"""Bytes around the pixels of an image, and around the images of a request."""
_QUALITIES: Final = (92, 85, 75, 60)
"""JPEG qualities that are tried in turn until an image is small enough."""


_HEIC: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""Brands of ISO 23008-12 files, which phones write; AVIF has its own."""
_MOST_DECODED: Final = 100_000
"""Digests of photos that are known to decode: some 10 MB."""


class ImageNotUsable(Exception):
    """The image cannot be sent, and why."""

    def __init__(self, message: str, problem: str = "broken") -> None:
        """`problem`: what is the matter, in a word: `missing`, `broken`, `too large`, or the format's name."""
        super().__init__(message)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a local image is."""

    sha256: str
    bytes: int
    format: str
    width: int
    height: int


class KnownImageFacts(Protocol):
    """What earlier runs found at a path: a dictionary, or a ledger."""

    def get(self, path: str, /) -> FileFacts | None:
        """Return the facts of a path, None where it is not known."""
        ...


class ImageFactsCache:
    """Remembers looks by path, size and time of change, so that an unchanged file is not read again."""

    def __init__(self, known: KnownImageFacts | None = None) -> None:
        self._known: KnownImageFacts = known or {}
        self.fresh = FactsByPath()
        """What was read anew."""

    def at(self, path: Path) -> ImageFacts:
        """Look at a file. Raises ImageNotUsable where it is missing or no image."""
        try:
            found = path.stat()
        except (OSError, ValueError):  # a NUL byte in its name
            raise ImageNotUsable(f"{path} does not exist", "missing") from None
        if not stat.S_ISREG(found.st_mode):
            raise ImageNotUsable(f"{path} is not a regular file", "missing")
        key = str(path)
        for known in (self.fresh.get(key), self._known.get(key)):
            if known and known[:2] == (found.st_size, found.st_mtime_ns):
                return ImageFacts(**json.loads(known[2]))
        look = _look(path)
        self.fresh.put(key, (found.st_size, found.st_mtime_ns, json.dumps(asdict(look))))
        return look


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file to be read; a pipe or a device is not waited for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "is not a regular file")
    return os.fdopen(fd, "rb")


def _look(path: Path) -> ImageFacts:
    try:
        with open_regular(path) as file:
            return _look_into(file, str(path))
    except OSError as error:
        raise ImageNotUsable(f"{path} cannot be read: {error.strerror}") from None


def _look_into(file: IO[bytes], name: str) -> ImageFacts:
    """Look at an image that is open at its beginning. Raises ImageNotUsable where it is none; OSError is the disk's."""
    digest = hashlib.sha256()
    size = 0
    head = b""
    while block := file.read(_BLOCK):
        head = head or block[:_HEAD]
        digest.update(block)
        size += len(block)
    file.seek(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(file) as image:
                found, (width, height) = str(image.format), image.size
                image.verify()
        _check_whole(file, found)
    except NotWhole as cut:
        raise ImageNotUsable(f"{name} is a {found} that is cut off ({cut}): copy it again") from None
    except (UnidentifiedImageError, Pillow.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise _unreadable(name, head) from None
    return ImageFacts(digest.hexdigest(), size, found, width, height)


def _check_whole(file: IO[bytes], kind: str) -> None:
    """Raise NotWhole if an image's file is cut off or damaged, as far as its structure tells."""
    try:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # in memory, or where nothing can be mapped
        file.seek(0)
        check_whole(file.read(), kind)
        return
    with mapped:
        check_whole(mapped, kind)


def _unreadable(name: str, head: bytes) -> ImageNotUsable:
    """Return what to say of a file that Pillow cannot open, by its first bytes."""
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC:
        return ImageNotUsable(f"{name} is a HEIC photo; {_converted('HEIC')}", "HEIC")
    if head[4:8] == b"ftyp" and head[8:12] in {b"avif", b"avis"}:
        return ImageNotUsable(f"{name} is an AVIF; {_converted('AVIF')}", "AVIF")
    begins = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)
    if begins:
        return ImageNotUsable(
            f"{name} begins like a {begins}, and cannot be read: it is cut off or damaged; copy it again"
        )
    if not head:
        return ImageNotUsable(f"{name} is empty; copy it again")
    helps = "convert it, or give an https URL"
    return ImageNotUsable(f"{name} is not a JPEG, PNG or WebP that can be read; {helps}", "no picture")


def _converted(kind: str) -> str:
    """Return how a photo of another format is made one that can be sent."""
    how = "`heif-convert IN.heic OUT.jpg`" if kind == "HEIC" else "`magick IN OUT.jpg`"
    return (
        "local images are sent as JPEG, PNG or WebP: convert it "
        f"(macOS: `sips -s format jpeg IN --out OUT.jpg`; Linux: {how}), or give an https URL"
    )


def why_not(look: ImageFacts, max_side: int | None) -> ImageNotUsable | None:
    """Return why an image cannot be sent inline, and what helps; None where it can."""
    if look.format not in _MIME:
        article = "an" if look.format[0] in "AEIOU" else "a"
        return ImageNotUsable(f"is {article} {look.format}; {_converted(look.format)}", look.format)
    if shrinks(look, max_side):
        return None
    helps = "set `images: {max_side: 4096}` to have larger photos shrunk, or give an https URL"
    if look.bytes > MAX_BYTES:
        message = f"has {look.bytes / 2**20:.1f} MiB; local images are sent up to 6 MiB: {helps}"
        return ImageNotUsable(message, "too large")
    if look.width * look.height > MAX_PIXELS:
        message = f"has {look.width * look.height / 1e6:.0f} megapixels; local images are sent up to 32: {helps}"
        return ImageNotUsable(message, "too large")
    return None


def why_no_data_uri(text: str, kinds: Collection[str]) -> str | None:
    """Return why a data URI of the manifest cannot be sent, None where it can. `kinds`: `image`, `video`, `audio`."""
    head, comma, body = text.partition(",")
    kind = head.partition(":")[2].partition("/")[0].strip().lower()
    if not comma or kind not in kinds:
        return f"is a data URI that is not an {' or '.join(sorted(kinds))}; it begins with {text[:40]!r}"
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
    except ImageNotUsable as unusable:
        return str(unusable)
    return f"the data URI {problem}" if problem else None


def shrinks(look: ImageFacts, max_side: int | None) -> bool:
    """Return whether `max_side` has this image re-encoded."""
    return max_side is not None and (max(look.width, look.height) > max_side or look.bytes > MAX_BYTES)


def at_most(look: ImageFacts, max_side: int | None) -> int:
    """Return the bytes that are sent of an image; where it is shrunk, more than they can come to."""
    if max_side is None or not shrinks(look, max_side):
        return look.bytes
    scale = min(1.0, _side(look.width, look.height, max_side) / max(look.width, look.height))
    return min(look.bytes, MAX_BYTES, int(3 * look.width * look.height * scale**2) + _HEAD)


def _side(width: int, height: int, max_side: int) -> int:
    """Return the longest side that an image is shrunk to: the one set, or less where that has too many pixels."""
    return min(max_side, int(max(width, height) * math.sqrt(MAX_PIXELS / (width * height))))


def body(spec: Spec, root: Path, seed: int | None = None) -> bytes:
    """Build a job's request body, its images read now. Raises ImageNotUsable where one has vanished or changed.

    `root` is the manifest's folder; `seed`: of this attempt, where it has one of its own.
    """
    inputs = json.loads(json.dumps(spec.inputs))
    if seed is not None:
        inputs[SEED] = seed
    for image in spec.images:
        _put(inputs, image.field, data_uri(image, root))
    built = json.dumps(inputs, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    if len(built) > MAX_REQUEST + _HEAD:
        raise ImageNotUsable(f"its request has {len(built) / 2**20:.0f} MiB; it takes 64 MiB")
    return built


def _put(value: object, path: tuple[str | int, ...], text: str) -> None:
    for part in path[:-1]:
        value = value[part]  # type: ignore[index]
    value[path[-1]] = text  # type: ignore[index]


def data_uri(image: Image, root: Path) -> str:
    """Read an image as the manifest meant it, shrunk if asked for. Raises ImageNotUsable."""
    path = root / image.path
    try:
        with open_regular(path) as file:
            content = file.read()
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise
        raise ImageNotUsable(f"{image.path} can no longer be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != image.sha256:
        raise ImageNotUsable(f"{image.path} has changed since the manifest was read: run the manifest again")
    try:
        content, mime = _encoded(content, image)
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # its structure was sound when it was looked at
        raise ImageNotUsable(f"{image.path} cannot be decoded: {error}") from None
    return f"data:{mime};base64,{base64.b64encode(content).decode('ascii')}"


_decoded: Final[dict[str, None]] = {}
"""Digests of photos that were decoded whole: what many jobs send is decoded once."""


def _encoded(content: bytes, image: Image) -> tuple[bytes, str]:
    """Return what is sent of a photo, once all of it has been decoded. Raises what Pillow does."""
    max_side = image.max_side
    with Pillow.open(io.BytesIO(content)) as picture:
        if max_side is not None and (max(picture.size) > max_side or len(content) > MAX_BYTES):
            if picture.format in {"JPEG", "MPO"}:
                picture.draft("RGB", (max_side, max_side))
            with DECODING.of(*picture.size):
                return _shrunk(picture, max_side)
        if image.sha256 not in _decoded:
            with DECODING.of(*picture.size):
                picture.load()
            if len(_decoded) < _MOST_DECODED:
                _decoded[image.sha256] = None
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
    raise ImageNotUsable(f"it has over 6 MiB even at {max_side} pixels: set a smaller images.max_side")
