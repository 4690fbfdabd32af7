"""How many pixels are decoded at once, in all threads together: a small file can unfold to half a gigabyte."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from PIL import Image

_BLOCK: Final = 64 * 2**20
"""Bytes of a block that Pillow takes from the system: glibc gives blocks of over 32 MiB back as soon as they are free,
and keeps smaller ones, a heap for each thread: twelve threads held 2.6 GB after one picture each."""
Image.core.set_block_size(_BLOCK)  # type: ignore[attr-defined]  # as its documentation has it
MOST: Final = 64_000_000
"""Pixels: at four bytes each a quarter of a gigabyte. A picture that has more is decoded alone."""


class PixelBudget:
    """Lets pictures be decoded as long as their pixels are few enough together. Blocks: use a thread."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._decoding = 0
        self._changed = threading.Condition()

    @contextmanager
    def of(self, width: int, height: int) -> Iterator[None]:
        """Wait until a picture of this size may be decoded; what it takes is free again after the block."""
        pixels = min(width * height, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._decoding + pixels <= self._most)
            self._decoding += pixels
        try:
            yield
        finally:
            with self._changed:
                self._decoding -= pixels
                self._changed.notify_all()


DECODING: Final = PixelBudget()
"""Of this process."""
