"""Rows of jobs from an inline list, a CSV or JSONL file, or a glob: as a stream, with the line each starts on."""

import codecs
import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from batcher.errors import Fault
from batcher.manifest import globs
from batcher.manifest.document import RowsFile
from batcher.manifest.faults import Faults, did_you_mean

MAX_CELL: Final = 32 * 2**20
"""Bytes of a cell of a table."""
_DELIMITERS: Final = ",;\t"
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Row(NamedTuple):
    """One row: its values by name, and where it stands. A cell that was empty is not there."""

    number: int
    """From 1, the header not counted."""
    line: int
    """Of the file, where the row starts."""
    values: Mapping[str, object]
    cells: Sequence[str] = ()
    """As they stood, in CSV; of a bad line of JSONL, that line."""
    problem: str = ""
    """Why no job can be made of it."""
    empty: Sequence[str] = ()
    """Names whose cell is there and empty."""
    file: str = ""
    """The photo that the row is, where there is no table."""


class BadRows(Exception):
    """The file cannot be read on from here."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


class Rows:
    """A file of rows. `header` is known once iteration has begun, for CSV."""

    def __init__(self, path: Path, label: str, form: RowsFile, faults: Faults) -> None:
        self.path = path
        self.label = label
        self.header: list[str] | None = None
        self._also: list[tuple[str, int]] = []
        """Further names of columns that have several, and where these stand."""
        self._names: list[str] = []
        """All names that a row may have a value of."""
        self._form = form
        self._faults = faults

    def __iter__(self) -> Iterator[Row]:
        suffix = self.path.suffix.lower()
        read = self._read_jsonl if suffix in {".jsonl", ".ndjson"} else self._read_csv
        try:
            with self._opened() as text:
                yield from read(text)
        except BadRows as bad:
            self._faults.add(Fault(self.label, bad.line, "", str(bad)))
        except UnicodeError as error:
            self._faults.add(Fault(self.label, _bad_line(self.path), "", self._not_text(error)))
        except LookupError:
            self._faults.add(
                Fault(self.label, 1, "encoding", f"`{self._form.encoding}` is not an encoding; try utf-8 or cp1252")
            )
        except OSError as error:
            self._faults.add(Fault(self.label, 1, "", f"cannot be read: {error.strerror}"))

    def _not_text(self, error: UnicodeError) -> str:
        if self._form.encoding:
            return f"is not in the encoding {self._form.encoding}: {error}"
        return "has bytes that are not UTF-8; say its encoding: `jobs: {file: ..., encoding: cp1252}`"

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        with self.path.open("rb") as file:
            head = file.read(4096)
        if not head.strip():
            raise BadRows(1, "is empty")
        if not self._form.encoding and (head[:2] in _UTF16 or b"\0" in head[:200]):
            raise BadRows(1, "is UTF-16 or binary; save it as UTF-8, or say `encoding: utf-16`")
        encoding = self._form.encoding or "utf-8"
        codecs.lookup(encoding)
        if encoding.lower().replace("_", "-") in {"utf-8", "utf8"}:
            encoding = "utf-8-sig"
        with self.path.open(encoding=encoding, newline="") as text:
            yield text

    def _read_csv(self, text: TextIO) -> Iterator[Row]:
        csv.field_size_limit(MAX_CELL)
        first = text.readline()
        reader = csv.reader(_chained(first, text), delimiter=self._delimiter(first), strict=True)
        try:
            header = self._header(next(reader))
            filled = self._filled_columns(header)
            line, number = reader.line_num + 1, 0
            above: dict[int, str] = {}
            for cells in reader:
                if cells:
                    number += 1
                    _fill_down(cells, filled, above)
                    yield self._row(number, line, header, cells)
                line = reader.line_num + 1
        except csv.Error as error:
            raise BadRows(reader.line_num, f"cannot be read as CSV from here on: {error}") from None
        except StopIteration:
            raise BadRows(1, "has no header line") from None

    def _delimiter(self, first: str) -> str:
        if self._form.delimiter:
            return self._form.delimiter
        outside = "".join(first.split('"')[::2])
        return max(_DELIMITERS, key=lambda one: (outside.count(one), -_DELIMITERS.index(one)))

    def _header(self, cells: list[str]) -> list[str | None]:
        """Return each column's name as templates know it; None for a column without a heading."""
        self.header = cells
        names = [cell.strip() for cell in cells]
        for name in sorted({name for name in names if name and names.count(name) > 1}):
            self._faults.add(Fault(self.label, 1, name, "is the heading of two columns; give each its own"))
        renamed: dict[str, str] = {}
        for name, heading in self._form.columns.items():
            if renamed.setdefault(heading, name) != name and heading in names:
                self._also.append((name, names.index(heading)))
        for heading in renamed.keys() - set(names):
            self._faults.add(
                Fault(
                    self.label,
                    1,
                    f"columns.{renamed[heading]}",
                    f"there is no column `{heading}`" + did_you_mean(heading, names),
                )
            )
        found = [renamed.get(name, name) or None for name in names]
        for name in sorted({name for name in self._form.columns if found.count(name) > 1}):
            said = f"is the heading of a column, and stands for `{self._form.columns[name]}` too: rename one"
            self._faults.add(Fault(self.label, 1, f"columns.{name}", said))
        return found

    def _read_jsonl(self, text: TextIO) -> Iterator[Row]:
        above: dict[str, object] = {}
        for row in _read_jsonl(text):
            if not self._form.fill_down or row.problem:
                yield row
                continue
            above |= {name: row.values[name] for name in self._form.fill_down if row.values.get(name) not in (None, "")}
            values = {**row.values, **{key: above[key] for key in above if row.values.get(key) in (None, "")}}
            yield row._replace(values=values, empty=[name for name in row.empty if name not in values])

    def _filled_columns(self, header: list[str | None]) -> list[int]:
        """Return the places of the columns whose cells are carried down, named by heading or by variable."""
        headings = [cell.strip() for cell in self.header or ()]
        places = []
        for name in self._form.fill_down:
            if name not in headings and name not in header:
                message = f"there is no column `{name}`" + did_you_mean(name, headings)
                self._faults.add(Fault(self.label, 1, "fill_down", message))
                continue
            places.append(headings.index(name) if name in headings else header.index(name))
        return places

    def _row(self, number: int, line: int, header: list[str | None], cells: list[str]) -> Row:
        if len(cells) > len(header):
            return Row(number, line, {}, cells, f"has {len(cells)} cells, the header has {len(header)}")
        if None in header:
            for name, cell in zip(header, cells, strict=False):
                if name is None and cell.strip():
                    return Row(number, line, {}, cells, f"has `{cell[:40]}` in a column without a heading")
        if "\0" in "".join(cells):
            return Row(number, line, {}, cells, "has a NUL byte")
        values = {name: cell for name, cell in zip(header, cells, strict=False) if cell and name}
        for name, place in self._also:
            if place < len(cells) and cells[place]:
                values[name] = cells[place]
        if len(values) == len(header) + len(self._also):
            return Row(number, line, values, cells)
        if not self._names:
            self._names = [*filter(None, header), *(name for name, _ in self._also)]
        return Row(number, line, values, cells, empty=[name for name in self._names if name not in values])


