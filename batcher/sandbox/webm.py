"""Writes a WebM film of VP8 frames, which every browser plays. A frame is what a lossy WebP picture holds."""

import io
import struct
from collections.abc import Sequence
from typing import Final

from PIL import Image

_QUALITY: Final = 80
"""WebP's quality of a film's frames."""
_CLUSTER: Final = 30_000
"""Milliseconds that a cluster's blocks may lie behind its beginning: they count in 16 bits."""


def webm(frames: Sequence[Image.Image], rate: int) -> bytes:
    """Write a film of frames of one size, so many a second."""
    width, height = frames[0].size
    milliseconds = [1000 * number // rate for number in range(len(frames) + 1)]
    video = _element(0xB0, _number(width)) + _element(0xBA, _number(height))
    track = b"".join(
        [
            _element(0xD7, _number(1)),  # its number
            _element(0x73C5, _number(1)),
            _element(0x83, _number(1)),  # of pictures
            _element(0x86, b"V_VP8"),
            _element(0xE0, video),
        ]
    )
    about = b"".join(
        [
            _element(0x2AD7B1, _number(1_000_000)),  # nanoseconds that times are counted in
            _element(0x4489, struct.pack(">d", milliseconds[-1])),
            _element(0x4D80, b"batcher"),
            _element(0x5741, b"batcher sandbox"),
        ]
    )
    clusters: dict[int, bytes] = {}
    for frame, at in zip(frames, milliseconds, strict=False):
        start = at - at % _CLUSTER
        block = b"\x81" + struct.pack(">hB", at - start, 0x80) + _vp8(frame)  # each can be shown by itself
        clusters[start] = clusters.get(start, _element(0xE7, _number(start))) + _element(0xA3, block)
    segment = _element(0x1549A966, about) + _element(0x1654AE6B, _element(0xAE, track))
    segment += b"".join(_element(0x1F43B675, cluster) for cluster in clusters.values())
    head = _element(0x4282, b"webm") + _element(0x4287, _number(2)) + _element(0x4285, _number(2))
    return _element(0x1A45DFA3, head) + _element(0x18538067, segment)


def _vp8(frame: Image.Image) -> bytes:
    """Return a picture as one VP8 frame."""
    out = io.BytesIO()
    frame.convert("RGB").save(out, "WEBP", quality=_QUALITY, method=2)
    content, at = out.getvalue(), 12
    while content[at : at + 4] != b"VP8 ":
        at += 8 + (int.from_bytes(content[at + 4 : at + 8], "little") + 1 & ~1)
    return content[at + 8 : at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")]


def _element(kind: int, body: bytes) -> bytes:
    """Write an element of EBML (RFC 8794): its id, the length of its body in eight bytes, its body."""
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (1 << 56 | len(body)).to_bytes(8, "big") + body


def _number(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
