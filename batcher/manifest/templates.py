"""Templates of a manifest: Jinja2, sandboxed, undefined names are faults. A row's values are never templates."""

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final

from jinja2 import TemplateError, UndefinedError, meta, nodes

from batcher.manifest.cells import ROW, Empty
from batcher.manifest.template_limits import MAX_LENGTH, bounded, checked, filling, guard, written

_ENDS_OF_LINES: Final = re.compile("\r\n?")
_PLAIN: Final = frozenset({str, int, float, bool, Empty})
"""Types whose text is what `str` says, quickly."""


_NO_CELL: Final = re.compile(r"cells\.RowCells object' has no attribute '(.*)'")
"""What Jinja says of a column that a row does not have."""


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
            raise BadTemplate(f"cannot be read as a template: {error}") from None
        self._parts = None if self.plain else _parts(_ENVIRONMENT.parse(text))

    @cached_property
    def names(self) -> frozenset[str]:
        """The variables it asks for."""
        return frozenset() if self.plain else frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(self.text)))

    @cached_property
    def cells(self) -> frozenset[str]:
        """The columns that it asks for by `row["..."]`."""
        return frozenset() if self.plain else _cells(_ENVIRONMENT.parse(self.text))

    @cached_property
    def reads_row(self) -> bool:
        """Whether it reads a column of the row as a whole, by `row["..."]` or `row.name`."""
        return not self.plain and _reads_row(_ENVIRONMENT.parse(self.text))

    @cached_property
    def written(self) -> frozenset[str]:
        """The variables and columns whose text goes into it whatever they hold: not within `if`, not with a default."""
        return frozenset() if self.plain else _written(_ENVIRONMENT.parse(self.text))

    def fill(self, values: Mapping[str, object]) -> str:
        """Fill it in. Raises BadTemplate."""
        if self._parts is not None and (filled := _joined(self._parts, values)) is not None:
            return filled
        template = self._template
        if template is None:
            return self.text
        with filling(values, self._field):
            return str(_careful(lambda: template.render(values)))


def _cells(parsed: nodes.Template) -> frozenset[str]:
    """Return the columns that are read of the row as a whole, by names that are written out."""
    return frozenset(cell for node in parsed.find_all(nodes.Getitem) if (cell := _cell(node)) is not None)


def _reads_row(parsed: nodes.Template) -> bool:
    of = [part.node for part in parsed.find_all(nodes.Getitem)] + [part.node for part in parsed.find_all(nodes.Getattr)]
    return any(isinstance(node, nodes.Name) and node.name == ROW for node in of)


def _cell(node: nodes.Expr) -> str | None:
    """Return the column that `row["..."]` reads, None for any other expression."""
    match node:
        case nodes.Getitem(node=nodes.Name(name=name), arg=nodes.Const(value=str(column))) if name == ROW:
            return column
    return None


def _written(parsed: nodes.Template) -> frozenset[str]:
    found = set()
    for output in parsed.body:
        for node in output.nodes if isinstance(output, nodes.Output) else ():
            inner: nodes.Expr | None = node
            while isinstance(inner, nodes.Filter):
                inner = None if inner.name in {"default", "d"} else inner.node
            if isinstance(inner, nodes.Name):
                found.add(inner.name)
            elif inner is not None and (cell := _cell(inner)) is not None:
                found.add(cell)
    return frozenset(found)


def _parts(parsed: nodes.Template) -> list[tuple[str, str]] | None:
    """Return the texts and names that a template of nothing else alternates between: (text, name after it) pairs."""
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
            parsed = _ENVIRONMENT.parse("{{ " + text + " }}")
            self.names = meta.find_undeclared_variables(parsed)
            """What it asks for."""
            self.cells = _cells(parsed)
            self.reads_row = _reads_row(parsed)
            """The columns that it asks for by `row["..."]`."""
        except (TemplateError, RecursionError) as error:
            raise BadTemplate(f"cannot be read as an expression: {error}") from None

    def holds(self, values: Mapping[str, object]) -> bool:
        """Return whether it is true of these variables. Raises BadTemplate."""
        with filling(values, "--where"):
            return bool(_careful(lambda: bool(written(self._holds(**values)))))


def _careful(fill: Callable[[], Any]) -> Any:  # noqa: ANN401 - a text or a truth value
    try:
        result = fill()
    except UndefinedError as error:
        if missing := _NO_CELL.search(str(error.message)):
            raise BadTemplate(f"the row has no column `{missing.group(1)}`") from None
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
