"""Expands rows x matrix x repeat into a stream of jobs: fills templates, reads values, checks each by its schema."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from batcher.catalog import MISSING, PRICED_BY, Model, Prices, is_unkept
from batcher.errors import Fault
from batcher.hosting.inline import MAX_REQUEST, ImageFactsCache
from batcher.job import Image, Spec
from batcher.manifest.cells import EMPTY, ROW, RowCells
from batcher.manifest.document import RowsFile, RowsGlob
from batcher.manifest.expansion_counts import ExpansionCounts
from batcher.manifest.faults import did_you_mean
from batcher.manifest.input_builder import PER_RUN, InputBuilder
from batcher.manifest.job_id import JobIds, NotCanonical, canonical, fingerprint
from batcher.manifest.manifest import Manifest
from batcher.manifest.media_inputs import MediaInputs, RowFault, counted
from batcher.manifest.naming import Naming
from batcher.manifest.rows import Row, Rows
from batcher.manifest.templates import BadTemplate, Condition


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds to a manifest."""

    sets: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    skip_invalid: bool = False
    loopback: bool = False
    """The server runs on this machine: it can fetch what is at this machine's own addresses."""
    most_inline: int = MAX_REQUEST
    """Bytes of a request with its images inside that the provider takes."""


_LOOKED_AT: Final = 200
"""Jobs of a bad row that are gone over for what is wrong with them: a matrix may have a million combinations."""
Reject = Callable[[Row, Sequence[str] | None, str], None]


