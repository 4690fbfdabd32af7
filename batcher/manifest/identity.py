"""What a job is known by: its canonical form (RFC 8785) and the id made of it."""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

import rfc8785

_EXACT: Final = 2**53 - 1
_plain = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False).encode


def canonical(value: Mapping[str, object]) -> bytes:
    """Write inputs as RFC 8785 has it. Raises rfc8785.CanonicalizationError."""
    if _is_plain(value):
        try:
            return _plain(value).encode()
        except UnicodeEncodeError:  # half a character: the library says so
            pass
    return rfc8785.dumps(value)  # type: ignore[arg-type]


def _is_plain(value: object) -> bool:
    """Say whether Python's own JSON is the canonical one: no fractions, whose digits differ, and keys in ASCII."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return -_EXACT <= value <= _EXACT  # type: ignore[operator]
    if kind is list:
        return all(map(_is_plain, value))  # type: ignore[call-overload]
    if kind is dict:
        return all(type(key) is str and key.isascii() and _is_plain(item) for key, item in value.items())  # type: ignore[attr-defined]
    return False


def digest(content: bytes) -> bytes:
    """Give 16 bytes that stand for this content."""
    return hashlib.sha256(content).digest()[:16]


class Ids:
    """Makes the ids of one model's jobs."""

    def __init__(self, model_id: str) -> None:
        self._model = b',"model":' + canonical({"": model_id})[len(b'{"":') : -1] + b',"sample":'

    def of(self, inputs: bytes, sample: int) -> str:
        """Give the id: the first 16 hexadecimal digits of the SHA-256 of inputs, model and sample in canonical form."""
        return hashlib.sha256(b'{"inputs":%b%b%d}' % (inputs, self._model, sample)).hexdigest()[:16]
