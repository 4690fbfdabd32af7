"""Undoes the compression of an answer, which may be cut, damaged, or said and not there. Pure."""

import zlib
from contextlib import suppress
from typing import Final

_GZIP: Final = b"\x1f\x8b"
_LAYERS: Final = 3
"""Compressions of one body, one within the other."""
_SLICE: Final = 2048
"""Bytes that are decoded at once: what is damaged costs no more than these."""


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return what a compressed body holds, as far as it can be read: up to `limit` bytes.

    `encoding`: what the answer's header says. A body that is not what the header says is returned as it came.
    """
    for _ in range(_LAYERS):
        if not body.startswith(_GZIP) and not {"gzip", "x-gzip", "deflate"} & {
            one.strip().lower() for one in encoding.split(",")
        }:
            break
        inner = _inflated(body, limit)
        if not inner:
            break
        body, encoding = inner, ""
    return body


def _inflated(body: bytes, limit: int) -> bytes:
    """Return what comes of a gzip or zlib stream until it ends or breaks, of a bare deflate one that is whole."""
    stream, found = zlib.decompressobj(zlib.MAX_WBITS | 32), bytearray()
    for at in range(0, len(body), _SLICE):
        before, part = stream.copy(), body[at : at + _SLICE]
        try:
            found += stream.decompress(part, limit)
        except zlib.error:
            found += _up_to_the_break(before, part, limit)
            break
        if stream.eof or len(found) >= limit:
            break
    if not found:  # it has no mark to be known by: anything is one, for some bytes
        bare = zlib.decompressobj(-zlib.MAX_WBITS)
        with suppress(zlib.error):
            whole = bare.decompress(body, limit)
            return whole if bare.eof else b""
    return bytes(found[:limit])


def _up_to_the_break(stream: "zlib._Decompress", part: bytes, limit: int) -> bytes:
    """Return what the bytes before the broken one hold."""
    found = bytearray()
    with suppress(zlib.error):
        for n in range(len(part)):
            found += stream.decompress(part[n : n + 1], limit)
    return bytes(found)
