"""Takes a token out of what a server says, however it is spelt: plainly, JSON-escaped, percent-encoded. Pure."""

import base64
import json
import re
from contextlib import suppress
from typing import Final

SHORTEST: Final = 8
"""Characters of a token that is looked for: a shorter one may be any word."""
GONE: Final = "***"


_USERINFO: Final = re.compile(r"(?<=://)[^/@\s'\"]*:[^/\s'\"]*@")


def without_passwords(text: str) -> str:
    """Return a text without the user names and passwords of URLs in it."""
    return _USERINFO.sub(f"{GONE}@", text)


class Redactor:
    """Replaces every spelling of a token by `***`; of one in two parts, `id:secret`, those of the secret alone too."""

    def __init__(self, token: str) -> None:
        secret = token.partition(":")[2]
        encoded = base64.b64encode(token.encode("utf-8", "surrogatepass")).decode().rstrip("=")
        known = [one for one in (token, secret) if len(one) >= SHORTEST]
        self._known = [one.encode("utf-8", "surrogatepass") for one in (*known, encoded)] if known else []
        self._spelt = re.compile(b"|".join(b"".join(map(_spellings, one)) for one in known)) if known else None

    def content(self, content: bytes) -> bytes:
        """Return the bytes of an answer without the token, in whatever encoding JSON may have."""
        if self._spelt is None:
            return content
        if b"\0" in content[:4]:
            encoding = json.detect_encoding(content)
            with suppress(UnicodeError):
                return self.text(content.decode(encoding)).encode(encoding)
        for one in self._known:
            if one in content:
                content = content.replace(one, GONE.encode())
        if b"\\" in content or b"%" in content:  # which few answers have
            content = self._spelt.sub(GONE.encode(), content)
        return content

    def text(self, text: str) -> str:
        """Return a text without the token."""
        if self._spelt is None or not text:
            return text
        encoded = text.encode("utf-8", "surrogatepass")
        clean = self.content(encoded)
        return text if clean == encoded else clean.decode("utf-8", "surrogatepass")


def _spellings(char: str) -> bytes:
    """Return a pattern of all ways in which one character may be written."""
    plain = char.encode("utf-8", "surrogatepass")
    units = char.encode("utf-16-be", "surrogatepass")
    escaped = b"".join(rb"\\+u(?i:%s)" % units[n : n + 2].hex().encode() for n in range(0, len(units), 2))
    percent = b"".join(rb"(?:%%|\\+u0025)(?:25)*(?i:%02x)" % byte for byte in plain)
    return rb"(?:\\*%s|%s|%s)" % (re.escape(plain), escaped, percent)
