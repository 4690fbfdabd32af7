"""Opens a manifest, YAML or rows alone, from a file or standard input: its settings, and where its rows are."""

import atexit
import hashlib
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import IO, Final

from batcher.errors import Fault, ManifestFaulty, NotFound, WrongUse
from batcher.manifest.document import Document, RowsFile, RowsGlob, read_document
from batcher.manifest.faults import Faults
from batcher.manifest.rows import Row, Rows, glob_rows, has_nul, is_text
from batcher.manifest.yaml_lines import NotYaml, YamlWithLines, load
from batcher.terminal_text import command

_YAML: Final = frozenset({".yaml", ".yml"})
MOST_OF_A_ROW: Final = 1_000_000
"""Jobs that one row may make: a million is what a whole run is made for."""
_ROWS: Final = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".ndjson"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest says, and where it stands."""

    file: str
    """As the user named it; `-` for standard input."""
    path: Path
    root: Path
    """Paths in it are relative to this."""
    name: str
    document: Document
    marked: YamlWithLines
    sha256: str
    rows_file: str | None
    """As it is named in it, where rows stand in a file of their own."""
    faults: Faults = field(default_factory=Faults)
    """Of its settings; whoever expands it raises them with the others."""
    readable: bool = True
    """Its rows can be judged, whatever is wrong with its settings."""

    @property
    def key(self) -> str:
        """What a run directory remembers it by."""
        return "-" if self.file == "-" else str(self.path)

    def rows(self, faults: Faults) -> Iterable[Row]:
        """Return its rows as a stream; what is wrong with the file itself goes to `faults`."""
        jobs = self.document.jobs
        if not self.readable:
            return []
        if jobs is None:
            return [Row(1, 1, {})]
        if isinstance(jobs, list):
            return [_inline(number, self.marked.line("jobs", number - 1), job) for number, job in enumerate(jobs, 1)]
        if isinstance(jobs, RowsGlob):
            return glob_rows(jobs.glob, self.root)
        form = jobs if isinstance(jobs, RowsFile) else RowsFile(file=jobs)
        return Rows(self.root / form.file, self.rows_label, form, faults)

    def rows_digest(self) -> str:
        """Return what stands for its rows, where they are in another file or are files themselves.

        Where that file cannot be read, whoever expands it says so.
        """
        jobs = self.document.jobs
        if not self.readable:
            return ""
        if isinstance(jobs, RowsGlob):
            names = "\0".join(str(row.values["path"]) for row in glob_rows(jobs.glob, self.root))
            return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()
        try:
            return _digest(self.root / self.rows_file) if self.rows_file else ""
        except OSError:
            return ""

    @property
    def rows_label(self) -> str:
        """The file that faults of rows are in."""
        return self.rows_file or self.file


def _inline(number: int, line: int, job: dict[str, object]) -> Row:
    values = {str(key): value for key, value in job.items() if value is not None}
    empty = [str(key) for key, value in job.items() if value is None]
    return Row(number, line, values, problem="has a NUL byte" if has_nul(values) else "", empty=empty)


def open_manifest(file: str, *, name: str | None = None, stdin: IO[bytes] | None = None) -> Manifest:
    """Open a manifest; `name` stands in for a missing `name:`. Raises NotFound, WrongUse, ManifestFaulty."""
    if file == "-":
        path, root = _spooled(stdin or sys.stdin.buffer), Path.cwd()
    else:
        path = Path(file).absolute()
        root = path.parent
        if not is_text(str(path)):
            raise WrongUse(f"{str(path)!a} has bytes that are not UTF-8 in its name: rename it, or a folder above it")
        if not path.is_file():
            raise _no_file(file, path)
    try:
        digest = _digest(path)
    except OSError as error:
        raise ManifestFaulty([Fault(file, 1, "", f"cannot be read: {error.strerror}")], 1) from None
    faults, readable = Faults(), True
    if path.suffix.lower() in _ROWS:
        jobs = RowsFile(file=str(path) if file == "-" else path.name)
        document, marked, rows_file = Document(jobs=jobs), YamlWithLines(None, {}), None
    else:
        marked = _marked(path, file, faults)
        read, plain = (None, False) if faults else read_document(marked, file, faults)
        if read is None:
            raise faults.error()
        document, rows_file = read, _rows_file(read)
        readable = rows_are_there(document, root, marked, file, faults) and plain
        readable = is_bounded(document, marked, file, faults) and readable
    title = document.name or (name if file == "-" else path.stem)
    if title is None:
        raise WrongUse("a manifest from standard input needs a `name:` or -o DIR")
    return Manifest(file, path, root, title, document, marked, digest, rows_file, faults, readable)


def _no_file(file: str, path: Path) -> NotFound:
    if path.is_dir():
        return NotFound(
            f"{file} is a folder, and no manifest", f"to write one about the photos in it: {command('init', file)}"
        )
    return NotFound(f"{file} does not exist{_near(path)}" if not path.exists() else f"{file} is not a file")


def _near(path: Path) -> str:
    """Return a manifest whose name is near to one that is not there."""
    kinds = _YAML | _ROWS
    try:
        names = [one.name for one in path.parent.iterdir() if one.suffix.lower() in kinds]
    except OSError:
        return ""
    near = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else ""


def _marked(path: Path, file: str, faults: Faults) -> YamlWithLines:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise NotYaml(text[: text.index("\0")].count("\n") + 1, "has a NUL byte: is it UTF-16? save it as UTF-8")
        return load(text)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        faults.add(Fault(file, line, "", "has bytes that are not UTF-8; save it as UTF-8"))
    except NotYaml as error:
        faults.add(Fault(file, error.line, "", str(error)))
    return YamlWithLines(None, {})


def _rows_file(document: Document) -> str | None:
    jobs = document.jobs
    return jobs.file if isinstance(jobs, RowsFile) else jobs if isinstance(jobs, str) else None


def rows_are_there(document: Document, root: Path, marked: YamlWithLines, file: str, faults: Faults) -> bool:
    """Return whether the files are there that jobs are made of; note what is wrong with them."""
    rows_file, before = _rows_file(document), faults.count
    line = marked.line("jobs")
    if rows_file is not None:
        suffix = Path(rows_file).suffix.lower()
        if suffix not in _ROWS:
            faults.add(Fault(file, line, "jobs", f"{rows_file} is not a CSV or JSONL file (.csv, .tsv, .txt, .jsonl)"))
        elif not (root / rows_file).is_file():
            faults.add(Fault(file, line, "jobs", f"{rows_file} does not exist in {root}"))
    elif isinstance(document.jobs, RowsGlob):
        patterns = document.jobs.glob
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            try:
                matches = any(True for _ in glob_rows(pattern, root))
            except (ValueError, OSError) as error:
                faults.add(Fault(file, line, "jobs.glob", f"{pattern!r} cannot be matched as a pattern: {error}"))
            else:
                if not matches:
                    faults.add(Fault(file, line, "jobs.glob", f"{pattern} matches no file in {root}"))
    return faults.count == before


def is_bounded(document: Document, marked: YamlWithLines, file: str, faults: Faults) -> bool:
    """Return whether a row makes no more jobs than can be gone through; note it as a fault where it does not."""
    count = math.prod(map(len, document.matrix.values())) * document.repeat
    if count <= MOST_OF_A_ROW:
        return True
    key = "matrix" if document.matrix else "repeat"
    makes = (
        f"makes {count:,} jobs of each row" if count < 10**15 else f"makes about {float(count):.0e} jobs of each row"
    )
    message = f"{makes} (its combinations times `repeat`); a row makes up to {MOST_OF_A_ROW:,}"
    faults.add(Fault(file, marked.line(key), key, message))
    return False


def _spooled(stdin: IO[bytes]) -> Path:
    """Put standard input aside as a file: rows are read more than once."""
    content = stdin.read()
    suffix = _price_class(content.lstrip(b"\xef\xbb\xbf"))
    with tempfile.NamedTemporaryFile(prefix="batcher-", suffix=suffix, delete=False) as file:
        file.write(content)
    path = Path(file.name)
    atexit.register(path.unlink, missing_ok=True)
    return path


def _price_class(content: bytes) -> str:
    lines = (line.strip() for line in content.splitlines())
    first = next((line for line in lines if line and not line.startswith(b"#")), b"")
    if first.startswith(b"{"):
        return ".jsonl" if _is_json(first) else ".yaml"
    return ".yaml" if re.match(rb"""^(["']?[A-Za-z_]+["']?\s*:|---|%YAML)""", first) else ".csv"


def _is_json(line: bytes) -> bool:
    try:
        return "inputs" not in json.loads(line)  # a manifest on one line is YAML too
    except ValueError:
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
