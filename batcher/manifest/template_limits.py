"""Templates that cannot run for long or grow large, and that depend on nothing but their row.

A time limit would not do: one multiplication or one padded number is a single call in C, which no alarm interrupts.
So every operation that can make much of little checks how much first, and all of one filling draw from one allowance.
What has no text of its own, such as a method, is refused: its text is an address, another one at each start, and would
make another job of the same row.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Final, cast

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.filters import make_attrgetter
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from batcher.manifest.cells import EMPTY, of_the_row

MAX_LENGTH: Final = 1_000_000
"""Characters, or items, that anything in a template may have."""
MAX_BITS: Final = 20_000
"""Of a number."""
MAX_TURNS: Final = 100_000
"""Of all loops of one template together."""
MAX_WORK: Final = 5_000_000
"""Characters, or items, that all operations of one template together may go through: a second or two."""
_EACH: Final = 20
"""What an operation costs of that, whatever it goes through."""
_HEAVY: Final = {
    "sort": 10,
    "list": 5,
    "slug": 10,
    "wordwrap": 10,
    "title": 5,
    "striptags": 5,
    "unique": 5,
    "groupby": 10,
}
"""Filters that take longer than others, and how much, for each character."""
_SEQUENCES: Final = frozenset(
    {
        *("list", "join", "first", "last", "sum", "min", "max", "sort", "unique", "length", "count", "batch", "slice"),
        *("groupby", "map", "select", "reject", "selectattr", "rejectattr", "random", "reverse", "default", "d"),
    }
)
"""Filters that take what is not made yet: what `map` and `select` give."""
MAX_WIDTH: Final = 10_000
"""That anything is padded to."""
_PAD: Final = 100
"""Characters of what a filter pads with."""
_PADDING: Final = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_METHODS: Final[Mapping[type, frozenset[str]]] = {
    str: frozenset(
        {
            *("capitalize", "casefold", "lower", "swapcase", "title", "upper", "strip", "lstrip", "rstrip", "replace"),
            *("removeprefix", "removesuffix", "split", "rsplit", "splitlines", "partition", "rpartition", "join"),
            *("count", "find", "rfind", "index", "rindex", "startswith", "endswith", "isalnum", "isalpha", "isascii"),
            *("isdecimal", "isdigit", "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle"),
            *("isupper", *_PADDING),
        }
    ),
    dict: frozenset({"get", "items", "keys", "values"}),
    list: frozenset({"count", "index"}),
    tuple: frozenset({"count", "index"}),
    int: frozenset({"bit_count", "bit_length", "is_integer"}),
    float: frozenset({"is_integer"}),
    LoopContext: frozenset(
        {
            *("index", "index0", "revindex", "revindex0", "first", "last", "length", "depth", "depth0", "previtem"),
            *("nextitem", "cycle", "changed"),
        }
    ),
}
"""What a template may call or read of a value, by its type; the values of a mapping it reads by their keys."""
_WIDE: Final = re.compile(r"%(\([^)]*\))?[^a-zA-Z%(]*(\d{5,}|\*)")
_EACH_LINE: Final = frozenset({"indent", "tojson"})
_TEXTS: Final = frozenset({str, bytes})
_LEAVES: Final = _TEXTS | {int, float, bool, type(None)}
"""Types of values that have a text of their own, and nothing within them."""
_FILTERS: Final = frozenset(
    {
        *("abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape", "first"),
        *("filesizeformat", "float", "forceescape", "format", "groupby", "indent", "int", "items", "join", "last"),
        *("length", "list", "lower", "map", "max", "min", "random", "reject", "rejectattr", "replace", "reverse"),
        *("round", "safe", "select", "selectattr", "slice", "sort", "string", "striptags", "sum", "title", "tojson"),
        *("trim", "truncate", "unique", "upper", "urlencode", "wordcount", "wordwrap"),
    }
)
"""Filters of Jinja's that templates may use. One that a later Jinja adds is not bounded, so it is not here."""
_PADDING_FILTERS: Final = ("center", "indent", "wordwrap", "truncate", "batch", "slice", "round", "tojson")
_NODES: Final = frozenset(
    {
        *(nodes.Template, nodes.Output, nodes.TemplateData, nodes.Const, nodes.Name, nodes.List, nodes.Tuple),
        *(nodes.Dict, nodes.Pair, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Call, nodes.Keyword, nodes.Filter),
        *(nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add),
        *(nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow, nodes.Concat, nodes.CondExpr),
        *(nodes.If, nodes.For, nodes.Assign, nodes.AssignBlock, nodes.With, nodes.FilterBlock),
    }
)
"""What a template may be made of. What a later Jinja adds is refused until it is bounded."""


