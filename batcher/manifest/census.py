"""What has been seen of a manifest so far: counts, and which keys came before, in memory that does not grow with it."""

import mmap
import tempfile
from array import array
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import BinaryIO, Final

_RECENT: Final = 50_000
_WORDS: Final = 2**20
"""The filter has so many, of 64 bits each: 8 MiB. At a million keys one look in five hundred is in vain."""
_MASKS: Final = tuple(1 << (n & 63) | 1 << (n >> 6) for n in range(2**12))


class Seen:
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
        """Give the number last put under this key."""
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
    outside: dict[str, None] = field(default_factory=dict)
    """Local images that do not lie in the manifest's folder, as it names them: the first of them."""
    estimated_usd: float = 0.0
    samples: Seen = field(default_factory=Seen)
    """By what a job asks for: its last sample."""
    names: Seen = field(default_factory=Seen)
    """By file name: the row that takes it."""
    folders: Seen = field(default_factory=Seen)
    """By folder, where its name could be a file's: the row whose file is in it."""

    _undo: list[tuple[Seen, int, int]] | None = None
    """What is to be put back if the row at hand is rejected."""

    def put(self, seen: Seen, key: int, number: int) -> None:
        """Remember a number under a key, until the row is taken back."""
        if self._undo is not None:
            self._undo.append((seen, key, seen.get(key) or 0))
        seen.put(key, number)

    def mark(self) -> tuple[float, int, int]:
        """Begin with a row that may be taken back."""
        self._undo = []
        return self.estimated_usd, self.inlined_bytes, self.unkept

    def take_back(self, before: tuple[float, int, int]) -> None:
        """Have seen nothing of the row at hand: another may ask for the same, and take its names."""
        self.estimated_usd, self.inlined_bytes, self.unkept = before
        for seen, key, number in reversed(self._undo or []):
            seen.put(key, number)

    def close(self) -> None:
        """Forget what is needed only while the manifest is read."""
        self.samples.close()
        self.names.close()
        self.folders.close()
