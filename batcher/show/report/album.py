"""Looks at pictures once: makes their thumbnails, and keeps what a flag needs to know. Knows no ledger and no page."""

import base64
import hashlib
import io
import json
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final, Literal, TextIO

from PIL import Image, ImageOps

from batcher.errors import WrongUse
from batcher.hosting.inline import open_regular
from batcher.outputs.output_folder import open_result
from batcher.pixel_budget import DECODING

FOLDER: Final = "thumbs"
THUMB: Final = 400
"""Pixels of a thumbnail's longer side."""
VIEW: Final = 1600
"""Pixels of the longer side of an original as the page shows it large."""
TINY: Final = 12
"""Pixels of the side of what is compared."""
_QUALITY: Final = 80
"""WebP's quality of thumbnails."""
_ORIENTATION: Final = 0x0112
"""The EXIF tag that tells how a picture is turned."""
_TURNED: Final = frozenset({5, 6, 7, 8})
"""Orientations of which width and height change places."""

DownloadTrouble = Literal["missing", "changed", "unreadable"]


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture is. Sizes in pixels, as it stands upright."""

    width: int
    height: int
    print: str
    """Whether each of 8x8 places is lighter than its neighbour: 16 hex digits, equal for near-equal pictures."""
    tiny: bytes
    """The picture at 12x12 pixels, RGB."""

    @property
    def contrast(self) -> int:
        """The largest difference in any colour between two places, 0 to 255."""
        return max(max(self.tiny[c::3]) - min(self.tiny[c::3]) for c in range(3))


@dataclass(frozen=True, slots=True)
class PictureToLook:
    """A picture to be looked at."""

    path: Path | str
    """A text names a result, relative to the run directory."""
    sha256: str
    original: bool = False
    """It is shown large from here too: the original may not travel with the run directory."""


class Album:
    """The thumbnails of a run directory, below `OUT/thumbs`, by the digest of what they were made of."""

    def __init__(self, out: Path) -> None:
        self._folder = out / FOLDER
        if self._folder.is_symlink():
            raise WrongUse(f"{self._folder} is a symbolic link: thumbnails are kept inside the run directory")
        self._folder.mkdir(exist_ok=True)
        self._looks: dict[str, PictureFacts] = {}
        self._writing = threading.Lock()
        self._troubles: dict[str, DownloadTrouble] = {}
        self._pool = ThreadPoolExecutor(max_workers=os.cpu_count() or 2, thread_name_prefix="thumbs")
        for sha256, look in _remembered(self._folder / "looks.jsonl"):
            self._looks[sha256] = look
        self._urls = dict(_noted(self._folder / "originals.jsonl"))
        self._file: TextIO = (self._folder / "looks.jsonl").open("a", encoding="utf-8")

    def close(self) -> None:
        """Keep what was seen for the next time."""
        self._pool.shutdown(cancel_futures=True)
        self._file.close()

    def look_at(self, wanted: Iterable[PictureToLook]) -> None:
        """Make the thumbnails that are not there yet."""
        fresh: dict[str, list[PictureToLook]] = {}
        for one in wanted:
            if not self._has(one):
                fresh.setdefault(one.sha256, []).append(one)
        for one, found in self._pool.map(self._first, fresh.values()):
            if isinstance(found, PictureFacts):
                self._remember(one.sha256, found)
            else:
                self._troubles[one.sha256] = found
        self._file.flush()

    def keep(self, url: str, content: bytes) -> bool:
        """Look at an original that was fetched, and remember it by its URL; return whether it could be seen."""
        one = PictureToLook(Path(), hashlib.sha256(content).hexdigest(), original=True)
        found = self._seen(content, one)
        if not isinstance(found, PictureFacts):
            return False
        with self._writing, (self._folder / "originals.jsonl").open("a", encoding="utf-8") as file:
            self._remember(one.sha256, found)
            file.write(json.dumps([url, one.sha256]) + "\n")
            self._urls[url] = one.sha256
        return True

    def by_url(self, url: str) -> str | None:
        """Return the digest of an original that was fetched from there."""
        return self._urls.get(url)

    def of(self, sha256: str) -> PictureFacts | None:
        """Return what a picture looks like, None where it could not be seen."""
        return self._looks.get(sha256)

    def trouble(self, sha256: str) -> DownloadTrouble | None:
        """Return why a picture could not be seen."""
        return self._troubles.get(sha256)

    @staticmethod
    def thumb(sha256: str) -> str:
        """Name a picture's thumbnail, relative to the run directory."""
        return f"{FOLDER}/{sha256[:2]}/{sha256[2:26]}.webp"

    @staticmethod
    def view(sha256: str) -> str:
        """Name the large form of an original, relative to the run directory."""
        return f"{FOLDER}/{sha256[:2]}/{sha256[2:26]}-large.webp"

    def _has(self, one: PictureToLook) -> bool:
        names = [self.thumb(one.sha256), *([self.view(one.sha256)] if one.original else [])]
        return one.sha256 in self._looks and all((self._folder.parent / name).is_file() for name in names)

    def _remember(self, sha256: str, look: PictureFacts) -> None:
        if sha256 not in self._looks:
            self._file.write(json.dumps([sha256, *_facts(look)]) + "\n")
        self._looks[sha256] = look

    def _first(self, same: list[PictureToLook]) -> tuple[PictureToLook, PictureFacts | DownloadTrouble]:
        """Look at the first of some files of one digest that is there; an output may be its own original."""
        original = any(one.original for one in same)
        found: PictureFacts | DownloadTrouble = "missing"
        for one in dict.fromkeys(replace(one, original=original) for one in same):
            found = self._make(one)
            if isinstance(found, PictureFacts):
                return one, found
        return same[0], found

    def _make(self, one: PictureToLook) -> PictureFacts | DownloadTrouble:
        try:
            with self._opened(one.path) as file:
                content = file.read()
        except OSError:
            return "missing"
        if hashlib.sha256(content).hexdigest() != one.sha256:
            return "changed"
        return self._seen(content, one)

    def _opened(self, path: Path | str) -> BinaryIO:
        return open_regular(path) if isinstance(path, Path) else open_result(self._folder.parent, path)

    def _seen(self, content: bytes, one: PictureToLook) -> PictureFacts | DownloadTrouble:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                return self._drawn(content, one)
        except Exception:  # noqa: BLE001 - decoders of damaged pictures raise what they like
            return "unreadable"

    def _drawn(self, content: bytes, one: PictureToLook) -> PictureFacts:
        side = VIEW if one.original else THUMB
        with Image.open(io.BytesIO(content)) as opened:
            width, height = opened.size  # before a draft makes it smaller
            turned = opened.getexif().get(_ORIENTATION, 1) in _TURNED
            opened.draft("RGB", (side, side))
            profile = opened.info.get("icc_profile")
            with DECODING.of(*opened.size):
                upright = ImageOps.exif_transpose(opened)
                picture = upright.convert("RGBA" if upright.has_transparency_data else "RGB")
                picture.thumbnail((side, side), Image.Resampling.LANCZOS)
                del upright
        if one.original:
            self._save(picture, self.view(one.sha256), profile)
        picture.thumbnail((THUMB, THUMB), Image.Resampling.LANCZOS)
        self._save(picture, self.thumb(one.sha256), profile)
        plain = picture.convert("RGB")
        tiny = plain.resize((TINY, TINY), Image.Resampling.BOX).tobytes()
        return PictureFacts(*((height, width) if turned else (width, height)), _print(plain), tiny)

    def _save(self, picture: Image.Image, name: str, profile: bytes | None) -> None:
        file = self._folder.parent / name
        file.parent.mkdir(exist_ok=True)
        draft = file.with_name(f"{file.name}.{os.getpid()}-{threading.get_ident()}.part")
        draft.unlink(missing_ok=True)
        with draft.open("xb") as made:
            picture.save(made, "WEBP", quality=_QUALITY, method=2, icc_profile=profile or b"")
        draft.replace(file)


def _print(picture: Image.Image) -> str:
    grey = picture.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = (grey[row * 9 + col] > grey[row * 9 + col + 1] for row in range(8) for col in range(8))
    return f"{sum(bit << place for place, bit in enumerate(bits)):016x}"


def _facts(look: PictureFacts) -> tuple[int, int, str, str]:
    return look.width, look.height, look.print, base64.b64encode(look.tiny).decode("ascii")


def _noted(file: Path) -> Iterator[tuple[str, str]]:
    """Read which originals were fetched, by URL."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                url, sha256 = json.loads(line)
                bytes.fromhex(sha256)  # it names files
                yield url, sha256
            except (ValueError, TypeError):
                continue


def _remembered(file: Path) -> Iterator[tuple[str, PictureFacts]]:
    """Read what was seen before; a line that was cut off is seen again."""
    if not file.is_file():
        return
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                sha256, width, height, print_, tiny = json.loads(line)
                bytes.fromhex(sha256)  # it names files
                yield sha256, PictureFacts(width, height, print_, base64.b64decode(tiny))
            except (ValueError, TypeError):
                continue
