"""Writes `OUT/rejected.csv`: bad rows in the input's columns, and why."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from batcher.manifest.manifest import Manifest
from batcher.manifest.rows import Row
from batcher.runs.row_export import harmless, reason_column


class Rejected:
    """A file that is there if a row was bad, once the others are taken in; until then an earlier one stays.

    Formulas are quoted, for it will be opened in a spreadsheet.
    """

    def __init__(self, file: Path, manifest: Manifest) -> None:
        self._file = file
        self._manifest = manifest
        self._draft = file.with_name(f".{file.name}")
        self._opened: TextIO | None = None
        self.count = 0

    def __call__(self, row: Row, header: Sequence[str] | None, reason: str) -> None:
        """Add a row."""
        self.count += 1
        columns, name = reason_column(self._manifest, header if header is not None else ["row"])
        cells = list(row.cells) or [json.dumps(dict(row.values), ensure_ascii=False)]
        if len(cells) == len(columns) + 1 and header is not None and len(columns) < len(header):
            cells.pop()
        if surplus := cells[len(columns) :]:
            reason += f" (beyond it: {', '.join(surplus)})"
        if self._opened is None:
            self._draft.unlink(missing_ok=True)  # what stands there may be a link
            self._opened = self._draft.open("w", encoding="utf-8", newline="")
            csv.writer(self._opened).writerow([*map(harmless, columns), name])
        padded = [*cells[: len(columns)], *[""] * (len(columns) - len(cells))]
        csv.writer(self._opened).writerow([*map(harmless, padded), harmless(reason)])

    def keep(self) -> None:
        """Return it its name; where there was no bad row, there is none."""
        if self._opened:
            self._opened.close()
            self._draft.replace(self._file)
            self._opened = None
        else:
            self._file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Undo it: nothing came of this start."""
        if self._opened:
            self._opened.close()
            self._draft.unlink(missing_ok=True)
            self._opened = None
