"""What has been seen of a manifest so far: counts, and which keys came before, in memory that does not grow with it."""

import sqlite3
import struct
from dataclasses import dataclass, field
from typing import Final

_RECENT: Final = 50_000
_BITS: Final = 26
"""The filter has two to this power of them, 8 MiB: at a million keys one look in four hundred is in vain."""
_MASK: Final = 2**_BITS - 1
_WORDS: Final = struct.Struct("<4I")


class Seen:
    """Numbers by key; a key is 16 bytes of a digest.

    The last keys are in a dictionary. Older ones go, in the order of the keys, to a table in a temporary file;
    a Bloom filter says without a look there that a key is new, which most are.
    """

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._filter = bytearray()
        self._table: sqlite3.Connection | None = None

    def get(self, key: bytes) -> int | None:
        """Give the number last put under this key."""
        found = self._recent.get(key)
        if found is not None or self._table is None or not self._maybe_older(key):
            return found
        row = self._table.execute("SELECT number FROM seen WHERE key = ?", (key,)).fetchone()
        return None if row is None else int(row[0])

    def put(self, key: bytes, number: int) -> None:
        """Remember a number under this key."""
        self._recent[key] = number
        if len(self._recent) >= _RECENT:
            self._move_out()

    def close(self) -> None:
        """Forget everything."""
        self._recent.clear()
        self._filter = bytearray()
        if self._table is not None:
            self._table.close()
            self._table = None

    def _maybe_older(self, key: bytes) -> bool:
        bits = self._filter
        one, two, three, _ = _WORDS.unpack(key)
        one, two, three = one & _MASK, two & _MASK, three & _MASK
        return bool(
            bits[one >> 3] >> (one & 7) & 1 and bits[two >> 3] >> (two & 7) & 1 and bits[three >> 3] >> (three & 7) & 1
        )

    def _move_out(self) -> None:
        if self._table is None:
            self._filter = bytearray(2**_BITS // 8)
            self._table = _table()
        bits = self._filter
        for key in self._recent:
            for word in _WORDS.unpack(key)[:3]:
                place = word & _MASK
                bits[place >> 3] |= 1 << (place & 7)
        self._table.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?)", sorted(self._recent.items()))
        self._recent.clear()


def _table() -> sqlite3.Connection:
    """Make a table in a file that SQLite removes by itself, and that need not survive anything."""
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = OFF").fetchall()
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("CREATE TABLE seen (key BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID")
    return connection


@dataclass(slots=True)
class Census:
    """What has been seen of the whole manifest so far."""

    jobs: int = 0
    rows: int = 0
    equal_rows: int = 0
    rejected: int = 0
    inlined_bytes: int = 0
    estimated_usd: float = 0.0
    samples: Seen = field(default_factory=Seen)
    """By what a job asks for: its last sample."""
    names: Seen = field(default_factory=Seen)
    """By file name: the row that takes it."""

    def close(self) -> None:
        """Forget what is needed only while the manifest is read."""
        self.samples.close()
        self.names.close()
