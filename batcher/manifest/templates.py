"""Templates of a manifest: Jinja2, sandboxed, undefined names are faults. A row's values are never templates."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

from jinja2 import TemplateError, UndefinedError, meta, nodes

from batcher.manifest.bounds import MAX_LENGTH, bounded, checked, filling, guard, written

_ENDS_OF_LINES: Final = re.compile("\r\n?")
_PLAIN: Final = frozenset({str, int, float, bool})
"""Types whose text is what `str` says, quickly."""


class BadTemplate(Exception):
    """A template cannot be read or filled in, and why."""


def slug(value: object) -> str:
    """Keep letters and digits of every script (NFC, lower case); turn the rest into single hyphens."""
    if (text := str(value)).isascii():
        return "-".join(text.lower().translate(_ASCII_GAPS).split())
    kept = ""
    for char in unicodedata.normalize("NFC", str(value)).lower():
        kind = unicodedata.category(char)[0]
        word = kind in "LN" or (kind == "M" and not kept.endswith("-"))  # a mark belongs to the letter before it
        kept += char if word else "-"
    return re.sub("-+", "-", unicodedata.normalize("NFC", kept)).strip("-")


_ASCII_GAPS: Final = {code: " " for code in range(128) if not chr(code).isalnum()}
_ENVIRONMENT: Final = bounded()
_ENVIRONMENT.filters["slug"] = slug
guard(_ENVIRONMENT, "slug")


class Template:
    """One text with `{{ }}` in it, of a field (`inputs.prompt`). Raises BadTemplate when it cannot be read."""

    def __init__(self, text: str, field: str = "") -> None:
        self._field = field
        self.text = text = _ENDS_OF_LINES.sub("\n", text)  # as Jinja has them
        self.plain = "{{" not in text and "{%" not in text and "{#" not in text
        try:
            self._template = None if self.plain else _ENVIRONMENT.from_string(checked(_ENVIRONMENT, text))
        except (TemplateError, RecursionError) as error:
            raise BadTemplate(f"is no template that can be read: {error}") from None
        self._parts = None if self.plain else _parts(_ENVIRONMENT.parse(text))

    @cached_property
    def names(self) -> frozenset[str]:
        """The variables it asks for."""
        return frozenset() if self.plain else frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(self.text)))

    def fill(self, values: Mapping[str, object]) -> str:
        """Fill it in. Raises BadTemplate."""
        if self._parts is not None and (filled := _joined(self._parts, values)) is not None:
            return filled
        template = self._template
        if template is None:
            return self.text
        with filling(values, self._field):
            return str(_careful(lambda: template.render(values)))


def _parts(parsed: nodes.Template) -> list[tuple[str, str]] | None:
    """Give the texts and names that a template of nothing else alternates between: (text, name after it) pairs."""
    found: list[tuple[str, str]] = []
    text = ""
    for output in parsed.body:
        if not isinstance(output, nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                text += node.data
            elif isinstance(node, nodes.Name) and node.name not in _ENVIRONMENT.globals:
                found.append((text, node.name))
                text = ""
            else:
                return None
    return [*found, (text, "")]


def _joined(parts: list[tuple[str, str]], values: Mapping[str, object]) -> str | None:
    """Fill in a template of texts and names as Jinja does; None where a name has no value, or it grows too long."""
    filled = ""
    for text, name in parts:
        if not name:
            filled += text
            break
        value = values.get(name, _PLAIN)
        if type(value) not in _PLAIN:
            return None
        filled += text + str(value)
    return filled if len(filled) <= MAX_LENGTH else None


class Condition:
    """A `--where` expression over a row's variables."""

    def __init__(self, text: str) -> None:
        try:
            self._holds = _ENVIRONMENT.compile_expression(text, undefined_to_none=False)
            self.names = meta.find_undeclared_variables(_ENVIRONMENT.parse("{{ " + text + " }}"))
            """What it asks for."""
        except (TemplateError, RecursionError) as error:
            raise BadTemplate(f"is no expression that can be read: {error}") from None

    def holds(self, values: Mapping[str, object]) -> bool:
        """Return whether it is true of these variables. Raises BadTemplate."""
        with filling(values, "--where"):
            return bool(_careful(lambda: bool(written(self._holds(**values)))))


def _careful(fill: Callable[[], Any]) -> Any:  # noqa: ANN401 - a text or a truth value
    try:
        result = fill()
    except UndefinedError as error:
        raise BadTemplate(f"{error.message} here: no column, matrix or variable of that name has a value") from None
    except (
        TemplateError,
        ArithmeticError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise BadTemplate(f"the template cannot be filled in: {error}") from None
    except MemoryError:
        raise BadTemplate("the template needs too much memory") from None
    if isinstance(result, str) and len(result) > MAX_LENGTH:
        raise BadTemplate(f"gives over {MAX_LENGTH:,} characters")
    return result
