"""Reads YAML by PyYAML's safe loader, and keeps the line of every key and item for faults."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

Path = tuple[str | int, ...]
_ODD: Final = {
    "tag:yaml.org,2002:set": "a `!!set`",
    "tag:yaml.org,2002:binary": "`!!binary` bytes",
    "tag:yaml.org,2002:omap": "an `!!omap`",
    "tag:yaml.org,2002:pairs": "`!!pairs`",
    "tag:yaml.org,2002:timestamp": "a `!!timestamp`",
}
"""Tags of values that no JSON has."""
_MOST_NODES: Final = 2_000_000
"""Values that a YAML document may unfold to through its aliases."""
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class NotYaml(Exception):
    """The text is no YAML, and where."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class _Loader(_BASE):  # type: ignore[misc]
    """Scalars as YAML 1.2 reads them: `1:1` is a text and not 61, `no` is a text, and so is `007`."""

    yaml_implicit_resolvers: Mapping[str, object] = {}


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9]*)$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+0123456789."),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN\0"),
    ("merge", r"^(?:<<)$", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), [*_first, *([""] if _tag == "null" else [])]
    )


@dataclass(frozen=True, slots=True)
class YamlWithLines:
    """A YAML document's value, and where its parts stand. Lines count from 1."""

    value: object
    lines: Mapping[Path, int] = field(repr=False)
    repeated: tuple[tuple[int, str], ...] = ()
    """Keys that stand twice in one mapping: (line, key)."""

    def line(self, *path: str | int) -> int:
        """Return the line of a part, or of the nearest part around it that is known."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def load(text: str) -> YamlWithLines:
    """Read one document. Raises NotYaml."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return YamlWithLines(None, {})
        _bound(node, {})
        _refuse_odd(node)
        lines: dict[Path, int] = {}
        repeated: list[tuple[int, str]] = []
        _mark(node, (), lines, repeated)
        return YamlWithLines(loader.construct_document(node), lines, tuple(repeated))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or str(error)
        if "tag" in problem:
            problem += "; only plain values are read"
        raise NotYaml(mark.line + 1 if mark else 1, f"cannot be read as YAML: {problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise NotYaml(1, f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise NotYaml(1, "is nested too deeply") from None
    finally:
        loader.dispose()


def _bound(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count what a node unfolds to, aliases and all; few bytes can stand for billions of values."""
    known = sizes.get(id(node))
    if known is not None:
        if known < 0:
            raise NotYaml(node.start_mark.line + 1, "has an anchor that contains itself")
        return known
    sizes[id(node)] = -1
    size = 1 + sum(_bound(child, sizes) for child in _children(node))
    if size > _MOST_NODES:
        raise NotYaml(node.start_mark.line + 1, f"unfolds to over {_MOST_NODES:,} values: its aliases multiply")
    sizes[id(node)] = size
    return size


def _refuse_odd(node: yaml.Node) -> None:
    """Raise NotYaml for a value that JSON has not, and that has no order or no text of its own."""
    waiting, seen = [node], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if (name := _ODD.get(one.tag)) is not None:
            message = f"cannot be read as YAML: it has {name}: write a list or a text"
            raise NotYaml(one.start_mark.line + 1, message)
        waiting.extend(_children(one))


def _children(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _mark(node: yaml.Node, path: Path, lines: dict[Path, int], repeated: list[tuple[int, str]]) -> None:
    if len(path) > 3:  # noqa: PLR2004 - jobs.0.field.0 is as deep as a fault points
        return
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen and name != "<<":
                repeated.append((key.start_mark.line + 1, name))
            seen.add(name)
            lines[(*path, name)] = key.start_mark.line + 1
            _mark(value, (*path, name), lines, repeated)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[(*path, index)] = item.start_mark.line + 1
            _mark(item, (*path, index), lines, repeated)
