"""`batcher init`: writes a commented starter manifest, and a schema of manifests for editors beside it."""

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from batcher.catalog import bundled
from batcher.errors import NotFound, WrongUse
from batcher.manifest.schema import TITLE, editor_schema
from batcher.manifest.survey import Table, as_template, survey_folder, survey_table
from batcher.terminal_text import command, plain

SCHEMA: Final = "batcher.schema.json"
_TABLES: Final = frozenset({".csv", ".tsv", ".txt", ".jsonl", ".ndjson"})
_SHOWN: Final = 12
"""Columns that the manifest's comment names."""
_PROMPT: Final = "on {{ scene }}, soft shadow, keep the label readable."


def init(
    path: Annotated[
        Path, typer.Argument(help="The file to write, the folder for batch.yaml, or a table to write a manifest of.")
    ] = Path("batch.yaml"),
    *,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Name each photo that cannot be sent.")] = False,
) -> None:
    """Write a commented starter manifest; a file that is there is never overwritten.

    Where the folder, or one in it, holds photos, the manifest begins with these. Of a table, such as a shop's export
    (products.csv), it reads the columns and writes products.yaml. A JSON Schema is written beside it, by which
    editors complete and check the manifest.

    Example: batcher init products.csv
    """
    if path.is_dir():
        path = path / "batch.yaml"
    if path.suffix.lower() not in {*_TABLES, ".yaml", ".yml"}:
        named = command("init", path.with_name(f"{path.name}.yaml"))
        raise WrongUse(f"{path} is neither an existing folder nor the name of a manifest", f"name one: {named}")
    notes: list[str] = []
    options: list[str] = []
    if path.suffix.lower() in _TABLES:
        if not path.is_file():
            raise NotFound(f"{path} does not exist", "to begin without a table: batcher init NAME.yaml")
        starter = _of_table(path, notes, options)
        path = path.with_suffix(".yaml")
    else:
        starter = _of_folder(path.parent, notes, options, verbose=verbose)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        raise WrongUse(f"{path} exists already", "give another name: batcher init NAME.yaml") from None
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from None
    _write_schema(path.parent / SCHEMA)
    for note in notes:
        typer.echo(note)
    typer.echo(
        f"wrote {path}; next: {command('plan', path, *options)} && {command('run', path, *options, '--sandbox')}"
    )


def _parts() -> tuple[str, str, str]:
    """Return the starter manifest: what stands before its jobs, an example of jobs, and what stands behind."""
    starter = Path(__file__).with_name("starter.yaml").read_text("utf-8")
    begin, _, rest = starter.partition("# [jobs]\n")
    example, _, end = rest.partition("# [/jobs]\n")
    return begin, example, end


def _of_folder(folder: Path, notes: list[str], options: list[str], *, verbose: bool) -> str:
    """Return a manifest about the photos that are there."""
    begin, example, end = _parts()
    try:
        found = survey_folder(folder)
    except OSError:
        found = None
    if found is None or not found.patterns:
        notes.append("no photos are here, or in a folder below: it has the address of an example's, to be put in place")
        return begin + example + end
    pattern = found.patterns[0] if len(found.patterns) == 1 else found.patterns
    photos = found.photos
    notes.append(f"{photos}" + ("" if verbose or not photos.others else " (-v names them)"))
    if verbose:
        notes += [f"  {problem}: {path}" for path, problem in photos.named.items()]
    if photos.others and photos.usable:
        options.append("--skip-invalid")
    if found.too_large:
        notes.append(f"{found.too_large:,} of them are too large to be sent as they are: images.max_side shrinks them")
        end = end.replace("# images: {max_side: 4096}  ", "images: {max_side: 4096}  ")
    jobs = f"""# One job for each photo: {{{{ path }}}}, {{{{ stem }}}} and {{{{ index }}}} are known of it.
jobs: {{glob: {json.dumps(pattern, ensure_ascii=False)}}}
"""
    begin = begin.replace("{{ product }}", "product").replace("{{ photo }}", "{{ path }}")
    return begin + jobs + end.replace("{{ product | slug }}", found.name)


