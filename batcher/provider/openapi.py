"""Takes the schema of a model's input out of its OpenAPI document. Pure."""

from collections.abc import Mapping
from typing import Final

_WITHIN: Final = "#/components/schemas/"


def input_schema(document: Mapping[str, object], model_id: str) -> dict[str, object] | None:
    """Return the JSON Schema of what is posted to a model, whole in itself; None where the document has none.

    What it refers to elsewhere in the document is put beside it, under `$defs`.
    """
    paths = document.get("paths")
    posted = _at(paths, f"/{model_id}", "post") or _first_posted(paths)
    schema = _at(posted, "requestBody", "content", "application/json", "schema")
    components = _at(document, "components", "schemas")
    if not isinstance(schema, dict):
        return None
    known = components if isinstance(components, dict) else {}
    named = str(schema.get("$ref", ""))
    if named.startswith(_WITHIN):
        schema = known.get(named.removeprefix(_WITHIN))
    if not isinstance(schema, dict):
        return None
    moved = _moved(schema)
    if not isinstance(moved, dict):
        return None
    defs = {name: _moved(one) for name, one in known.items()} if _WITHIN in str(schema) else {}
    return {**moved, "$defs": defs} if defs else moved


def _first_posted(paths: object) -> object:
    """Return the one operation that takes a body, where the path is written in another way."""
    found = (
        [one["post"] for one in paths.values() if isinstance(one, dict) and "post" in one]
        if (isinstance(paths, dict))
        else []
    )
    return found[0] if len(found) == 1 else None


def _at(value: object, *names: str) -> object:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _moved(value: object) -> object:
    """Return a schema whose references lead to `$defs`."""
    if isinstance(value, list):
        return [_moved(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        key: f"#/$defs/{one.removeprefix(_WITHIN)}"
        if key == "$ref" and isinstance(one, str) and one.startswith(_WITHIN)
        else _moved(one)
        for key, one in value.items()
    }