def _fill_down(cells: list[str], places: Sequence[int], above: dict[int, str]) -> None:
    """Put the last cell above into each empty cell of these columns."""
    for place in places:
        if place < len(cells) and cells[place].strip():
            above[place] = cells[place]
        elif place in above:
            cells += [""] * (place + 1 - len(cells))
            cells[place] = above[place]


def _read_jsonl(text: TextIO) -> Iterator[Row]:
    number = 0
    for line, content in enumerate(text, start=1):
        if not content.strip():
            continue
        number += 1
        try:
            value = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_each_once)
        except (ValueError, RecursionError) as error:
            said = str(error) if isinstance(error, _Twice) else f"is not JSON: {error}"
            yield Row(number, line, {}, (content.strip(),), problem=said)
            continue
        if not isinstance(value, dict):
            yield Row(number, line, {}, (content.strip(),), problem="is not a JSON object")
        elif "\\ud" in content.lower() and not _writable(value):
            problem = "has half a character (a lone surrogate, \\ud800 to \\udfff)"
            yield Row(number, line, {}, (content.strip(),), problem=problem)
        elif "\\u0000" in content:
            yield Row(number, line, {}, (content.strip(),), problem="has a NUL byte")
        else:
            values = {key: item for key, item in value.items() if item is not None}
            empty = [key for key in value if key not in values] if len(values) < len(value) else ()
            yield Row(number, line, values, empty=empty)


class _Twice(ValueError):
    """A key stands twice in one object: one of its values would be lost."""


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Make an object of its pairs. Raises _Twice."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"has the key `{twice}` twice")
    return made


def has_nul(value: object) -> bool:
    """Return whether any text of this value has a NUL byte: no file name may have one, and few APIs take it."""
    if isinstance(value, dict):
        return any(has_nul(item) for pair in value.items() for item in pair)
    return any(map(has_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value


def _writable(value: object) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _no_constant(word: str) -> object:
    raise ValueError(f"{word} is not a JSON value")


def _chained(first: str, rest: TextIO) -> Iterator[str]:
    yield first
    yield from rest


def _bad_line(path: Path) -> int:
    """Find the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def is_text(name: str) -> bool:
    """Return whether a file's name is text: one of other bytes can stand in no ledger and no sidecar."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def glob_rows(patterns: str | Sequence[str], root: Path) -> Iterator[Row]:
    """Yield a row for each file that matches. Raises what `globs.files` does."""
    for number, file in enumerate(globs.files(patterns, root), start=1):
        path = (file.relative_to(root) if file.is_relative_to(root) else file).as_posix()
        problem = "" if is_text(path) else "has bytes that are not UTF-8 in its name: rename it"
        yield Row(number, 1, {"path": path, "stem": file.stem}, problem=problem, file=path)
