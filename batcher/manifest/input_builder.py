"""What a manifest says of a job's inputs: its templates compiled, what is wrong with them noted once, not by row."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cached_property
from typing import Final

from batcher.catalog import COUNT_FIELDS, Model, takers
from batcher.errors import Fault
from batcher.manifest.cells import EMPTY, ROW
from batcher.manifest.faults import Faults, did_you_mean
from batcher.manifest.manifest import Manifest
from batcher.manifest.media_inputs import RowFault
from batcher.manifest.templates import BadTemplate, Template
from batcher.manifest.values import reader

Path = tuple[str | int, ...]
Make = Callable[[Mapping[str, object]], object]
PER_RUN: Final = frozenset({"sample", "index"})
"""What templates see that no row says."""


class InputBuilder:
    """Makes a job's inputs of its variables. The later wins: the manifest's inputs, row, matrix, `--set`."""

    def __init__(self, manifest: Manifest, model: Model, sets: Mapping[str, str], faults: Faults) -> None:
        self._faults = faults
        self._manifest = manifest
        self._model = model
        self.unmade: set[str] = set()
        """Inputs whose fault is noted already: of them no row says more."""
        self.misspelt = False
        """What a row seems to lack may be what was meant."""
        self._inputs = self._templates(manifest.document.inputs)
        self.sets = self._read_sets(sets)
        self.name = self._template("output.name", manifest.document.output.name)
        self._check_names_of_inputs()
        self._fields = frozenset(model.properties) - PER_RUN - {ROW}
        self._readers = {name: reader(schema) for name, schema in model.properties.items()}
        self._makers: dict[str, Make] = {}
        """Of the inputs that change from job to job."""
        self._fixed: dict[str, object] = {}
        """All inputs in their order, with the values of those that do not."""
        self._set_values: dict[str, object] = {}
        self._make_ready()

    def is_fixed(self, name: str) -> bool:
        """Return whether every job has the same value of an input, as the manifest has it."""
        return name in self._inputs and _is_fixed(self._inputs[name])

    def fixed(self) -> dict[str, object]:
        """Return the inputs that are the same in every job."""
        return {name: value for name, value in self._fixed.items() if name not in self._makers}

    def read(self, name: str, value: object) -> object:
        """Read a value as the model's schema wants it."""
        return self._readers[name](value)

    def make(self, variables: Mapping[str, object]) -> dict[str, object]:
        """Return a job's inputs. Raises RowFault."""
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

    def all_wrong(self, variables: Mapping[str, object]) -> tuple[dict[str, object], list[RowFault]]:
        """Return the inputs that can be made, and what is wrong with each of the others."""
        given, wrong = self._given(variables), []
        inputs = self._fixed.copy()
        for name, make in self._makers.items():
            if name in given:
                continue
            try:
                inputs[name] = make(variables)
            except RowFault as bad:
                wrong.append(bad)
                del inputs[name]
        return inputs | given | self._set_values, wrong

    @cached_property
    def uses_rows(self) -> bool:
        """Whether a template reads the row as a whole."""
        return any(template.reads_row for template in self._all_templates())

    @cached_property
    def written(self) -> frozenset[str]:
        """The variables and columns whose text some template takes whatever they hold."""
        return frozenset().union(*(template.written for template in self._all_templates()))

    def _all_templates(self) -> list[Template]:
        return [*(one for value in self._inputs.values() for one in _templates_in(value)), *filter(None, [self.name])]

    def check_required(self, columns: set[str], where: str) -> None:
        """Report once, not for every row, that nothing sets an input that the model requires."""
        required = self._model.schema.get("required")
        given = columns | self._manifest.document.matrix.keys() | self._inputs.keys() | self.sets.keys() | self.unmade
        for name in required if isinstance(required, list) and not self.misspelt else ():
            if name in given:
                continue
            message = f"is missing, and the model requires it: it is {where}, and not in `inputs`"
            near = get_close_matches(name, columns, n=1, cutoff=0.6)
            meant = f"; did you mean `{near[0]}`?" if near else ""
            self._faults.add(Fault(self._manifest.file, 1, name, message + meant))
            self.unmade.add(name)

    def not_taken(self, columns: set[str]) -> dict[str, str]:
        """Return the columns that nothing uses, and that are inputs at another provider: by name, which."""
        used = self._fields.union(*(template.names for template in self._all_templates()))
        found = {name: takers(self._model, name) for name in sorted(columns - used)}
        return {name: others[0] for name, others in found.items() if others}

    def check_variables(self, columns: set[str], where: str) -> None:
        """Report once, not for every row, that a template uses a name that is neither in a row nor in the matrix."""
        matrix = set(self._manifest.document.matrix)
        known = columns | matrix | PER_RUN | {ROW}
        asks = [
            (("inputs", name), (_names_in(value) - known) | _missing_cells(value, columns))
            for name, value in self._inputs.items()
            if name not in columns | matrix and name not in self.sets
        ]
        if self.name:
            unknown = self.name.names - known - set(self._model.properties) - {"job_id"}
            asks.append((("output", "name"), unknown | _missing_cells(self.name, columns)))
        for path, names in asks:
            for asked in sorted(names):
                message = f"asks for `{asked}`, which is {where} and not in the matrix" + did_you_mean(asked, known)
                self._faults.add(Fault(self._manifest.file, self._manifest.marked.line(*path), ".".join(path), message))
            if names and path[0] == "inputs":
                self.unmade.add(path[1])
                del self._makers[path[1]], self._fixed[path[1]]
            elif names:
                self.name = None

    def _templates(self, inputs: Mapping[str, object]) -> dict[str, object]:
        made: dict[str, object] = {}
        for name, value in inputs.items():
            before = self._faults.count
            made[str(name)] = self._compiled(("inputs", str(name)), value)
            if self._faults.count > before:
                self.unmade.add(str(name))
        return {name: value for name, value in made.items() if name not in self.unmade}

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
            if "\0" in text:
                raise BadTemplate("has a NUL byte")
            return Template(text, field)
        except BadTemplate as bad:
            path = path or tuple(field.split("."))
            self._faults.add(Fault(self._manifest.file, self._manifest.marked.line(*path), field, str(bad)))
            return None

    def _read_sets(self, sets: Mapping[str, str]) -> dict[str, str]:
        for name in sets:
            if name not in self._model.properties:
                message = f"is not an input of {self._model.called}" + self._meant(name)
                self._faults.add(Fault("--set", 1, name, message))
                self.misspelt = True
        return {name: text for name, text in sets.items() if name in self._model.properties}

    def _meant(self, name: str) -> str:
        if others := takers(self._model, name):
            return f"; it is one at {others[0]}: --provider {others[0]}"
        if name in COUNT_FIELDS:
            meant = self._model.meant_by(name)
            return f"; did you mean `{meant}`?" if meant else "; it makes one output a request: use `repeat` for more"
        return did_you_mean(name, set(self._model.properties))

    def _check_names_of_inputs(self) -> None:
        for name in [name for name in self._inputs if name not in self._model.properties]:
            message = f"is not an input of {self._model.called}" + self._meant(name)
            line = self._manifest.marked.line("inputs", name)
            self._faults.add(Fault(self._manifest.file, line, f"inputs.{name}", message))
            self.misspelt = True
            del self._inputs[name]

    def _make_ready(self) -> None:
        """Find what makes each input's value of a job's variables; what depends on none is made once."""
        for name, value in self._inputs.items():
            if name in self.sets:
                continue
            fixed = _is_fixed(value)
            self._fixed[name] = self._readers[name](self._filled(name, value, {})) if fixed else None
            if not fixed:
                self._makers[name] = self._maker(name, value)
        self._set_values = {name: self._readers[name](text) for name, text in self.sets.items()}
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
                raise RowFault(name, str(bad)) from None

        return make

    def _given(self, variables: Mapping[str, object]) -> dict[str, object]:
        """Return the inputs that the row and the matrix set themselves."""
        return {
            name: self._readers[name](value)
            for name, value in variables.items()
            if name in self._fields and name not in self.sets and value is not EMPTY
        }

    def _filled(self, field: str, value: object, variables: Mapping[str, object]) -> object:
        if isinstance(value, Template):
            try:
                return value.fill(variables)
            except BadTemplate as bad:
                raise RowFault(field, str(bad)) from None
        if isinstance(value, list):
            return [self._filled(field, item, variables) for item in value]
        if isinstance(value, dict):
            return {key: self._filled(field, item, variables) for key, item in value.items()}
        return value


def _is_fixed(value: object) -> bool:
    if isinstance(value, Template):
        return value.plain
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return all(map(_is_fixed, items))


def _templates_in(value: object) -> list[Template]:
    if isinstance(value, Template):
        return [value]
    items = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
    return [template for item in items for template in _templates_in(item)]


def _names_in(value: object) -> frozenset[str]:
    return frozenset().union(*(template.names for template in _templates_in(value)))


def _missing_cells(value: object, columns: set[str]) -> frozenset[str]:
    """Return the columns that `row["..."]` reads and that no row has; none where a column itself is called `row`."""
    if ROW in columns:
        return frozenset()
    return frozenset().union(*(template.cells for template in _templates_in(value))) - columns
