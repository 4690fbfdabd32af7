"""Looks over what a new manifest could be made of: a folder's photos, or a table's columns. Decides nothing."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import escape
from itertools import islice
from pathlib import Path
from typing import Final

from batcher.hosting.inline import ImageFactsCache, ImageNotUsable, why_not
from batcher.manifest.document import RowsFile
from batcher.manifest.faults import Faults
from batcher.manifest.globs import is_photo, is_run
from batcher.manifest.photos import Photos
from batcher.manifest.rows import Row, Rows
from batcher.manifest.templates import slug

SHRUNK_TO: Final = 4096
"""Pixels of a side: what a 4K output has; larger photos gain nothing."""
_MOST_ROWS: Final = 2_000
"""Rows of a table that are looked at."""
_IMAGE: Final = re.compile(r"^\s*data:image/|\.(jpe?g|png|webp|heic|tiff?|avif|gif)\s*(\?|#|,|\||$)", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"^\s*https?://", re.IGNORECASE)
_OF_IMAGES: Final = re.compile(r"image|photo|picture|img|bild|foto|src|thumb", re.IGNORECASE)
"""In headings of columns that hold images."""
_TITLES: Final = ("title", "name", "product", "product title", "item name", "description", "caption", "alt")
_HANDLES: Final = ("handle", "url handle")
_KEYS: Final = ("sku", "variant sku", *_HANDLES, "id", "product id", "item id", "asin", "ean", "gtin")
_PROMPTS: Final = ("prompt", "text prompt", "instruction", "edit")


@dataclass(slots=True)
class Folder:
    """The photos below a folder: the patterns that name them, and what they are."""

    patterns: list[str] = field(default_factory=list)
    photos: Photos = field(default_factory=Photos)
    too_large: int = 0
    """Photos that can be sent only if they are shrunk."""
    name: str = "{{ stem | slug }}"
    """A template that gives each photo's result a name of its own."""


def survey_folder(folder: Path) -> Folder:
    """Look at the photos in a folder and below it, but not in hidden folders and in those of runs. Raises OSError."""
    found, looks = Folder(), ImageFactsCache()
    names: dict[str, set[str]] = {"{{ stem | slug }}": set(), "{{ path | slug }}": set()}
    for place in [folder, *_inner(folder)]:
        photos = list(_photos(place, deep=place != folder)) if str(place).isprintable() else []
        if not photos:
            continue
        deep = any(file.parent != place for file in photos)
        name = place.relative_to(folder).as_posix()
        found.patterns.append("./" if place == folder else escape(name) + ("/**" if deep else "/"))
        for file in photos:
            path = file.relative_to(folder).as_posix()
            try:
                look = looks.at(file)
                found.photos.count(path, getattr(why_not(look, SHRUNK_TO), "problem", ""))
                found.too_large += getattr(why_not(look, None), "problem", "") == "too large"
            except ImageNotUsable as unusable:
                found.photos.count(path, unusable.problem)
            names["{{ stem | slug }}"].add(slug(file.stem))
            names["{{ path | slug }}"].add(slug(path))
    unique = (template for template, given in names.items() if len(given) == found.photos.total)
    found.name = next(unique, "{{ path | slug }}-{{ index }}")
    return found


def _inner(folder: Path) -> list[Path]:
    return sorted(one for one in folder.iterdir() if _is_searched(one))


def _is_searched(folder: Path) -> bool:
    if folder.name.startswith(".") or not folder.is_dir() or folder.is_symlink():
        return False
    return not is_run(folder)


def _photos(folder: Path, *, deep: bool) -> Iterator[Path]:
    for one in sorted(folder.iterdir()):
        if deep and _is_searched(one):
            yield from _photos(one, deep=True)
        elif is_photo(one) and not one.name.startswith(".") and one.is_file():
            yield one


