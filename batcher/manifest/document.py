"""The manifest's own form: which keys there are, and what they mean. One model reads it and describes it."""

from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from batcher.errors import Fault
from batcher.manifest.faults import Faults, did_you_mean
from batcher.manifest.yaml_lines import YamlWithLines
from batcher.provider import PROVIDERS
from batcher.settings import Limits, Retry


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RowsFile(_Section):
    """A CSV or JSONL file of jobs."""

    file: str
    """The file, relative to the manifest."""
    columns: dict[str, str] = {}
    """Variable or input: the column's heading, where they differ."""
    fill_down: list[str] = []
    """Columns whose cells are carried down into empty ones below, as shops' exports leave them."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = None
    """Of a CSV file; comma, semicolon and tab are told apart without it."""
    encoding: str | None = None
    """Of the file, as Python names it; UTF-8 without it."""


class RowsGlob(_Section):
    """A job for each file that matches; it gives `path`, `stem` and `index`."""

    glob: str | list[str]
    """Files, relative to the manifest: a pattern (`photos/*.jpg`), a folder (its photos), `photos/**` (and those of all
    folders in it), or a list of these. The case of letters does not matter, hidden files are left out."""

    @field_validator("glob", mode="before")
    @classmethod
    def _form_of_glob(cls, value: object) -> object:
        if isinstance(value, str) or (isinstance(value, list) and value and all(isinstance(one, str) for one in value)):
            return value
        raise ValueError("is not a file pattern, a folder or a list of these")


class OutputSection(_Section):
    """How files are named."""

    name: str | None = None
    """A template for the file's name, without extension; may hold `/`. Without it: words of the prompt, and the job's
    id."""


class ImagesSection(_Section):
    """What is done to local images before they are sent."""

    max_side: Annotated[int, Field(ge=64, le=16_384)] | None = None
    """Pixels: larger local photos are turned upright, shrunk to it and re-encoded. Without it they are sent as they
    are."""


class Document(_Section):
    """A manifest."""

    model: str | None = None
    """The model's id: `batcher models` lists those known."""
    provider: str | None = None
    """Who makes the results, by the name that the page on providers has; without it, the first of these."""
    name: Annotated[str, Field(min_length=1)] | None = None
    """What the run is called; without it, the file's stem."""
    inputs: dict[str, Any] = {}
    """What every job sends; strings are templates: `{{ title }}`."""
    jobs: str | RowsFile | RowsGlob | list[dict[str, Any]] | None = None
    """The rows: a CSV or JSONL file, its details, a pattern of files, or an inline list; without it, one row."""
    matrix: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}
    """Variable or input: its values. Every combination makes a job, for every row."""
    repeat: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Samples of the same inputs."""
    output: OutputSection = OutputSection()
    """How files are named."""
    images: ImagesSection = ImagesSection()
    """What is done to local images before they are sent."""
    limits: Limits = Limits()
    """How much at once, how fast, for how much money."""
    retry: Retry = Retry()
    """What is tried again, and when a run gives up."""
    prices: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Resolution: USD for one image; `default` where none is named. It wins over the catalogue."""
    id_ignores: Literal["query"] | None = None
    """`query`: job ids leave the query of URLs out, for signed URLs that change daily."""

    @field_validator("provider")
    @classmethod
    def _name_of_provider(cls, value: str | None) -> str | None:
        known = value and value.lower()
        if known and known not in PROVIDERS:
            raise ValueError(f"`{value}` is not a provider{did_you_mean(known, [*PROVIDERS])}")
        return known

    @field_validator("prices", mode="before")
    @classmethod
    def _names_of_prices(cls, value: object) -> object:
        return {str(key): price for key, price in value.items()} if isinstance(value, dict) else value

    @field_validator("jobs", mode="before")
    @classmethod
    def _form_of_jobs(cls, value: object) -> object:
        if isinstance(value, dict):
            named = {str(key): item for key, item in value.items()}
            return RowsGlob(**named) if "glob" in named else RowsFile(**named)
        if value is not None and not isinstance(value, str | list | dict | RowsFile | RowsGlob):
            raise ValueError("is not a file, a `{glob: ...}` or a list of mappings")
        if isinstance(value, list):
            for index, job in enumerate(value):
                if not isinstance(job, dict):
                    raise ValueError(f"item {index + 1} is not a mapping of names to values")  # noqa: TRY004 - pydantic's form
            return [{str(key): item for key, item in job.items()} for job in value]
        return value


_OF_ROWS: Final = frozenset({"model", "inputs", "jobs", "matrix", "repeat", "images", "prices", "output"})
"""Keys that what is wrong with a row depends on; what is spelt like one may be meant for it."""


def read_document(marked: YamlWithLines, file: str, faults: Faults) -> tuple[Document | None, bool]:
    """Read a YAML document as a manifest; note its faults, and give it without the keys that have any.

    Say too whether its rows can be judged all the same.
    """
    for line, key in marked.repeated:
        faults.add(Fault(file, line, key, "stands twice in the same mapping"))
    if not isinstance(marked.value, dict):
        faults.add(
            Fault(
                file,
                1,
                "",
                "is empty: a manifest needs at least `model` and `inputs`"
                if marked.value is None
                else "is not a mapping: a manifest is `key: value` lines such as `model:` and `inputs:`",
            )
        )
        return None, False
    said = {str(key): value for key, value in marked.value.items()}
    try:
        return Document.model_validate(said), True
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for one in errors:
        _note(dict(one), marked, file, faults)
    faulty = {str(one["loc"][0]) for one in errors if one["loc"]}
    rest = Document.model_validate({key: value for key, value in said.items() if key not in faulty})
    return rest, not any(get_close_matches(key, _OF_ROWS, n=1, cutoff=0.6) for key in faulty)


def _note(error: dict[str, Any], marked: YamlWithLines, file: str, faults: Faults) -> None:
    path = tuple(part for part in error["loc"] if not str(part).startswith(("RowsFile", "RowsGlob", "list[")))
    if error["loc"][:1] == ("jobs",) and len(error["loc"]) > 1 and error["loc"][1] == "str":
        return  # the other forms of `jobs` say more
    field = ".".join(map(str, path))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        message = "is not a key of a manifest" + did_you_mean(str(path[-1]), _keys_at(path[:-1]))
    elif error["type"] != "value_error":
        message = f"is {error['input']!r:.80}: {message[0].lower()}{message[1:]}"
    faults.add(Fault(file, marked.line(*path), field, message))


def _keys_at(path: tuple[str | int, ...]) -> list[str]:
    sections: dict[str, Any] = {
        "limits": Limits,
        "retry": Retry,
        "output": OutputSection,
        "images": ImagesSection,
        "jobs": RowsFile,
    }
    section = sections.get(str(path[0])) if path else Document
    fields = getattr(section, "model_fields", None) or getattr(section, "__dataclass_fields__", {})
    return [name for name in fields if not name.startswith("_")]
