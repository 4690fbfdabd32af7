"""Images that are not what they seem."""

import io
import zlib

from PIL import Image


def damaged_png() -> bytes:
    """Return a PNG each of whose checksums is right, and half of whose pixels are not there."""
    made = io.BytesIO()
    Image.effect_noise((200, 200), 90).convert("RGB").save(made, "PNG")
    content, out, at = made.getvalue(), b"\x89PNG\r\n\x1a\n", 8
    while at < len(content):
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        body = content[at + 8 : at + 8 + length]
        body = body[: length // 2] if kind == b"IDAT" else body
        out += len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        at += 12 + length
    return out
