"""Remembers numbers by key, of which there may be millions, in memory that does not grow with them."""

import mmap
import tempfile
from array import array
from bisect import bisect_left
from typing import BinaryIO, Final

_RECENT: Final = 50_000
"""Keys that are held in memory; older ones lie in a file."""
_WORDS: Final = 2**20
"""The filter has so many, of 64 bits each: 8 MiB. At a million keys one look in five hundred is in vain."""
_MASKS: Final = tuple(1 << (n & 63) | 1 << (n >> 6) for n in range(2**12))


class SeenKeys:
    """Numbers by key; a key is a fingerprint of 64 bits.

    The last keys are in a dictionary. Older ones go, sorted, to a file that has no name, a run of them at a time; a
    Bloom filter, each key's bits in one word of it, says without a look there that a key is new, which most are.
    """

    def __init__(self, held: int = _RECENT) -> None:
        self._held = held
        """Keys in memory, and in a run."""
        self._recent: dict[int, int] = {}
        self._filter = array("Q")
        self._file: BinaryIO | None = None
        self._runs = 0

    def get(self, key: int) -> int | None:
        """Return the number last put under this key."""
        found = self._recent.get(key)
        if found is not None or self._file is None:
            return found
        mask = _MASKS[key >> 20 & 0xFFF]
        if self._filter[key & 0xFFFFF] & mask != mask:
            return None
        return self._look(self._file, key)

    def put(self, key: int, number: int) -> None:
        """Remember a number under this key."""
        self._recent[key] = number
        if len(self._recent) >= self._held:
            self._move_out()

    def close(self) -> None:
        """Forget everything."""
        self._recent.clear()
        self._filter = array("Q")
        if self._file is not None:
            self._file.close()
            self._file = None

    def _look(self, file: BinaryIO, key: int) -> int | None:
        """Look for a key in the runs, the last first."""
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as plain,
            plain.cast("q") as words,
        ):
            for begins in range(2 * self._held * (self._runs - 1), -1, -2 * self._held):
                place = bisect_left(words, key, begins, begins + self._held)
                if place < begins + self._held and words[place] == key:
                    return words[place + self._held]
        return None

    def _move_out(self) -> None:
        if self._file is None:
            self._filter = array("Q", bytes(8 * _WORDS))
            self._file = tempfile.TemporaryFile(prefix="batcher-")  # noqa: SIM115 - closed with this
        words, masks = self._filter, _MASKS
        for key in self._recent:
            words[key & 0xFFFFF] |= masks[key >> 20 & 0xFFF]
        keys = array("q", sorted(self._recent))
        keys.tofile(self._file)
        array("q", [self._recent[key] for key in keys]).tofile(self._file)
        self._file.flush()
        self._runs += 1
        self._recent.clear()
