"""A JSON Schema of manifests for editors, from the same models that read them."""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any, Final

from batcher.catalog import Model
from batcher.manifest.document import Document, ImagesSection, OutputSection, RowsFile, RowsGlob
from batcher.settings import Limits, Retry

TITLE: Final = "batcher manifest"
_TEMPLATE: Final = {"type": "string", "pattern": r"\{[{%]"}


def editor_schema(models: Iterable[Model]) -> dict[str, Any]:
    """Return the schema. Of these models the inputs are known by name; a template may stand for any value."""
    schema = Document.model_json_schema()
    for section in (RowsFile, RowsGlob, OutputSection, ImagesSection, Limits, Retry):
        _explain(schema["$defs"][section.__name__]["properties"], section)
    _explain(schema["properties"], Document)
    schema |= {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "allOf": [
            {
                "if": {"properties": {"model": {"const": model.id}}, "required": ["model"]},
                "then": {"properties": {"inputs": _inputs(model)}},
            }
            for model in models
        ],
    }
    return schema


def _explain(properties: dict[str, Any], section: type) -> None:
    """Add to each key what stands below it in the source. It is read here alone: reading it costs every start 30 ms."""
    body = ast.parse(textwrap.dedent(inspect.getsource(section))).body[0]
    statements = body.body if isinstance(body, ast.ClassDef) else []
    for key, said in pairwise(statements):
        match key, said:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                properties[name]["description"] = inspect.cleandoc(text)


def _inputs(model: Model) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: _or_template(one) for name, one in model.properties.items()},
        "additionalProperties": False,
    }


def _or_template(schema: Mapping[str, Any]) -> dict[str, Any]:
    said = {name: value for name, value in schema.items() if name in {"description", "default"}}
    plain = {name: value for name, value in schema.items() if name not in {"description", "default", "format"}}
    return {**said, "anyOf": [plain, _TEMPLATE]}
