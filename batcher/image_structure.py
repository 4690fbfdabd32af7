"""Whether a picture's file is whole, told by its structure: a fiftieth of what it takes to decode it.

A PNG's checksums cover each of its bytes, a JPEG says where it ends, a WebP how long it is.
"""

import mmap
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Final

_MARK: Final = 0xFF
"""The byte that begins a JPEG's marker (ITU T.81, B.1.1.2)."""
_START_OF_SCAN: Final = 0xDA
"""The marker after which a JPEG's picture follows (ITU T.81, table B.1)."""

Content = bytes | mmap.mmap
"""A whole file, in memory or mapped."""


class NotWhole(Exception):
    """The file is cut off or damaged, and how."""


def check_whole(content: Content, kind: str) -> bool:
    """Raise NotWhole if a picture's file is cut off or damaged; return whether its structure tells.

    `kind` is the format as Pillow names it: `JPEG`. Where the structure does not tell, only decoding does.
    """
    check = _CHECKS.get(kind)
    if check is None:
        return False
    check(content)
    return True


def _check_png(content: Content) -> None:
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
                    raise NotWhole(f"it is damaged: a checksum of its {kind.decode('ascii', 'replace')} is wrong")
            if kind == b"IEND":
                return
            at = after
    raise NotWhole("it ends too soon")


def _check_jpeg(content: Content) -> None:
    """Walk a JPEG's segments to its picture, and look for the mark of its end behind that."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != _MARK:  # stray bytes between segments, which decoders skip
            at = content.find(b"\xff", at)
            if at < 0:
                break
            continue
        if content[at + 1] == _MARK:  # a mark may be filled up
            at += 1
            continue
        if content[at + 1] == _START_OF_SCAN:
            if content.rfind(b"\xff\xd9", at) < 0:
                break
            return
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    raise NotWhole("it ends too soon")


def check_riff(content: Content) -> None:
    """Raise NotWhole if a RIFF file (WebP, AVI) is shorter than it says."""
    if int.from_bytes(content[4:8], "little") + 8 > len(content):
        raise NotWhole("it ends too soon")


_CHECKS: Final[Mapping[str, Callable[[Content], None]]] = {
    "PNG": _check_png,
    "JPEG": _check_jpeg,
    "MPO": _check_jpeg,
    "WEBP": check_riff,
}
