"""Reads JSON that a proxy, a cache or a broken connection may have damaged, and finds request ids in it. Pure."""

import json
import math
import re
from collections.abc import Mapping
from typing import Final

LONGEST_ID: Final = 200
"""Characters of a request id."""
_DIGITS: Final = 300
"""Of a number; a longer one means nothing, and takes the square of its length to read."""
_NAMED: Final = re.compile(
    rb'"request_id"\s*:\s*(?:"([^"\\\x00-\x1f]{1,%d})"|(\d{1,40})(?=[\s,}]))' % LONGEST_ID,
)
_HINTED: Final = re.compile(
    r"""request_?id[\\"']*\s*[:=]\s*[\\"']*([\w][\w.:-]{3,199})|/requests/([\w][\w.:-]{3,199})""", re.IGNORECASE
)
_MOST_HINTS: Final = 3
"""Candidates for a request id that are shown to the user."""
_WORDS: Final = frozenset({"true", "false", "null", "none"})
"""What stands where an id would, and is none."""
_CODED: Final = re.compile(rb'"(?:error_)?code"\s*:\s*"?(\d{3,12})')


def readable(text: str) -> str:
    """Return a text that can be written down: half characters, which JSON and headers can carry, become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")


def parse(body: bytes) -> tuple[object, bool]:
    """Return the JSON value that a body holds, and whether the body is that value and nothing else.

    What is damaged around a value (junk before or after it, bytes that are no UTF-8) does not keep it from being read.
    The value is None where none can be.
    """
    sound = True
    try:
        text = body.decode(json.detect_encoding(body))
    except UnicodeDecodeError:
        text, sound = body.decode("utf-8", "replace"), False
    try:
        return _writable(_DECODER.decode(text)), sound
    except (ValueError, RecursionError):
        pass
    start = text.find("{")
    try:
        return _writable(_DECODER.raw_decode(text, max(0, start))[0]), False
    except (ValueError, RecursionError):
        return None, False


def named_id(value: object) -> str | None:
    """Return a request id as text if this value, a text or a whole number, can be one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_ID or not value.isprintable():
        return None
    return None if value in {".", ".."} else value  # which a path would lose


def salvaged_id(body: bytes) -> str | None:
    """Return the one request id that a body which is no JSON still names; None for a page, or where it names more."""
    if body.lstrip().startswith(b"<"):
        return None
    found = {text or number for text, number in _NAMED.findall(body)}
    return named_id(found.pop().decode("utf-8", "replace")) if len(found) == 1 else None


def hinted_ids(text: str) -> list[str]:
    """Return what in a text may be a request id: a user who finds it in the vendor's history can adopt it."""
    found = dict.fromkeys(one or other for one, other in _HINTED.findall(text))
    return [one for one in found if named_id(one) and one.lower() not in _WORDS][:_MOST_HINTS]


def codes_in(fields: Mapping[str, object], body: bytes) -> list[int]:
    """Return the HTTP statuses that the error codes of an answer begin with: of its JSON, one level down too.

    `fields`: those of the JSON that the body holds; where it has none, codes are looked for in the bytes.
    """
    if not fields:
        return [int(code[:3]) for code in _CODED.findall(body)]
    inner = [one for name in ("error", "detail") if isinstance(one := fields.get(name), dict)]
    found = (part.get(name) for part in (fields, *inner) for name in ("error_code", "code"))
    texts = (str(one) for one in found if one is not None and not isinstance(one, bool))
    return [int(text[:3]) for text in texts if text[:3].isascii() and text[:3].isdigit()]


def other_than(value: object, request_id: str) -> str | None:
    """Return what an answer names, where that is another request than this one; None also where it names none."""
    if value is None or value == "":
        return None
    named = str(value).strip() if isinstance(value, str | int) else json.dumps(value)
    return None if is_same_request(named, request_id) else readable(named)[:LONGEST_ID]


def is_same_request(one: str, other: str) -> bool:
    """Return whether two ids name one request: letter case and hyphens do not count."""
    return one == other or one.replace("-", "").lower() == other.replace("-", "").lower()


def _integer(text: str) -> float:
    return int(text) if len(text) <= _DIGITS else math.inf


_DECODER: Final = json.JSONDecoder(parse_int=_integer)


def _writable(value: object) -> object:
    """Return the value with texts that can be written down: half characters become `?`. Raises RecursionError."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [_writable(item) for item in value]
    return {readable(key): _writable(item) for key, item in value.items()} if isinstance(value, dict) else value