@dataclass(frozen=True, slots=True)
class Table:
    """What the columns of a table hold, as far as its first rows tell. Columns by their headings."""

    form: RowsFile
    headings: list[str]
    image: str | None
    title: str | None
    key: str | None
    prompt: str | None
    fill_down: list[str]
    without_image: bool
    """Some rows name no image."""
    unreadable: int = 0
    """Rows of which no job can be made as they are."""


def survey_table(file: Path) -> Table:
    """Look over the first rows of a CSV or JSONL file. Raises ManifestFaulty where it cannot be read."""
    form, rows, seen, faults = _read(file, "")
    said = faults.shown[0].message if faults else ""
    encoding = "cp1252" if "not UTF-8" in said else "utf-16" if "UTF-16" in said else ""
    if encoding:
        form, rows, seen, faults = _read(file, encoding)
    if faults:
        raise faults.error()
    unreadable = sum(bool(row.problem) for row in seen)
    seen = [row for row in seen if not row.problem]
    headings = list(dict.fromkeys(name for row in seen for name in (*row.values, *row.empty)))
    if rows.header is not None:
        headings = [heading.strip() for heading in rows.header if heading.strip()]
    cells = {name: [str(_first(row.values[name])) for row in seen if row.values.get(name)] for name in headings}
    image = _column_of_images(headings, cells)
    title, prompt = _one_of(_TITLES, headings), _one_of(_PROMPTS, headings)
    with_image = [row.values for row in seen if image and row.values.get(image)]
    keys = [name for key in _KEYS if (name := _one_of((key,), headings))]
    key = next((name for name in keys if all(row.get(name) for row in with_image)), None)
    handle = _one_of(_HANDLES, headings)
    return Table(
        form=form,
        headings=headings,
        image=image,
        title=title,
        key=key,
        prompt=prompt,
        fill_down=[title] if title and handle and _is_said_once(title, handle, [row.values for row in seen]) else [],
        without_image=len(with_image) < len(seen),
        unreadable=unreadable,
    )


def _read(file: Path, encoding: str) -> tuple[RowsFile, Rows, list[Row], Faults]:
    """Read the first rows of a table, with what is wrong with it."""
    form = RowsFile(file=file.name, encoding=encoding or None)
    faults = Faults()
    rows = Rows(file, file.name, form, faults)
    return form, rows, [*islice(rows, _MOST_ROWS)], faults


def _first(value: object) -> object:
    return value[0] if isinstance(value, list) and value else value


def _column_of_images(headings: list[str], cells: Mapping[str, list[str]]) -> str | None:
    """Return the column that most likely holds images: files of images before addresses, headings that say so first."""

    def holds(name: str, pattern: re.Pattern[str]) -> bool:
        return bool(cells[name]) and sum(bool(pattern.search(cell)) for cell in cells[name]) > len(cells[name]) / 2

    of_images = [name for name in headings if _OF_IMAGES.search(name)]
    ways = [(of_images, _IMAGE), (headings, _IMAGE), (of_images, _ADDRESS)]
    return next((name for names, pattern in ways for name in names if holds(name, pattern)), None)


def _one_of(names: tuple[str, ...], headings: list[str]) -> str | None:
    by_name = {re.sub(r"[_\s-]+", " ", heading).strip().lower(): heading for heading in reversed(headings)}
    return next((by_name[name] for name in names if name in by_name), None)


def _is_said_once(title: str, handle: str, rows: list[Mapping[str, object]]) -> bool:
    """Return whether each product's title stands in its first row, and is empty in some of its others.

    Only then can it be carried down: a product whose first row has none would get the name of the one above.
    """
    last, empty = None, False
    for row in rows:
        if row.get(handle) != last and not row.get(title):
            return False
        last = row.get(handle)
        empty = empty or not row.get(title)
    return empty


def as_template(heading: str) -> str:
    """Return how a template reads a column: by its name where that is one, else `row["..."]`."""
    if heading.isidentifier() and heading not in {
        "row",
        "index",
        "sample",
        "true",
        "false",
        "none",
        "not",
        "and",
        "or",
    }:
        return heading
    return f"row[{json.dumps(heading, ensure_ascii=False)}]"
