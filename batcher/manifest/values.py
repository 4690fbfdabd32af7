"""Reads a text as the model's schema wants it: a number, a truth value, an array. What cannot be read stays a text."""

import json
from collections.abc import Callable, Mapping
from typing import Final

_TRUTH: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def reader(schema: Mapping[str, object]) -> Callable[[object], object]:
    """Return `as_wanted` for one schema, quick for a text where a text is wanted."""
    wanted = _types(schema)
    if wanted and "string" not in wanted:
        return lambda value: as_wanted(value, schema)
    return lambda value: value if type(value) is str else as_wanted(value, schema)


def as_wanted(value: object, schema: Mapping[str, object]) -> object:
    """Read a value that may have come as text; the schema then judges what it has become."""
    wanted = _types(schema)
    if isinstance(value, str):
        if "string" in wanted or not wanted:
            return value
        return _read(value, wanted, schema)
    if "array" in wanted and "string" not in wanted:
        items = schema.get("items")
        if isinstance(value, list) and isinstance(items, dict):
            return [as_wanted(item, items) for item in value]
    if "string" in wanted and not {"number", "integer", "boolean"} & wanted and isinstance(value, int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return value


def _types(schema: Mapping[str, object]) -> set[str]:
    found = schema.get("type")
    if isinstance(found, str):
        return {found}
    if isinstance(found, list):
        return {str(one) for one in found} - {"null"}
    types: set[str] = set()
    for key in ("anyOf", "oneOf"):
        options = schema.get(key)
        for option in options if isinstance(options, list) else []:
            if isinstance(option, dict):
                types |= _types(option)
    return types


def _read(text: str, wanted: set[str], schema: Mapping[str, object]) -> object:
    stripped = text.strip()
    if "boolean" in wanted and stripped.lower() in _TRUTH:
        return _TRUTH[stripped.lower()]
    if {"integer", "number"} & wanted:
        try:
            if stripped.lstrip("+-").isdecimal():
                return int(stripped)  # exactly: a float has no room for long ones
            number = float(stripped)
        except ValueError:
            return text
        if number.is_integer() and ("integer" in wanted or "." not in stripped):
            return int(number)
        return number if "number" in wanted else text
    if "array" in wanted:
        return _array(stripped, schema)
    if "object" in wanted:
        return _json(stripped, dict, text)
    return text


def _array(text: str, schema: Mapping[str, object]) -> object:
    if text.startswith("["):
        found = _json(text, list, None)
        if isinstance(found, list):
            return found
    items = schema.get("items")
    parts: list[object] = [part.strip() for part in text.split("|") if part.strip()]
    return [as_wanted(part, items) for part in parts] if isinstance(items, dict) else parts


def _json(text: str, kind: type, otherwise: object) -> object:
    try:
        found = json.loads(text)
    except ValueError:
        return otherwise
    return found if isinstance(found, kind) else otherwise
