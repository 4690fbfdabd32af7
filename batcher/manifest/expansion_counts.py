"""What has been seen of a manifest so far: counts, and which keys came before."""

from collections import Counter
from dataclasses import dataclass, field

from batcher.manifest.photos import Photos
from batcher.manifest.seen_keys import SeenKeys


@dataclass(slots=True)
class ExpansionCounts:
    """What has been seen of the whole manifest so far."""

    jobs: int = 0
    rows: int = 0
    equal_rows: int = 0
    rejected: int = 0
    unkept: int = 0
    """Jobs of whose results the vendor keeps no copy."""
    inlined_bytes: int = 0
    outside: dict[str, None] = field(default_factory=dict)
    """Local images that do not lie in the manifest's folder, as it names them: the first of them."""
    photos: Photos = field(default_factory=Photos)
    """The local images that were looked at."""
    unmade: int = 0
    """Jobs that are left out by `--where`, and cannot be made as they are."""
    blank: Counter[str] = field(default_factory=Counter)
    """By variable that a template uses: rows in which its cell is empty."""
    not_taken: dict[str, str] = field(default_factory=dict)
    """By column that is no input of the model here: the provider where it is one."""
    estimated_usd: float = 0.0
    samples: SeenKeys = field(default_factory=SeenKeys)
    """By what a job asks for: its last sample."""
    names: SeenKeys = field(default_factory=SeenKeys)
    """By file name: the row that takes it."""
    folders: SeenKeys = field(default_factory=SeenKeys)
    """By folder, where its name could be a file's: the row whose file is in it."""

    _undo: list[tuple[SeenKeys, int, int]] | None = None
    """What is to be put back if the row at hand is rejected."""

    def put(self, seen: SeenKeys, key: int, number: int) -> None:
        """Remember a number under a key, until the row is taken back."""
        if self._undo is not None:
            self._undo.append((seen, key, seen.get(key) or 0))
        seen.put(key, number)

    @property
    def depth(self) -> int:
        """How much of the row at hand could be put back."""
        return len(self._undo or ())

    def put_back(self, depth: int) -> None:
        """Undo what was recorded since then: a job that is left out, and cannot be made, takes up nothing."""
        if self._undo is None:
            return
        for seen, key, number in reversed(self._undo[depth:]):
            seen.put(key, number)
        del self._undo[depth:]

    def mark(self) -> tuple[float, int, int]:
        """Begin with a row that may be taken back."""
        self._undo = []
        return self.estimated_usd, self.inlined_bytes, self.unkept

    def take_back(self, before: tuple[float, int, int]) -> None:
        """Undo what was recorded of the row at hand: another may ask for the same, and use its names."""
        self.estimated_usd, self.inlined_bytes, self.unkept = before
        for seen, key, number in reversed(self._undo or []):
            seen.put(key, number)

    def close(self) -> None:
        """Forget what is needed only while the manifest is read."""
        self.samples.close()
        self.names.close()
        self.folders.close()
        self.photos.close()