class Filling:
    """One filling of a template: what its loops and operations may still take, and where its chance comes from."""

    def __init__(self, values: Mapping[str, object], field: str) -> None:
        self._turns = MAX_TURNS
        self._work = MAX_WORK
        self._values = values
        self._field = field
        self._drawn = 0
        self._seed = b""

    def turns(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, while the allowance lasts."""
        for item in items:
            self._turns -= 1
            if self._turns < 0:
                raise SecurityError(f"its loops take over {MAX_TURNS:,} turns")
            yield item

    def spend(self, work: int) -> None:
        """Charge so much to the allowance of all operations together."""
        self._work -= work + _EACH
        if self._work < 0:
            raise SecurityError(f"its operations go through over {MAX_WORK:,} characters or items in all")

    def draw(self, count: int) -> int:
        """Return a number from 0 to below `count`, which the row, the sample and the field decide, and nothing else.

        The row's number is left out: a row that is put in before it changes no other.
        """
        if not self._seed:
            row = {name: value for name, value in of_the_row(self._values).items() if name != "index"}
            text = json.dumps([self._field, row], sort_keys=True, default=str)
            self._seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        self._drawn += 1
        digest = hashlib.sha256(self._seed + self._drawn.to_bytes(4, "big")).digest()
        return int.from_bytes(digest[:8], "big") % count


_FILLING: Final[ContextVar[Filling]] = ContextVar("filling")


@contextmanager
def filling(values: Mapping[str, object], field: str) -> Iterator[None]:
    """Begin to fill a template of this field with these values: what is spent within counts for it."""
    token = _FILLING.set(Filling(values, field))
    try:
        yield
    finally:
        _FILLING.reset(token)


def _now() -> Filling:
    """Return the filling that is under way; one of its own for what a template computes once, as it is read."""
    return _FILLING.get(None) or Filling({}, "")


class Bounded(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, with every operation bounded."""

    intercepted_binops = frozenset({"+", "*", "**", "%", "//", "-"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401
        """Do an operation whose result is not too large."""
        _now().spend(_plain_size(left) + _plain_size(right))
        if operator == "**":
            _power(left, right)
        elif operator == "*":
            _product(left, right)
        elif operator == "+":
            _length(_plain_size(left) + _plain_size(right))
        elif operator == "%" and isinstance(left, str | bytes) and _WIDE.search(str(left)):
            raise SecurityError("a number is padded too far")
        elif operator == "%":
            written(right) if isinstance(left, str | bytes) else small(right)
        result = super().call_binop(context, operator, left, right)
        if isinstance(result, int) and result.bit_length() > MAX_BITS:
            raise SecurityError("a number is too large")
        return result

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Call what a template calls, if what comes of it is not too large."""
        owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        _now().spend(_plain_size(owner) + sum(map(_plain_size, args)))
        if isinstance(owner, str | bytes):
            if name in _PADDING:
                _narrow(*args, *kwargs.values())
                _expanded(owner, name, [*args, *kwargs.values()])
            elif name == "replace" and len(args) > 1:
                _replaced(str(owner), str(args[0]), str(args[1]))
            elif name == "join" and args:
                return self.call_filter("join", args[0], [owner])
        return super().call(context, function, *args, **kwargs)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:  # noqa: ANN401
        """Return whether a template may have this attribute."""
        allowed = any(attr in names for kind, names in _METHODS.items() if isinstance(obj, kind))
        return allowed and super().is_safe_attribute(obj, attr, value)


def bounded() -> Bounded:
    """Make the environment that all templates share."""
    environment = Bounded(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, finalize=written)
    environment.globals.clear()
    environment.filters = {name: plain for name, plain in environment.filters.items() if name in _FILTERS}
    for name in _PADDING_FILTERS:
        environment.filters[name] = _narrowed(name, environment.filters[name])
    environment.filters["format"] = _formatted
    environment.filters["replace"] = _replacing(environment.filters["replace"])
    environment.filters["join"] = _joined(environment.filters["join"])
    environment.filters["sum"] = _summed
    environment.filters["random"] = _drawn
    environment.filters["default"] = environment.filters["d"] = _defaulted(environment.filters["default"])
    environment.tests["defined"] = _is_defined
    environment.tests["undefined"] = lambda value: not _is_defined(value)
    for name in ("string", "sequence"):
        environment.tests[name] = _of_a_value(environment.tests[name])
    environment.filters["concatenated"] = _concatenated
    for name in environment.filters:
        guard(environment, name)
    environment.filters["weighed"] = _weighed
    environment.filters["counted_turns"] = _counted_turns
    return environment


def guard(environment: Environment, name: str) -> None:
    """Bound a filter of this environment."""
    environment.filters[name] = _guarded(name, environment.filters[name])


def checked(environment: Bounded, text: str) -> nodes.Template:
    """Read a template, with its loops counted and its concatenations measured. Raises TemplateSyntaxError."""
    tree = environment.parse(text)
    for node in tree.find_all(nodes.Node):
        if type(node) not in _NODES:
            raise TemplateSyntaxError(f"{type(node).__name__.lower()} is not used in manifests", node.lineno)
    for loop in tree.find_all(nodes.For):
        if loop.recursive:
            raise TemplateSyntaxError("recursive loops are not used in manifests", loop.lineno)
        loop.iter = _through("counted_turns", loop.iter)
    for compared in tree.find_all(nodes.Compare):
        compared.expr = _through("weighed", compared.expr)
        for one in compared.ops:
            one.expr = _through("weighed", one.expr)
    for part in tree.find_all(nodes.Getitem):
        if isinstance(part.arg, nodes.Slice):
            part.node = _through("weighed", part.node)
    for test in tree.find_all(nodes.Test):
        if test.name not in {"defined", "undefined"}:
            test.node = _through("weighed", test.node)
    _measure(tree)
    return tree


def _measure(node: nodes.Node) -> None:
    """Put a measured join in the place of each `~`."""
    for field, value in node.iter_fields():
        if isinstance(value, list):
            value[:] = [_measured(one) for one in value]
        else:
            setattr(node, field, _measured(value))
    for child in node.iter_child_nodes():
        _measure(child)


def _measured(one: Any) -> Any:  # noqa: ANN401 - a node, or whatever a node has
    if not isinstance(one, nodes.Concat):
        return one
    return _through("concatenated", nodes.List(one.nodes, lineno=one.lineno))


def _through(name: str, node: nodes.Node) -> nodes.Filter:
    """Put a filter of ours around an expression."""
    return nodes.Filter(cast("nodes.Expr", node), name, [], [], None, None, lineno=node.lineno)


def small(value: Any) -> Any:  # noqa: ANN401
    """Return the value if it can be written out: a few nested lists can unfold to more than fits anywhere."""
    if isinstance(value, list | tuple | dict) and _deep_size(value, {}) > MAX_LENGTH:
        raise SecurityError(f"it unfolds to over {MAX_LENGTH:,} items")
    return value


def written(value: Any) -> Any:  # noqa: ANN401
    """Return the value if it has a text of its own. Raises SecurityError for a method, a generator, an undefined."""
    if isinstance(value, str):
        _now().spend(len(value))
        return value
    if value is None or isinstance(value, int | float):
        return value
    _check_leaves(small(value), set())
    return value


def _check_leaves(value: Any, known: set[int]) -> None:  # noqa: ANN401
    if isinstance(value, list | tuple | dict):
        if id(value) not in known:
            known.add(id(value))
            if not isinstance(value, dict) and _LEAVES.issuperset(map(type, value)):
                return  # a long and plain list is looked at in one go
            for part in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
                _check_leaves(part, known)
        return
    if isinstance(value, Undefined):
        str(value)  # it says what is undefined
    if not (value is None or isinstance(value, str | int | float | bytes)):
        raise SecurityError(_what(value))


def _what(value: Any) -> str:  # noqa: ANN401
    """Return what a value is that has no text, and what may have been meant."""
    if isinstance(value, Iterable) and not callable(value):
        return f"gives a {type(value).__name__}, which has no text: add `| list`, or `| join(', ')`"
    name = getattr(value, "__name__", "")
    meant = f": call it, as in `{name}()`, or use a filter" if name else ""
    return f"gives a {type(value).__name__.replace('_', ' ')}, which has no text{meant}"


def _deep_size(value: Any, known: dict[int, int]) -> int:  # noqa: ANN401
    """Count characters and items of what a value unfolds to; each part is looked at once."""
    if isinstance(value, str | bytes):
        return len(value)
    if not isinstance(value, list | tuple | dict):
        return 1
    if id(value) not in known:
        known[id(value)] = 0
        if not isinstance(value, dict) and _TEXTS.issuperset(map(type, value)):
            known[id(value)] = 1 + sum(map(len, value))
            return known[id(value)]
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_deep_size(part, known) for part in parts)
    return known[id(value)]


def _plain_size(value: Any) -> int:  # noqa: ANN401
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _length(length: int) -> None:
    if length > MAX_LENGTH:
        raise SecurityError(f"it would make over {MAX_LENGTH:,} characters or items")


def _power(left: Any, right: Any) -> None:  # noqa: ANN401
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_BITS:
        raise SecurityError("a number is too large")


def _product(left: Any, right: Any) -> None:  # noqa: ANN401
    if isinstance(right, int) and _plain_size(left):
        _length(_plain_size(left) * right)
    elif isinstance(left, int) and _plain_size(right):
        _length(_plain_size(right) * left)
    elif isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > MAX_BITS:
        raise SecurityError("a number is too large")


def _narrow(*arguments: object) -> None:
    if any(isinstance(one, int) and abs(one) > MAX_WIDTH for one in arguments):
        raise SecurityError(f"it is padded to over {MAX_WIDTH:,} characters")


def _expanded(text: str | bytes, name: str, widths: list[Any]) -> None:
    """Count what tabs become."""
    if name == "expandtabs":
        width = next((one for one in widths if isinstance(one, int)), 8)
        tabs = text.count("\t") if isinstance(text, str) else text.count(b"\t")
        _length(len(text) + tabs * abs(width))


def _guarded(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that takes and gives nothing that unfolds too far, and takes nothing that has no text."""
    weight, check = _HEAVY.get(name, 1), small if name in _SEQUENCES else written

    @wraps(plain)
    def guarded(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        work = 0
        for one in (*args, *kwargs.values()):
            if isinstance(one, Environment | Context | EvalContext | Undefined):
                continue
            if callable(one):
                raise SecurityError(_what(one))
            work += _plain_size(check(one))
        _now().spend(weight * work)
        result = plain(*args, **kwargs)
        if isinstance(result, str):
            _length(len(result))
        return small(result)

    return guarded


def _narrowed(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that takes no large number, and pads with little."""

    @wraps(plain)
    def narrow(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        said = [one for one in (*args, *kwargs.values()) if not isinstance(one, Environment | Context | EvalContext)]
        value, how = (said[0], said[1:]) if said else ("", [])
        _narrow(*how)
        if any(len(one) > _PAD for one in how if isinstance(one, str)):
            raise SecurityError(f"what it is padded with has over {_PAD} characters")
        size = _deep_size(value, {})
        width = max((one for one in how if isinstance(one, int)), default=0) if name in _EACH_LINE else 0
        lines = value.count("\n") + 1 if isinstance(value, str) else size
        _length(size + lines * width)
        return plain(*args, **kwargs)

    return narrow


def _formatted(text: Any, *args: Any, **kwargs: Any) -> str:  # noqa: ANN401
    if _WIDE.search(str(text)):
        raise SecurityError("a number is padded too far")
    return str(text) % (kwargs or args)  # measured by its guard


def _replaced(text: str, old: str, new: str) -> None:
    _length(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _replacing(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def replacing(context: Any, text: Any, old: Any, new: Any, count: int | None = None) -> Any:  # noqa: ANN401
        _replaced(str(text), str(old), str(new))
        return plain(context, str(text), str(old), str(new), count)

    return replacing


def _joined(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def joined(context: Any, items: Any, between: Any = "", attribute: Any = None) -> Any:  # noqa: ANN401
        found = list(_now().turns(items))
        if attribute is not None:
            found = [*map(make_attrgetter(context.environment, attribute), found)]
        _length(sum(len(str(written(one))) for one in found) + len(found) * len(str(between)))
        text = plain(context, found, str(between))
        _length(len(text))
        return text

    return joined


def _defaulted(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return the filter `default`, for which an empty cell has no value."""

    @wraps(plain)
    def defaulted(value: Any, default: Any = "", boolean: bool = False) -> Any:  # noqa: ANN401 - Jinja's
        return default if value is EMPTY else plain(value, default, boolean)

    return defaulted


def _of_a_value(plain: Any) -> Callable[[Any], bool]:  # noqa: ANN401 - as Jinja has its tests
    """Return a test of Jinja's that an empty cell does not pass, as what has no value does not."""
    return lambda value: value is not EMPTY and bool(plain(value))


def _is_defined(value: object) -> bool:
    """Return whether a name has a value: an empty cell has none."""
    return value is not EMPTY and not isinstance(value, Undefined)


def _summed(items: Iterable[Any], attribute: Any = None, start: float = 0) -> Any:  # noqa: ANN401
    """Add numbers; to add lists takes the square of their number."""
    found = list(_now().turns(items))
    if attribute is not None:
        found = [one[attribute] for one in found]
    if not all(isinstance(one, int | float) for one in [*found, start]):
        raise SecurityError("only numbers are added up")
    return sum(found, start)


def _concatenated(parts: list[Any]) -> str:
    texts = [str(written(part)) for part in parts]
    _length(sum(map(len, texts)))
    return "".join(texts)


def _weighed(value: Any) -> Any:  # noqa: ANN401
    """Return the value, and count what it takes to go through it."""
    _now().spend(_plain_size(value))
    return value


def _counted_turns(items: Any) -> Iterator[Any]:  # noqa: ANN401
    """Yield the items of a loop, each a turn."""
    return _now().turns(items)


@pass_context
def _drawn(_context: Context, items: Any) -> Any:  # noqa: ANN401
    """Return one of the items by chance: the same one for the same row, sample and field, at each start.

    With a context it is no filter that Jinja computes once, as it reads the template, where it is given a constant.
    """
    found = list(_now().turns(items))
    if not found:
        raise SecurityError("`random` has nothing to choose from")
    return found[_now().draw(len(found))]