class Expansion:
    """The jobs of a manifest. Iterate it once: it raises ManifestFaulty at its end where there were faults."""

    def __init__(
        self,
        manifest: Manifest,
        model: Model,
        looks: ImageFactsCache,
        options: Options,
        reject: Reject | None = None,
        *,
        capped: bool = False,
    ) -> None:
        """`capped`: there is a limit to the cost, so that a job without a price is a fault."""
        self._capped = capped
        self.expansion_counts = ExpansionCounts()
        self.faults = manifest.faults.copy()
        self._manifest = manifest
        self._model = model
        self._options = options
        self._reject = reject if options.skip_invalid else None
        document = manifest.document
        self._prices = Prices(document.prices) if document.prices else None
        self._ignores = document.id_ignores
        self._most_inline = options.most_inline
        self._media = MediaInputs(looks, manifest, self.expansion_counts, loopback=options.loopback)
        self._input_builder = InputBuilder(manifest, model, options.sets, self.faults)
        self._naming = Naming(self._input_builder.name, model, self.expansion_counts, self._row_named)
        self._where = self._condition()
        self._known: set[str] = set()
        """Names that rows may have a value of."""
        self._ids = JobIds(model.id)
        self._headings: list[str] = []
        """Of the columns of a CSV file."""
        self._known_by_row = False
        """Each row has names of its own, as in JSONL."""
        self._whole_rows = False
        """A template reads the row as a whole."""
        self._paths: list[str] = []
        """Of photos that are rows, once one has to be named."""
        self._missing: dict[str, list[Fault]] = {}
        """By input that a row of JSONL lacks: where; one fault where every row does."""
        self._told: set[Fault] = set()
        """What was said of the manifest itself already."""
        self._media_inputs = model.media
        self._single = not document.matrix and document.repeat == 1

    def __iter__(self) -> Iterator[tuple[Spec, bool]]:
        try:
            yield from self._all()
        finally:
            self.expansion_counts.close()

    def _all(self) -> Iterator[tuple[Spec, bool]]:
        rows = self._manifest.rows(self.faults)
        checked = False
        for row in rows:
            if not checked:
                checked = True
                if columns := self._columns(row, rows):
                    self._known = columns[0] | set(self._manifest.document.matrix) | PER_RUN
                    self._input_builder.check_required(*columns)
                    self._input_builder.check_variables(*columns)
                    self.expansion_counts.not_taken = self._input_builder.not_taken(columns[0])
                    self._check_condition(*columns)
                    self._naming = Naming(self._input_builder.name, self._model, self.expansion_counts, self._row_named)
                self._whole_rows = self._input_builder.uses_rows or (self._where is not None and self._where.reads_row)
            yield from self._row(row, rows)
        self._note_missing()
        if not self._manifest.readable:
            self._check_without_rows()
        if not self.faults and self.expansion_counts.jobs == 0:
            why = "; every row was rejected, see rejected.csv for the reasons" if self.expansion_counts.rejected else ""
            self.faults.add(Fault(self._manifest.file, 1, "jobs", f"names no job{why}"))
        if self.faults:
            raise self.faults.error(self._about_photos())

    def _about_photos(self) -> str:
        """Return how many of the local photos can be sent, where faults are about that."""
        photos = self.expansion_counts.photos
        if not photos.others or photos.total == 1:
            return ""
        helps = photos.usable and self._reject is None
        return f"{photos}; --skip-invalid skips the others" if helps else str(photos)

    # What the manifest itself says, checked once.

    def _condition(self) -> Condition | None:
        try:
            return Condition(self._options.where) if self._options.where else None
        except BadTemplate as bad:
            self.faults.add(Fault("--where", 1, "", str(bad)))
            return None

    def _check_condition(self, columns: set[str], where: str) -> None:
        """Report once that `--where` reads a column that does not exist."""
        if self._where is None or ROW in columns:
            return
        for name in sorted(self._where.cells - columns):
            message = f"asks for `{name}`, which is {where}" + did_you_mean(name, columns)
            self.faults.add(Fault("--where", 1, "", message))
            self._where = None

    def _row_named(self, number: int) -> str:
        """Return how a message names a row: a photo by its path."""
        jobs = self._manifest.document.jobs
        if not isinstance(jobs, RowsGlob):
            return f"row {number}"
        if not self._paths:
            self._paths = [row.file for row in self._manifest.rows(self.faults)]
        return self._paths[number - 1]

    def _columns(self, row: Row, rows: object) -> tuple[set[str], str] | None:
        """Return the names that rows have, and what to call where they are from; None where each row has its own."""
        jobs = self._manifest.document.jobs
        if isinstance(rows, Rows):
            if rows.header is None:
                self._known_by_row = True
                return None
            self._headings = [heading.strip() for heading in rows.header]
            header = set(self._headings)
            columns = jobs.columns if isinstance(jobs, RowsFile) else {}
            renamed = {name for name, heading in columns.items() if heading in header}
            self._input_builder.misspelt = self._input_builder.misspelt or len(renamed) < len(columns)
            return header | renamed | set(row.values) | set(row.empty), f"not a column of {rows.label}"
        if isinstance(jobs, list):
            return {str(key) for job in jobs for key in job}, "in no job"
        return {*row.values, *row.empty}, "not known of a file" if jobs else "not a variable"

    def _check_without_rows(self) -> None:
        """Note what is wrong with inputs and matrix, whatever the rows may be, for these cannot be read."""
        sent, row = self._input_builder.fixed(), Row(0, 0, {})
        for name, value in [*sent.items(), *self._matrix_values()]:
            if name in self._media_inputs or name not in self._model.properties:
                continue
            for field_, message in self._model.faults({name: self._input_builder.read(name, value)}):
                if field_.partition(".")[0] == name:
                    self._note(row, RowFault(field_, message))

    def _matrix_values(self) -> Iterator[tuple[str, object]]:
        return ((name, value) for name, values in self._manifest.document.matrix.items() for value in values)

    # What each row says.

    def _row(self, row: Row, rows: object) -> Iterator[tuple[Spec, bool]]:
        self.expansion_counts.rows += 1
        narrowed = self._where is not None
        before = self.expansion_counts.mark() if self._reject or narrowed else None
        count = 0
        try:
            jobs: Iterable[tuple[Spec, bool]] = self._jobs_of(row)
            if before:  # all of a row's jobs or none: a bad one among them takes the others back
                unmade = self.expansion_counts.unmade
                jobs = [*jobs]
                if self._reject and self.expansion_counts.unmade > unmade and not any(chosen for _, chosen in jobs):
                    self.expansion_counts.take_back(before)  # as the whole run does, in which it is rejected
                    return
            for job in jobs:
                count += 1
                yield job
        except RowFault as first:
            if before:
                self.expansion_counts.take_back(before)
            self._bad_row(row, rows, self._all_wrong(row, first))
            return
        self.expansion_counts.jobs += count

    def _bad_row(self, row: Row, rows: object, wrong: Sequence[RowFault]) -> None:
        its_own = self._place_of(row)
        if self._reject is None or any(bad.of_manifest or self._place(row, bad) != its_own for bad in wrong):
            for bad in wrong:
                self._note(row, bad)
            return
        self.expansion_counts.rejected += 1
        header = rows.header if isinstance(rows, Rows) else None
        self._reject(row, header, "; ".join(f"{bad.field}: {bad}" if bad.field else str(bad) for bad in wrong))

    def _all_wrong(self, row: Row, first: RowFault) -> list[RowFault]:
        """Return all that is wrong with a row, each once; `first` is what its jobs could not be made for."""
        if row.problem:
            return [first]
        wrong = dict.fromkeys([first]) if first.field == "output.name" else {}
        looked_at = (one for one in self._variables(row, self._cells(row)) if self._is_looked_at(one))
        for variables in itertools.islice(looked_at, _LOOKED_AT):
            wrong |= dict.fromkeys(self._wrong_with(variables))
        if wrong or self.faults:  # where it is nothing of its own, that has been said of the manifest
            return [*wrong]
        return [first]

    def _wrong_with(self, variables: Mapping[str, object]) -> Iterator[RowFault]:
        """Report what is wrong with one job, apart from file names that it shares with others."""
        inputs, unmade = self._input_builder.all_wrong(variables)
        yield from unmade
        unsure = self._input_builder.unmade | {bad.field for bad in unmade}
        sent = inputs.copy()
        images: list[Image] = []
        inline = 0
        for name in [name for name in inputs if name in self._media_inputs]:
            if wrong := self._media.wrong(name, inputs[name]):
                unsure.add(name)
                yield from wrong
                continue
            placed = self._media.placed(name, inputs[name])
            sent[name] = placed.sent
            images += placed.images
            inline += placed.inline
        priced = True
        for name, message in self._model.faults(sent):
            if name.partition(".")[0] not in unsure and (
                name in sent or "." in name or not self._input_builder.misspelt
            ):
                priced = priced and name != PRICED_BY
                yield RowFault(name, message)
        for check in (
            lambda: self._sized(images, inline),
            lambda: self._priced(sent) if priced else None,  # else it is not the price that is wrong
            lambda: self._chosen(variables),
            lambda: self._content(sent, images),
        ):
            try:
                check()
            except RowFault as bad:
                yield bad

    def _place(self, row: Row, bad: RowFault) -> tuple[str, int]:
        """Return where the fault stands: in the row, or in the manifest or option that every row shares."""
        top, manifest = bad.field.partition(".")[0], self._manifest
        if bad.field == "--where":
            return "--where", 1
        if top in self._input_builder.sets and top not in row.values:
            return "--set", 1
        if top in manifest.document.matrix and top not in row.values:
            return manifest.file, manifest.marked.line("matrix", top)
        if self._input_builder.is_fixed(top) and top not in row.values:
            return manifest.file, manifest.marked.line("inputs", top)
        return self._place_of(row)

    def _place_of(self, row: Row) -> tuple[str, int]:
        """Return where a row stands: a photo is its own file."""
        return row.file or self._manifest.rows_label, row.line

    def _note(self, row: Row, bad: RowFault) -> None:
        """Note what is wrong; what every row has, once."""
        file, line = self._place(row, bad)
        field = "" if bad.field == "--where" else bad.field
        message = str(bad)
        fault = Fault(file, line, field, message.removeprefix(f"{row.file} ") if file == row.file else message)
        if message == MISSING and self._known_by_row:
            self._missing.setdefault(field, []).append(fault)
            return
        if (file, line) != self._place_of(row):
            if fault in self._told:
                return
            self._told.add(fault)
        self.faults.add(fault)

    def _jobs_of(self, row: Row) -> Iterator[tuple[Spec, bool]]:
        if row.problem:
            raise RowFault("", row.problem)
        cells = self._cells(row) if self._whole_rows or row.empty else {}
        equal = looked_at = False
        for number, variables in enumerate(
            [{"index": row.number, **cells, **row.values, "sample": 1}] if self._single else self._variables(row, cells)
        ):
            turn = number % self._manifest.document.repeat + 1
            chosen = self._where is None or self._chosen(variables)
            looked_at = looked_at or chosen
            self._media.counts = chosen
            depth = self.expansion_counts.depth
            try:
                spec, again = self._job(row, variables, turn)
            except RowFault:
                if chosen:
                    raise
                self.expansion_counts.put_back(depth)  # what is left out need not be right
                self.expansion_counts.unmade += 1
                continue
            equal = equal or (again and turn == 1)
            yield spec, chosen
        self.expansion_counts.equal_rows += equal
        if looked_at and not self._input_builder.written.isdisjoint(row.empty):
            self.expansion_counts.blank.update(self._input_builder.written.intersection(row.empty))

    def _cells(self, row: Row) -> dict[str, object]:
        """Return what templates see of a row beside its values: cells that are empty, and the row as a whole."""
        cells: dict[str, object] = dict.fromkeys(row.empty, EMPTY)
        if self._whole_rows:
            by_heading = {
                heading.strip(): cell or EMPTY for heading, cell in zip(self._headings, row.cells, strict=False)
            }
            cells = {
                ROW: RowCells({**dict.fromkeys(self._headings, EMPTY), **by_heading, **cells, **row.values}),
                **cells,
            }
        return cells

    def _variables(self, row: Row, cells: Mapping[str, object]) -> Iterator[dict[str, object]]:
        """Yield what templates see of each job of a row: every combination of the matrix, each so many times."""
        matrix = self._manifest.document.matrix
        for combination in itertools.product(*matrix.values()):
            chosen = {name: value for name, value in zip(matrix, combination, strict=True) if value is not None}
            named = {"index": row.number, **cells, **row.values, **chosen}
            for turn in range(1, self._manifest.document.repeat + 1):
                yield {**named, "sample": turn}

    def _is_looked_at(self, variables: Mapping[str, object]) -> bool:
        """Return whether a job is not left out by `--where`, as far as that can be told."""
        try:
            return self._chosen(variables)
        except RowFault:
            return True

    def _note_missing(self) -> None:
        """Note what rows of JSONL lack: once where every row lacks it."""
        for name, faults in self._missing.items():
            if len(faults) < max(2, self.expansion_counts.rows):
                for fault in faults:
                    self.faults.add(fault)
                continue
            where = f"no row of {self._manifest.rows_label} has it, and it is not in `inputs`"
            self.faults.add(Fault(self._manifest.file, 1, name, f"{MISSING}: {where}"))

    def _chosen(self, variables: Mapping[str, object]) -> bool:
        try:
            return self._where is None or self._where.holds(variables)
        except BadTemplate as bad:
            if self._where and self._where.names - variables.keys() and self._where.names <= self._known:
                return False  # a cell that it asks for is empty here
            raise RowFault("--where", str(bad), of_manifest=True) from None

    def _job(self, row: Row, variables: dict[str, object], turn: int) -> tuple[Spec, bool]:
        inputs = self._input_builder.make(variables)
        sent = inputs.copy()
        sources: tuple[str, ...] = ()
        images: tuple[Image, ...] = ()
        inline = 0
        media = self._media_inputs
        for name, value in inputs.items():
            if name in media:
                placed = self._media.placed(name, value)
                sent[name] = placed.sent
                sources += placed.sources
                images += placed.images
                inline += placed.inline
        for name, message in self._model.faults(sent):
            raise RowFault(name, message)
        size = self._sized(images, inline)
        content = self._content(sent, images)
        sample, again = self._sample(content, turn)
        job_id = self._ids.of(content, sample)
        estimate = self._priced(sent)
        name = self._naming.of(row, variables, inputs, job_id, sent, sample)
        self.expansion_counts.estimated_usd += estimate or 0.0
        self.expansion_counts.inlined_bytes += size
        self.expansion_counts.unkept += is_unkept(sent)
        spec = Spec(
            id=job_id,
            name=name,
            model=self._model.id,
            inputs=sent,
            images=images,
            sources=sources,
            vars=self._vars(row, variables, inputs),
            sample=sample,
            row=row.number,
            rows_file=self._manifest.rows_file,
            estimated_usd=estimate,
            request_class=self._model.request_class(sent),
        )
        return spec, again

    @staticmethod
    def _vars(row: Row, variables: Mapping[str, object], inputs: Mapping[str, object]) -> dict[str, object]:
        """Return the variables that a sidecar records: `index` and `sample` too, where the row has such columns."""
        said = {
            key: value
            for key, value in variables.items()
            if key not in inputs and key not in PER_RUN and value is not EMPTY and type(value) is not RowCells
        }
        if not PER_RUN.isdisjoint(row.values):
            said |= {key: row.values[key] for key in PER_RUN & row.values.keys() if key not in inputs}
        return said

    def _content(self, sent: Mapping[str, object], images: Sequence[Image]) -> bytes:
        """Return what a job's id counts. Raises RowFault where that has no exact form."""
        try:
            return canonical(counted(self._model, sent, images, self._ignores))
        except NotCanonical as error:
            for name, value in sent.items():
                with suppress(NotCanonical):
                    canonical({"": value})
                    continue
                raise RowFault(name, f"cannot be sent as it is: {error}") from None
            raise RowFault("", f"cannot be sent as it is: {error}") from None

    def _sized(self, images: Sequence[Image], inline: int) -> int:
        """Return the bytes of a job's local images. Raises RowFault where a request does not take them.

        `inline`: characters of the data URIs that the manifest holds; they are sent as they are.
        """
        if not images and not inline:
            return 0
        size = sum([image.bytes for image in images])
        most = self._most_inline
        if size * 4 / 3 + inline > most:
            encoded, takes = (size * 4 / 3 + inline) / 2**20, most / 2**20
            helps = "" if most == MAX_REQUEST else ": set `images: {max_side: 2048}`, or give https URLs"
            raise RowFault(
                "", f"its images have {encoded:.0f} MiB in all, encoded; a request takes {takes:.0f} MiB{helps}"
            )
        return size

    def _priced(self, sent: Mapping[str, object]) -> float | None:
        """Return what a job may cost in USD. Raises RowFault where nobody knows and it matters."""
        estimate = self._model.estimate(sent, self._prices)
        if estimate is None and self._capped:
            message = "has no price: say it under `prices:`, or drop the limit to the cost"
            raise RowFault(PRICED_BY, message, of_manifest=True)
        return estimate

    def _sample(self, inputs: bytes, turn: int) -> tuple[int, bool]:
        """Return the sample number, and whether an earlier row asked for the same."""
        key = fingerprint(inputs)
        last = self.expansion_counts.samples.get(key) or 0
        sample = max(turn, last + 1)
        self.expansion_counts.put(self.expansion_counts.samples, key, sample)
        return sample, last > 0
