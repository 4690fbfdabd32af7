"""Writes the rows of some jobs as they came in the manifest, with a reason each: a file that is a manifest again."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from batcher.errors import NotFound, WrongUse
from batcher.manifest.faults import Faults
from batcher.manifest.manifest import Manifest, open_manifest
from batcher.manifest.rows import Row, Rows

REASON: Final = "reason"
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
    count = 0
    try:
        with file.open("x", encoding="utf-8", newline="") as made:
            for line in (_as_jsonl if kind in _JSONL else _as_csv)(manifest, reasons):
                made.write(line)
                count += 1
    except FileExistsError:
        raise WrongUse(f"{file} is there already", "give another name") from None
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


def _as_jsonl(manifest: Manifest, reasons: Reasons) -> Iterator[str]:
    for row, header, reason in _wanted(manifest, reasons):
        values = dict(row.values)
        if header is not None:
            values = {
                name.strip(): cell for name, cell in zip(header, row.cells, strict=False) if name.strip() and cell
            }
        values[REASON] = reason
        yield json.dumps(values, ensure_ascii=False) + "\n"


def _as_csv(manifest: Manifest, reasons: Reasons) -> Iterator[str]:
    line = _Line()
    writer = csv.writer(line)
    columns: list[str] | None = None
    for row, header, reason in _wanted(manifest, reasons):
        if columns is None:
            columns = [*header] if header is not None else _names(_wanted(manifest, reasons))
            columns = columns[:-1] if columns[-1:] == [REASON] else columns
            writer.writerow([*columns, REASON])
            yield line.taken()
        cells = [*row.cells] if header is not None else [_cell(row.values.get(name)) for name in columns]
        cells = cells[: len(columns)]
        writer.writerow([*cells, *[""] * (len(columns) - len(cells)), harmless(reason)])
        yield line.taken()
    if columns is None:
        yield ""


def _names(wanted: Iterator[tuple[Row, Sequence[str] | None, str]]) -> list[str]:
    """Return the names that any of these rows has, in the order in which they come first."""
    return [*dict.fromkeys(name for row, _, _ in wanted for name in row.values)]


def _cell(value: object) -> str:
    """Write a value as a cell that is read as the same."""
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
        """Take a text."""
        self._text += text
        return len(text)

    def taken(self) -> str:
        """Return what came since."""
        text, self._text = self._text, ""
        return text
