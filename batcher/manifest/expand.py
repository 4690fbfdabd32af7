"""Expands rows x matrix x repeat into a stream of jobs: fills templates, reads values, checks each by its schema."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from batcher.catalog import Model, Prices
from batcher.errors import Fault
from batcher.hosting.inline import MAX_REQUEST, Looks
from batcher.job import Image, Spec
from batcher.manifest.census import Census
from batcher.manifest.document import RowsFile
from batcher.manifest.faults import SHOWN, did_you_mean
from batcher.manifest.identity import Ids, canonical, fingerprint
from batcher.manifest.manifest import Manifest
from batcher.manifest.media import Bad, Media, counted
from batcher.manifest.names import folded, safe_name
from batcher.manifest.rows import Row, Rows
from batcher.manifest.templates import BadTemplate, Condition, Template, slug
from batcher.manifest.values import reader

Path = tuple[str | int, ...]
_LEGROOM: Final = 20
"""Bytes of a name kept free for `-4~12.webp` and the like."""
_WORDS: Final = 48
"""Characters of a prompt in a file's name."""
_PER_RUN: Final = frozenset({"sample", "index"})


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line adds to a manifest."""

    sets: Mapping[str, str] = field(default_factory=dict)
    where: str | None = None
    skip_invalid: bool = False


Reject = Callable[[Row, Sequence[str] | None, str], None]
Make = Callable[[Mapping[str, object]], object]


class Expansion:
    """The jobs of a manifest. Iterate it once: it raises ManifestFaulty at its end where there were faults."""

    def __init__(
        self,
        manifest: Manifest,
        model: Model,
        looks: Looks,
        options: Options,
        reject: Reject | None = None,
        *,
        capped: bool = False,
    ) -> None:
        """`capped`: there is a limit to the cost, so that a job without a price is a fault."""
        self._capped = capped
        self.census = Census()
        self.faults = manifest.faults.copy()
        self._manifest = manifest
        self._model = model
        self._options = options
        self._reject = reject if options.skip_invalid else None
        document = manifest.document
        self._prices = Prices(document.prices) if document.prices else None
        self._ignores = document.id_ignores
        self._media = Media(looks, manifest, document.images.max_side)
        self._unmade: set[str] = set()
        """Inputs whose fault is noted already: of them no row says more."""
        self._misspelt = False
        """What a row seems to lack may be what was meant."""
        self._inputs = self._templates(document.inputs)
        self._sets = self._read_sets()
        self._name = self._template("output.name", document.output.name)
        self._where = self._condition()
        self._check_names_of_inputs()
        self._ids = Ids(model.id)
        self._told: set[Fault] = set()
        """What was said of the manifest itself already."""
        self._fields = frozenset(model.properties) - _PER_RUN
        self._readers = {name: reader(schema) for name, schema in model.properties.items()}
        self._makers: dict[str, Make] = {}
        """Of the inputs that change from job to job."""
        self._fixed: dict[str, object] = {}
        """All inputs in their order, with the values of those that do not."""
        self._set_values: dict[str, object] = {}
        self._media_inputs = model.media
        self._single = not document.matrix and document.repeat == 1
        self._make_ready()

    def __iter__(self) -> Iterator[tuple[Spec, bool]]:
        try:
            yield from self._all()
        finally:
            self.census.close()

    def _all(self) -> Iterator[tuple[Spec, bool]]:
        rows = self._manifest.rows(self.faults)
        checked = False
        for row in rows:
            if not checked:
                checked = True
                self._check_variables(row, rows)
            yield from self._row(row, rows)
        if not self.faults and self.census.jobs == 0:
            self.faults.add(Fault(self._manifest.file, 1, "jobs", "names no job"))
        if self.faults:
            raise self.faults.error()

    # What the manifest itself says, checked once.

    def _templates(self, inputs: Mapping[str, object]) -> dict[str, object]:
        made: dict[str, object] = {}
        for name, value in inputs.items():
            before = self.faults.count
            made[str(name)] = self._compiled(("inputs", str(name)), value)
            if self.faults.count > before:
                self._unmade.add(str(name))
        return {name: value for name, value in made.items() if name not in self._unmade}

    def _compiled(self, path: Path, value: object) -> object:
        if isinstance(value, str):
            return self._template(".".join(map(str, path)), value, path)
        if isinstance(value, list):
            return [self._compiled((*path, index), item) for index, item in enumerate(value)]
        if isinstance(value, dict):
            return {str(key): self._compiled((*path, str(key)), item) for key, item in value.items()}
        return value

    def _template(self, field: str, text: str | None, path: Path = ()) -> Template | None:
        if text is None:
            return None
        try:
            return Template(text)
        except BadTemplate as bad:
            path = path or tuple(field.split("."))
            self.faults.add(Fault(self._manifest.file, self._manifest.marked.line(*path), field, str(bad)))
            return None

    def _read_sets(self) -> dict[str, object]:
        for name in self._options.sets:
            if name not in self._model.properties:
                message = "is no input of the model" + did_you_mean(name, set(self._model.properties))
                self.faults.add(Fault("--set", 1, name, message))
                self._misspelt = True
        return {name: text for name, text in self._options.sets.items() if name in self._model.properties}

    def _condition(self) -> Condition | None:
        try:
            return Condition(self._options.where) if self._options.where else None
        except BadTemplate as bad:
            self.faults.add(Fault("--where", 1, "", str(bad)))
            return None

    def _check_names_of_inputs(self) -> None:
        for name in [name for name in self._inputs if name not in self._model.properties]:
            message = f"is no input of {self._model.id}" + did_you_mean(name, set(self._model.properties))
            line = self._manifest.marked.line("inputs", name)
            self.faults.add(Fault(self._manifest.file, line, f"inputs.{name}", message))
            self._misspelt = True
            del self._inputs[name]

    def _columns(self, row: Row, rows: object) -> tuple[set[str], str] | None:
        """Give the names that rows have, and what to call where they are from; None where each row has its own."""
        jobs = self._manifest.document.jobs
        if isinstance(rows, Rows):
            if rows.header is None:
                return None
            renamed = set(jobs.columns) if isinstance(jobs, RowsFile) else set()
            header = {heading.strip() for heading in rows.header}
            return header | renamed | set(row.values), f"no column of {rows.label}"
        if isinstance(jobs, list):
            return {str(key) for job in jobs for key in job}, "in no job"
        return set(row.values), "nothing that is known of a file" if jobs else "no variable"

    def _check_variables(self, row: Row, rows: object) -> None:
        """Say once, not for every row, that a template asks for a name that is not there."""
        found = self._columns(row, rows)
        if found is None:
            return
        columns, where = found
        matrix = set(self._manifest.document.matrix)
        known = columns | matrix | _PER_RUN
        asks = [
            (("inputs", name), _names_in(value) - known)
            for name, value in self._inputs.items()
            if name not in columns | matrix and name not in self._sets
        ]
        if self._name:
            asks.append((("output", "name"), self._name.names - known - set(self._model.properties) - {"job_id"}))
        for path, names in asks:
            for asked in sorted(names):
                message = f"asks for `{asked}`, which is {where} and not in the matrix" + did_you_mean(asked, known)
                self.faults.add(Fault(self._manifest.file, self._manifest.marked.line(*path), ".".join(path), message))
            if names and path[0] == "inputs":
                self._unmade.add(path[1])
                del self._makers[path[1]], self._fixed[path[1]]
            elif names:
                self._name = None

    def _make_ready(self) -> None:
        """Find what makes each input's value of a job's variables; what depends on none is made once."""
        for name, value in self._inputs.items():
            if name in self._sets:
                continue
            fixed = _is_fixed(value)
            self._fixed[name] = self._readers[name](self._filled(name, value, {})) if fixed else None
            if not fixed:
                self._makers[name] = self._maker(name, value)
        self._set_values = {name: self._readers[name](text) for name, text in self._sets.items()}
        self._fixed |= self._set_values

    def _maker(self, name: str, value: object) -> Make:
        read = self._readers[name]
        if not isinstance(value, Template):
            return lambda variables: read(self._filled(name, value, variables))
        fill = value.fill

        def make(variables: Mapping[str, object]) -> object:
            try:
                return read(fill(variables))
            except BadTemplate as bad:
                raise Bad(name, str(bad)) from None

        return make

    # What each row says.

    def _row(self, row: Row, rows: object) -> Iterator[tuple[Spec, bool]]:
        self.census.rows += 1
        try:
            jobs = self._jobs_of(row)
        except Bad as first:
            self._bad_row(row, rows, self._all_wrong(row, first))
            return
        self.census.jobs += len(jobs)
        yield from jobs

    def _bad_row(self, row: Row, rows: object, wrong: Sequence[Bad]) -> None:
        if self._reject is None or any(bad.of_manifest for bad in wrong):
            for bad in wrong:
                self._note(row, bad)
            return
        self.census.rejected += 1
        header = rows.header if isinstance(rows, Rows) else None
        self._reject(row, header, "; ".join(f"{bad.field}: {bad}" if bad.field else str(bad) for bad in wrong))

    def _all_wrong(self, row: Row, first: Bad) -> list[Bad]:
        """Give all that is wrong with a row, each once; `first` is what its jobs could not be made for."""
        if row.problem:
            return [first]
        wrong = dict.fromkeys([first]) if first.field == "output.name" else {}
        for variables in self._variables(row):
            wrong |= dict.fromkeys(self._wrong_with(variables))
            if len(wrong) >= SHOWN:
                break
        return [*wrong]

    def _wrong_with(self, variables: Mapping[str, object]) -> Iterator[Bad]:
        """Say what is wrong with one job, but for what its file's name has to do with others."""
        inputs, unsure = self._fixed | self._set_values, set(self._unmade)
        for name in self._makers:
            try:
                inputs[name] = self._makers[name](variables)
            except Bad as bad:
                unsure.add(name)
                yield bad
        inputs |= self._given(variables)
        sent = inputs.copy()
        images: list[Image] = []
        for name in self._media_inputs & inputs.keys():
            if wrong := self._media.wrong(name, inputs[name]):
                unsure.add(name)
                yield from wrong
                continue
            placed = self._media.placed(name, inputs[name])
            sent[name] = placed.sent
            images += placed.images
        for name, message in self._model.faults(sent):
            if name.partition(".")[0] not in unsure and (name in sent or "." in name or not self._misspelt):
                yield Bad(name, message)
        for check in (lambda: self._sized(images), lambda: self._priced(sent), lambda: self._chosen(variables)):
            try:
                check()
            except Bad as bad:
                yield bad

    def _note(self, row: Row, bad: Bad) -> None:
        """Note what is wrong where it stands: in the row, or once in the manifest or the option that every row has."""
        top, manifest = bad.field.partition(".")[0], self._manifest
        file, line = manifest.rows_label, row.line
        if bad.field == "--where" or (top in self._sets and top not in row.values):
            file, line = ("--where" if bad.field == "--where" else "--set"), 1
        elif top in row.values:
            pass
        elif top in manifest.document.matrix:
            file, line = manifest.file, manifest.marked.line("matrix", top)
        elif top in self._inputs and _is_fixed(self._inputs[top]):
            file, line = manifest.file, manifest.marked.line("inputs", top)
        field = "" if bad.field == "--where" else bad.field
        fault = Fault(file, line, field, str(bad))
        if (file, line) != (manifest.rows_label, row.line):
            if fault in self._told:
                return
            self._told.add(fault)
        self.faults.add(fault)

    def _jobs_of(self, row: Row) -> list[tuple[Spec, bool]]:
        if row.problem:
            raise Bad("", row.problem)
        if self._single:
            variables = {"index": row.number, **row.values, "sample": 1}
            spec, equal = self._job(row, variables, 1)
            self.census.equal_rows += equal
            return [(spec, self._where is None or self._chosen(variables))]
        jobs, equal = [], False
        for number, variables in enumerate(self._variables(row)):
            turn = number % self._manifest.document.repeat + 1
            spec, again = self._job(row, variables, turn)
            equal = equal or (again and turn == 1)
            jobs.append((spec, self._chosen(variables)))
        self.census.equal_rows += equal
        return jobs

    def _variables(self, row: Row) -> Iterator[dict[str, object]]:
        """Give what templates see of each job of a row: every combination of the matrix, each so many times."""
        matrix = self._manifest.document.matrix
        for combination in itertools.product(*matrix.values()):
            named = {"index": row.number, **row.values, **dict(zip(matrix, combination, strict=True))}
            for turn in range(1, self._manifest.document.repeat + 1):
                yield {**named, "sample": turn}

    def _chosen(self, variables: Mapping[str, object]) -> bool:
        try:
            return self._where is None or self._where.holds(variables)
        except BadTemplate as bad:
            raise Bad("--where", str(bad)) from None

    def _job(self, row: Row, variables: dict[str, object], turn: int) -> tuple[Spec, bool]:
        inputs = self._final_inputs(variables)
        sent = inputs.copy()
        sources: tuple[str, ...] = ()
        images: tuple[Image, ...] = ()
        media = self._media_inputs
        for name, value in inputs.items():
            if name in media:
                placed = self._media.placed(name, value)
                sent[name] = placed.sent
                sources += placed.sources
                images += placed.images
        for name, message in self._model.faults(sent):
            raise Bad(name, message)
        size = self._sized(images)
        content = canonical(counted(self._model, sent, images, self._ignores))
        sample, again = self._sample(content, turn)
        job_id = self._ids.of(content, sample)
        estimate = self._priced(sent)
        name = self._file_name(row, variables, inputs, job_id, sent, sample)
        self.census.estimated_usd += estimate or 0.0
        self.census.inlined_bytes += size
        self.census.unkept += sent.get("sync_mode") is True
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
        )
        return spec, again

    @staticmethod
    def _vars(row: Row, variables: Mapping[str, object], inputs: Mapping[str, object]) -> dict[str, object]:
        """Give what a sidecar says of the row: its own `index` and `sample` too, where it has columns of that name."""
        said = {key: value for key, value in variables.items() if key not in inputs and key not in _PER_RUN}
        if not _PER_RUN.isdisjoint(row.values):
            said |= {key: row.values[key] for key in _PER_RUN & row.values.keys() if key not in inputs}
        return said

    def _sized(self, images: Sequence[Image]) -> int:
        """Give the bytes of a job's images. Raises Bad where a request does not take them."""
        size = sum([image.bytes for image in images])
        if size * 4 / 3 > MAX_REQUEST:
            raise Bad("", f"its images have {size / 2**20:.0f} MiB in all; a request takes 64 MiB, encoded")
        return size

    def _priced(self, sent: Mapping[str, object]) -> float | None:
        """Give what a job may cost in USD. Raises Bad where nobody knows and it matters."""
        estimate = self._model.estimate(sent, self._prices)
        if estimate is None and self._capped:
            message = "has no price: say it under `prices:`, or drop the limit to the cost"
            raise Bad("resolution", message, of_manifest=True)
        return estimate

    def _given(self, variables: Mapping[str, object]) -> dict[str, object]:
        """Give the inputs that the row and the matrix set themselves."""
        return {
            name: self._readers[name](value)
            for name, value in variables.items()
            if name in self._fields and name not in self._sets
        }

    def _final_inputs(self, variables: Mapping[str, object]) -> dict[str, object]:
        inputs = self._fixed.copy()
        if self._fields.isdisjoint(variables):
            for name, make in self._makers.items():
                inputs[name] = make(variables)
            return inputs
        given = self._given(variables)
        for name in (*given, *self._set_values):
            inputs.pop(name, None)
        for name, make in self._makers.items():
            if name not in given:
                inputs[name] = make(variables)
        return inputs | given | self._set_values

    def _filled(self, field: str, value: object, variables: Mapping[str, object]) -> object:
        if isinstance(value, Template):
            try:
                return value.fill(variables)
            except BadTemplate as bad:
                raise Bad(field, str(bad)) from None
        if isinstance(value, list):
            return [self._filled(field, item, variables) for item in value]
        if isinstance(value, dict):
            return {key: self._filled(field, item, variables) for key, item in value.items()}
        return value

    def _sample(self, inputs: bytes, turn: int) -> tuple[int, bool]:
        """Give the sample number, and whether an earlier row asked for the same."""
        key = fingerprint(inputs)
        last = self.census.samples.get(key) or 0
        sample = max(turn, last + 1)
        self.census.samples.put(key, sample)
        return sample, last > 0

    def _file_name(
        self,
        row: Row,
        variables: Mapping[str, object],
        inputs: Mapping[str, object],
        job_id: str,
        sent: Mapping[str, object],
        sample: int,
    ) -> str:
        if self._name is None:
            prompt = _first_words(str(sent.get("prompt") or next(iter(sent.values()), "")))
            text = f"{prompt}-{job_id}" if prompt else job_id
            if text.isascii():  # safe as it is, and its own: it ends with the job's id
                return text if sample == 1 else f"{text}~{sample}"
        else:
            try:
                text = self._name.fill({**variables, **inputs, "sample": sample, "job_id": job_id})
            except BadTemplate as bad:
                raise Bad("output.name", str(bad)) from None
        name = safe_name(text, _LEGROOM)
        if sample > 1 and (self._name is None or "sample" not in self._name.names):
            name += f"~{sample}"
        self._claim(name, row, self._model.outputs(sent))
        return name

    def _claim(self, name: str, row: Row, count: int) -> None:
        """Take note of a job's file names. Raises Bad where another job has one of them."""
        for taken in [name] if count == 1 else [name, *(f"{name}-{index}" for index in range(1, count + 1))]:
            key = fingerprint(folded(taken).encode("utf-8", "surrogatepass"))
            if other := self.census.names.get(key):
                message = f"`{taken}` is also a file of row {other}; let the name tell them apart"
                raise Bad("output.name", message)
            self.census.names.put(key, row.number)


def _first_words(text: str) -> str:
    """Give the beginning of a text's slug, which in a long text its beginning alone decides."""
    words = slug(text[: 4 * _WORDS])
    if len(words) < 2 * _WORDS and len(text) > 4 * _WORDS:
        words = slug(text)
    return words[:_WORDS].strip("-")


def _is_fixed(value: object) -> bool:
    if isinstance(value, Template):
        return value.plain
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return all(map(_is_fixed, items))


def _names_in(value: object) -> frozenset[str]:
    if isinstance(value, Template):
        return value.names
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return frozenset().union(*(_names_in(item) for item in items))
