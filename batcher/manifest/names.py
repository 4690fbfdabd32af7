"""File names that are safe on every system, by one rule; and which of them would be the same file."""

import re
import unicodedata
from typing import Final

MAX_PART: Final = 200
"""Bytes of a part of a file's name: file systems take 255, and an extension is added."""
_RESERVED: Final = re.compile(r"^(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³])(\..*)?$", re.IGNORECASE)
_FORBIDDEN: Final = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]')


def safe_name(text: str, room: int = 0) -> str:
    """Make a relative file name of a text: `/` parts it into folders. `room` bytes are kept free in the last part."""
    parts = [part for part in (_safe_part(part) for part in unicodedata.normalize("NFC", text).split("/")) if part]
    if not parts:
        return "_"
    return "/".join([*(_cut(part, MAX_PART) for part in parts[:-1]), _cut(parts[-1], MAX_PART - room)])


def _safe_part(part: str) -> str:
    part = _FORBIDDEN.sub("_", part.encode("utf-8", "replace").decode("utf-8"))
    part = part.strip().rstrip(". ")
    if part.startswith("."):
        part = "_" + part.lstrip(".")
    return f"_{part}" if _RESERVED.match(part) else part


def _cut(part: str, most: int) -> str:
    encoded = part.encode("utf-8")
    if len(encoded) <= most:
        return part
    return encoded[:most].decode("utf-8", "ignore").rstrip(". ")


def folded(name: str) -> str:
    """Return what two names share that are one file somewhere: letter case and Unicode form left out."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", name).casefold())
