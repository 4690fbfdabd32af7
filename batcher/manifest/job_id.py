"""What a job is known by: its canonical form (RFC 8785) and the id made of it."""

import hashlib
import struct
from collections.abc import Mapping
from typing import Final

import orjson
import rfc8785

_LONG: Final = struct.Struct("<q")
_EXACT: Final = 2**53 - 1
"""The largest whole number that every reader of JSON has exactly (RFC 7493, 2.2)."""


NotCanonical: Final = rfc8785.CanonicalizationError


def canonical(value: Mapping[str, object]) -> bytes:
    """Write inputs as RFC 8785 has it. Raises NotCanonical: of too large a number, or half a character."""
    if _is_plain(value):
        try:
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:  # half a character: the other library says so
            pass
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def _is_plain(value: object) -> bool:
    """Return whether plain JSON with sorted keys is canonical: no fractions, whose digits differ, and keys in ASCII."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -_EXACT <= value <= _EXACT  # type: ignore[operator]
    if kind is list:
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    if kind is not dict:
        return False
    for key, item in value.items():  # type: ignore[attr-defined]
        if not (type(key) is str and key.isascii()):
            return False
        if type(item) is not str and not _is_plain(item):
            return False
    return True


def fingerprint(content: bytes) -> int:
    """Return a number of 64 bits, with its sign, that stands for this content."""
    return _LONG.unpack_from(hashlib.sha256(content).digest())[0]  # type: ignore[no-any-return]


class JobIds:
    """Makes the ids of one model's jobs."""

    def __init__(self, model_id: str) -> None:
        self._model = b',"model":' + canonical({"": model_id})[len(b'{"":') : -1] + b',"sample":'

    def of(self, inputs: bytes, sample: int) -> str:
        """Return the id: 16 hexadecimal digits of SHA-256 over inputs, model and sample, in canonical form."""
        return hashlib.sha256(b'{"inputs":%b%b%d}' % (inputs, self._model, sample)).hexdigest()[:16]
