"""Remembers what was found at many paths, in memory that does not grow with them: the older ones lie in a file."""

import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

FileFacts = tuple[int, int, str]
"""Of a file: its size, its time of change in nanoseconds, and what it is, as JSON."""
_HELD: Final = 50_000
"""Paths in memory: some 20 MB."""


class FactsByPath:
    """Facts by path."""

    def __init__(self, held: int = _HELD) -> None:
        self._held = held
        self._recent: dict[str, FileFacts] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._older: sqlite3.Connection | None = None

    def get(self, path: str) -> FileFacts | None:
        """Return what was found at a path, None where nothing was looked at."""
        found = self._recent.get(path)
        if found is None and self._older is not None:
            row = self._older.execute("SELECT size, mtime_ns, facts FROM looks WHERE path = ?", (path,)).fetchone()
            found = None if row is None else (row[0], row[1], row[2])
        return found

    def put(self, path: str, facts: FileFacts) -> None:
        """Remember what was found at a path."""
        self._recent[path] = facts
        if len(self._recent) >= self._held:
            self._move_out()

    def __iter__(self) -> Iterator[tuple[str, FileFacts]]:
        """Yield each path with what was found there last."""
        if self._older is not None:
            self._move_out()
            for path, *facts in self._older.execute("SELECT path, size, mtime_ns, facts FROM looks ORDER BY path"):
                yield path, (facts[0], facts[1], facts[2])
        yield from self._recent.items()

    def close(self) -> None:
        """Forget everything."""
        self._recent.clear()
        if self._older is not None and self._folder is not None:
            self._older.close()
            self._older = None
            self._folder.cleanup()

    def _move_out(self) -> None:
        if self._older is None:
            self._folder = tempfile.TemporaryDirectory(prefix="batcher-")
            file = Path(self._folder.name) / "looks.sqlite"
            self._older = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
            self._older.execute("PRAGMA journal_mode = OFF")
            self._older.execute("PRAGMA synchronous = OFF")
            self._older.execute("CREATE TABLE looks (path TEXT PRIMARY KEY, size, mtime_ns, facts) WITHOUT ROWID")
        self._older.execute("BEGIN")
        rows = ((path, *facts) for path, facts in self._recent.items())
        self._older.executemany("INSERT OR REPLACE INTO looks VALUES (?, ?, ?, ?)", rows)
        self._older.execute("COMMIT")
        self._recent.clear()
