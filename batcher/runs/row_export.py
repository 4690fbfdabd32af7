"""Writes the rows of some jobs as they came in the manifest, with a reason each: a file that is a manifest again."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from batcher.errors import NotFound, WrongUse
from batcher.manifest.document import RowsFile
from batcher.manifest.faults import Faults
from batcher.manifest.manifest import Manifest, open_manifest
from batcher.manifest.rows import Row, Rows

REASON: Final = "reason"
_OTHER: Final = "batcher_reason"
"""The same where the manifest's own columns have one of that name."""
_JSONL: Final = frozenset({".jsonl", ".ndjson"})
_CSV: Final = frozenset({".csv"})


def opened_again(meta: Mapping[str, Any]) -> Manifest:
    """Open the manifest that a run directory was made of. Raises WrongUse where it is not what it was."""
    known = str(meta.get("manifest") or "-")
    if known == "-":
        raise WrongUse("the manifest came from standard input, and is not there any more")
    try:
        manifest = open_manifest(known)
    except NotFound:
        raise WrongUse(f"the manifest {known} is not there any more") from None
    rows = manifest.rows_digest()
    if manifest.sha256 != meta.get("manifest_sha256") or rows != (meta.get("rows_sha256") or rows):
        raise WrongUse(
            f"{known} has changed since the run took it in: its rows are not those of these jobs",
            "run the manifest again, then repeat this",
        )
    return manifest


Reasons = Callable[[], Iterator[tuple[int, str]]]
"""Begins to tell the numbers of rows, in ascending order, each with its reason."""


def write_rows(meta: Mapping[str, Any], reasons: Reasons, file: Path) -> int:
    """Write the rows of these numbers, each once, with its reason; return how many. Raises WrongUse.

    The file's ending says whether it is CSV or JSONL. A file that is there is not overwritten. Memory holds no rows.
    """
    kind = file.suffix.lower()
    if kind not in _JSONL | _CSV:
        raise WrongUse(f"{file}: its ending says what it is to be: .csv or .jsonl")
    manifest = opened_again(meta)
    form = manifest.document.jobs
    encoding = form.encoding if isinstance(form, RowsFile) and kind in _CSV else None
    count = 0
    try:
        with file.open("x", encoding=encoding or "utf-8", errors="backslashreplace", newline="") as made:
            for line in (_as_jsonl if kind in _JSONL else _as_csv)(manifest, reasons):
                made.write(line)
                count += 1
    except WrongUse:
        file.unlink(missing_ok=True)
        raise
    except FileExistsError:
        raise WrongUse(f"{file} exists already", "give another name") from None
    except OSError as error:
        raise WrongUse(f"{file} cannot be written: {error.strerror}") from None
    return count - (kind in _CSV)


def _wanted(manifest: Manifest, reasons: Reasons) -> Iterator[tuple[Row, Sequence[str] | None, str]]:
    """Yield the rows that are meant, with the file's header and their reasons: two streams of ascending numbers."""
    rows, wanted = manifest.rows(Faults()), reasons()
    number, reason = next(wanted, (None, ""))
    for row in rows:
        while number is not None and number < row.number:  # a row that is not there any more
            number, reason = next(wanted, (None, ""))
        if number is None:
            return
        if row.number == number:
            yield row, rows.header if isinstance(rows, Rows) else None, reason


def reason_column(manifest: Manifest, columns: Sequence[str]) -> tuple[list[str], str]:
    """Return the columns without the reasons of an earlier file like this one, and what the new ones are called.

    A column of that name that is the manifest's own (a template reads it, or others follow it) stays as it is.
    """
    names = [column.strip() for column in columns]
    said = json.dumps([manifest.document.inputs, manifest.document.output.name], ensure_ascii=False, default=str)
    if names[-1:] == [REASON] and names.count(REASON) == 1 and not re.search(rf"\b{REASON}\b", said):
        return [*columns[:-1]], REASON
    return [*columns], _OTHER if REASON in names else REASON


def _as_jsonl(manifest: Manifest, reasons: Reasons) -> Iterator[str]:
    for row, header, reason in _wanted(manifest, reasons):
        values: dict[str, object] = dict.fromkeys(row.empty)
        for heading, cell in zip(header or (), row.cells, strict=False):
            if heading.strip():
                values[heading.strip()] = cell or None
        values |= row.values
        kept, name = reason_column(manifest, [*values])
        values = {key: values[key] for key in kept}
        values[name] = reason
        yield json.dumps(values, ensure_ascii=False) + "\n"


def _as_csv(manifest: Manifest, reasons: Reasons) -> Iterator[str]:
    line = _Line()
    form = manifest.document.jobs
    delimiter = form.delimiter if isinstance(form, RowsFile) and form.delimiter else ","
    writer = csv.writer(line, delimiter=delimiter)
    columns: list[str] | None = None
    name = REASON
    for row, header, reason in _wanted(manifest, reasons):
        if columns is None:
            columns = [*header] if header is not None else _names(_wanted(manifest, reasons))
            columns, name = reason_column(manifest, columns)
            writer.writerow([*columns, name])
            yield line.taken()
        cells = [*row.cells] if header is not None else [_cell(row.values.get(name)) for name in columns]
        cells = cells[: len(columns)]
        writer.writerow([*cells, *[""] * (len(columns) - len(cells)), harmless(reason)])
        yield line.taken()
    if columns is None:
        yield ""


def _names(wanted: Iterator[tuple[Row, Sequence[str] | None, str]]) -> list[str]:
    """Return the names that any of these rows has, in the order in which they come first."""
    return [*dict.fromkeys(name for row, _, _ in wanted for name in (*row.values, *row.empty))]


def _cell(value: object) -> str:
    """Write a value as a cell that is read as the same. Raises WrongUse for one that templates would see as another."""
    if isinstance(value, bool | list | dict):
        said = json.dumps(value, ensure_ascii=False)[:60]
        raise WrongUse(f"a row has {said}, which no cell of a CSV file holds", "name a file that ends with .jsonl")
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    begins = cell[:1]
    formula = begins in {"=", "@", "\t", "\r"} or (begins in {"+", "-"} and not _is_number(cell))
    return f"'{cell}" if formula else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


class _Line:
    """Takes what a CSV writer writes, a row at a time."""

    def __init__(self) -> None:
        self._text = ""

    def write(self, text: str) -> int:
        """Add a text."""
        self._text += text
        return len(text)

    def taken(self) -> str:
        """Return what came since."""
        text, self._text = self._text, ""
        return text
