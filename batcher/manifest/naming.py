"""How a job's files are named, and that no two jobs could make the same one."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Final

from batcher.catalog import Model
from batcher.manifest.expansion_counts import ExpansionCounts
from batcher.manifest.job_id import fingerprint
from batcher.manifest.media_inputs import RowFault
from batcher.manifest.names import folded, safe_name
from batcher.manifest.rows import Row
from batcher.manifest.templates import BadTemplate, Template, slug

_LEGROOM: Final = 20
"""Bytes of a name kept free for `-4~12.webp` and the like."""
_WORDS: Final = 48
"""Characters of a prompt in a file's name."""
_ENDINGS: Final = frozenset(
    {".png", ".jpg", ".webp", ".gif", ".avif", ".tif", ".bmp", ".mp4", ".mov", ".webm", ".avi", ".mkv", ".json"}
)
"""Of outputs and sidecars."""


class Naming:
    """Names files as the manifest's template says, or by the prompt's first words and the job's id."""

    def __init__(
        self,
        template: Template | None,
        model: Model,
        counted: ExpansionCounts,
        row_named: Callable[[int], str],
    ) -> None:
        """`row_named`: how a message names the row of this number."""
        self._row_named = row_named
        self._name = template
        self._model = model
        self._counted = counted
        self._has_folders = False
        """Some file's folder has a name that a file could have."""

    def of(
        self,
        row: Row,
        variables: Mapping[str, object],
        inputs: Mapping[str, object],
        job_id: str,
        sent: Mapping[str, object],
        sample: int,
    ) -> str:
        """Return a job's name, without extension. Raises RowFault where another job could make a file of it."""
        if self._name is None:
            prompt = _first_words(str(sent.get("prompt") or next(iter(sent.values()), "")))
            text = f"{prompt}-{job_id}" if prompt else job_id
            if text.isascii():  # safe as it is, and its own: it ends with the job's id
                return text if sample == 1 else f"{text}~{sample}"
        else:
            try:
                text = self._name.fill({**variables, **inputs, "sample": sample, "job_id": job_id})
            except BadTemplate as bad:
                raise RowFault("output.name", str(bad)) from None
        name = safe_name(text, _LEGROOM)
        if sample > 1 and (self._name is None or "sample" not in self._name.names):
            name += f"~{sample}"
        self._claim(name, row, self._model.outputs(sent))
        return name

    def _claim(self, name: str, row: Row, count: int) -> None:
        """Record a job's file names. Raises RowFault where another job has one of them."""
        for taken in [name] if count == 1 else [name, *(f"{name}-{index}" for index in range(1, count + 1))]:
            key = _key(taken)
            if other := self._counted.names.get(key):
                message = f"`{taken}` is also a file of {self._row_named(other)}; let the name tell them apart"
                raise RowFault("output.name", message)
            self._counted.put(self._counted.names, key, row.number)
            if self._has_folders and (other := self._counted.folders.get(key)):
                raise RowFault(
                    "output.name", f"`{taken}` could be a file where {self._row_named(other)} has a folder of that name"
                )
        for folder in PurePosixPath(name).parents if "/" in name else ():
            if folder.suffix.lower() not in _ENDINGS:
                continue
            self._has_folders = True
            key = _key(str(folder.with_suffix("")))
            if other := self._counted.names.get(key):
                raise RowFault(
                    "output.name", f"`{folder}` could be a file of {self._row_named(other)}, and is a folder here"
                )
            self._counted.put(self._counted.folders, key, row.number)


def _key(name: str) -> int:
    return fingerprint(folded(name).encode("utf-8", "surrogatepass"))


def _first_words(text: str) -> str:
    """Return the beginning of a text's slug, which in a long text its beginning alone decides."""
    words = slug(text[: 4 * _WORDS])
    if len(words) < 2 * _WORDS and len(text) > 4 * _WORDS:
        words = slug(text)
    return words[:_WORDS].strip("-")
