"""Finds the files that patterns and folders name: whatever their letters' case, hidden ones left out, in order."""

import os
import re
from collections.abc import Iterable, Iterator
from fnmatch import translate
from pathlib import Path
from typing import Final

PHOTOS: Final = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"),
        *(".heic", ".heif", ".avif", ".tif", ".tiff", ".gif", ".bmp", ".psd"),
    }
)
"""Endings of files that a folder is searched for; those of the second line cannot be sent, and are named as such."""
_MAGIC: Final = re.compile(r"[*?\[]")


def files(patterns: str | Iterable[str], root: Path) -> list[Path]:
    """Return the files that patterns match, pattern by pattern, each sorted, each file once.

    A pattern is of files (`photos/*.jpg`), or names a folder, whose photos are meant; `**` stands for any number of
    folders, and at the end for the photos in all of them. It never goes into a run directory, or the same manifest
    would next take its own results for photos. Raises ValueError for what is no pattern, OSError.
    """
    found: dict[Path, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        found |= dict.fromkeys(sorted(_matches(pattern, root)))
    return [*found]


def _matches(pattern: str, root: Path) -> set[Path]:
    if not pattern.strip():
        raise ValueError("it is empty")
    if "\0" in pattern:
        raise ValueError("it has a NUL byte")
    path = Path(pattern)
    start = Path(path.anchor) if path.is_absolute() else root
    parts = path.relative_to(path.anchor).parts
    return set(_below(start, (*parts, "") if pattern.endswith("/") else parts))


def _below(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    """Yield the files that the parts of a pattern match below a folder; an empty part is the photos right in it."""
    if not parts or not parts[0]:
        yield from (one for one in _entries(folder) if is_photo(one) and one.is_file())
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _below(folder, rest)
        for one in _entries(folder):
            if one.is_dir() and not one.is_symlink() and not is_run(one):  # a link may lead back up
                yield from _below(one, parts)
        return
    for one in _named(folder, part):
        if one.is_dir():
            if rest or not _MAGIC.search(part):
                yield from _below(one, rest)
        elif not rest and one.is_file():
            yield one


def _named(folder: Path, part: str) -> Iterator[Path]:
    """Yield the entries of a folder that one part of a pattern matches."""
    if not _MAGIC.search(part):
        if part == ".." or (folder / part).exists():
            yield folder / part
            return
        part = part.replace("[", "[[]")
    wanted = re.compile(translate(part), re.IGNORECASE)
    yield from (one for one in _entries(folder, hidden=part.startswith(".")) if wanted.match(one.name))


def _entries(folder: Path, *, hidden: bool = False) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [folder / entry.name for entry in entries if hidden or not entry.name.startswith(".")]
    except NotADirectoryError:
        return []
    except FileNotFoundError:
        return []


def is_run(folder: Path) -> bool:
    """Return whether a folder is a run directory."""
    return (folder / "ledger.sqlite").exists()


def is_photo(path: Path) -> bool:
    """Return whether a file's name ends like a photo's."""
    return path.suffix.lower() in PHOTOS