def _of_table(file: Path, notes: list[str], options: list[str]) -> str:
    """Return a manifest about the rows of a table."""
    begin, _, end = _parts()
    table = survey_table(file)
    prompt = f"Put the product {_PROMPT}"
    if table.title:
        prompt = f"Put the {{{{ {as_template(table.title)} }}}} {_PROMPT}"
    if table.prompt == "prompt":
        begin = _without(begin, "prompt:")
    else:
        text = f"{{{{ {as_template(table.prompt)} }}}}" if table.prompt else prompt
        begin = begin.replace('"Put the {{ product }} ' + _PROMPT + '"', _quoted(text))
    image = table.image or ""
    begin = begin.replace('["{{ photo }}"]', f"[{_quoted(f'{{{{ {as_template(image)} }}}}')}]" if image else "[]")
    if image == "image_urls":
        begin = _without(begin, "image_urls:")
    if not image:
        notes.append(f"no column of {file.name} holds images: put them under image_urls")
    shown = [plain(" ".join(heading.split())) for heading in table.headings[:_SHOWN]]
    if table.unreadable:
        notes.append(f"{table.unreadable:,} of its rows cannot be used as they are: `plan` says why")
    if table.fill_down:
        notes.append(f"`{table.fill_down[0]}` stands in each product's first row only: fill_down carries it down")
    columns = ", ".join([*shown, *(["..."] if len(table.headings) > _SHOWN else [])])
    jobs = f"# One job a row. Columns: {columns}\njobs: {_jobs(table)}\n"
    key = table.key or table.title
    name = f"{{{{ {as_template(key)} | slug }}}}-{{{{ index }}}}" if key else "row-{{ index }}"
    if image and table.without_image:
        notes.append(f"some rows have no image in `{image}`: --where leaves them out")
        options += ["--where", as_template(image)]
    if "{{ scene }}" not in begin:  # the prompts are the table's own
        end = _without_matrix(end)
    old = next(line for line in end.splitlines() if line.startswith("  name: "))
    template = old.partition('"')[2].rstrip('"').replace("{{ product | slug }}", name)
    return begin + jobs + end.replace(old, f"  name: {_quoted(template)}")


def _jobs(table: Table) -> str:
    """Write `jobs:` of a table."""
    more: dict[str, str | list[str]] = {}
    if table.fill_down:
        more["fill_down"] = table.fill_down
    if table.form.encoding:
        more["encoding"] = table.form.encoding
    if not more:
        return json.dumps(table.form.file, ensure_ascii=False)
    said = ", ".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in more.items())
    return f"{{file: {json.dumps(table.form.file, ensure_ascii=False)}, {said}}}"


def _quoted(text: str) -> str:
    """Write a text as YAML, in single quotes where it has double ones."""
    if not text.isprintable():
        return json.dumps(text, ensure_ascii=True)
    if '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _without(text: str, key: str) -> str:
    """Return the text without the line of a key."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.strip().startswith(key))


def _without_matrix(end: str) -> str:
    head, _, rest = end.partition("matrix:\n")
    _, _, rest = rest.partition("\n")
    comment = '# matrix: {aspect_ratio: ["1:1", "4:5"]}\n'
    return (head + comment + rest).replace("/{{ scene | slug }}", "")


def _write_schema(file: Path) -> None:
    """Write the schema; one that an earlier `init` wrote is renewed, anything else is left."""
    try:
        ours = json.loads(file.read_text("utf-8")).get("title") == TITLE
    except FileNotFoundError:
        ours = True
    except (OSError, ValueError, AttributeError):
        ours = False
    if ours:
        file.write_text(json.dumps(editor_schema(bundled().values()), indent=1, ensure_ascii=False) + "\n", "utf-8")
