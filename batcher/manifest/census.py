"""What has been seen of a manifest so far: counts, and which keys came before, in memory that does not grow with it."""

import sqlite3
from array import array
from dataclasses import dataclass, field
from typing import Final

_RECENT: Final = 50_000
_WORDS: Final = 2**20
"""The filter has so many, of 64 bits each: 8 MiB. At a million keys one look in five hundred is in vain."""
_MASKS: Final = tuple(1 << (n & 63) | 1 << (n >> 6) for n in range(2**12))


class Seen:
    """Numbers by key; a key is a fingerprint of 64 bits.

    The last keys are in a dictionary. Older ones go, in the order of the keys, to a table in a temporary file;
    a Bloom filter, each key's bits in one word of it, says without a look there that a key is new, which most are.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._filter = array("Q")
        self._table: sqlite3.Connection | None = None

    def get(self, key: int) -> int | None:
        """Give the number last put under this key."""
        found = self._recent.get(key)
        if found is not None or self._table is None:
            return found
        mask = _MASKS[key >> 20 & 0xFFF]
        if self._filter[key & 0xFFFFF] & mask != mask:
            return None
        row = self._table.execute("SELECT number FROM seen WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def put(self, key: int, number: int) -> None:
        """Remember a number under this key."""
        self._recent[key] = number
        if len(self._recent) >= _RECENT:
            self._move_out()

    def close(self) -> None:
        """Forget everything."""
        self._recent.clear()
        self._filter = array("Q")
        if self._table is not None:
            self._table.close()
            self._table = None

    def _move_out(self) -> None:
        if self._table is None:
            self._filter = array("Q", bytes(8 * _WORDS))
            self._table = _table()
        words, masks = self._filter, _MASKS
        for key in self._recent:
            words[key & 0xFFFFF] |= masks[key >> 20 & 0xFFF]
        self._table.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", sorted(self._recent.items()))
        self._recent.clear()


def _table() -> sqlite3.Connection:
    """Make a table in a file that SQLite removes by itself, and that need not survive anything."""
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = OFF").fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE seen (key INTEGER PRIMARY KEY, number INTEGER)")
    return connection


@dataclass(slots=True)
class Census:
    """What has been seen of the whole manifest so far."""

    jobs: int = 0
    rows: int = 0
    equal_rows: int = 0
    rejected: int = 0
    unkept: int = 0
    """Jobs of whose results the vendor keeps no copy: `sync_mode`."""
    inlined_bytes: int = 0
    estimated_usd: float = 0.0
    samples: Seen = field(default_factory=Seen)
    """By what a job asks for: its last sample."""
    names: Seen = field(default_factory=Seen)
    """By file name: the row that takes it."""
    folders: Seen = field(default_factory=Seen)
    """By folder, where its name could be a file's: the row whose file is in it."""

    def close(self) -> None:
        """Forget what is needed only while the manifest is read."""
        self.samples.close()
        self.names.close()
        self.folders.close()
