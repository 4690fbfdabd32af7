"""`batcher init`: writes a commented starter manifest, and a schema of manifests for editors beside it."""

import json
from collections import Counter
from glob import escape
from pathlib import Path
from typing import Annotated, Final

import typer

SCHEMA: Final = "batcher.schema.json"
_PHOTOS: Final = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def init(
    path: Annotated[Path, typer.Argument(help="The file to write, or the folder for batch.yaml.")] = Path("batch.yaml"),
) -> None:
    """Write a commented starter manifest; a file that is there is never overwritten.

    Where the folder, or one in it, holds photos, the manifest begins with these. Beside it goes a JSON Schema, by which
    editors complete and check what is written.

    Example: batcher init restyle.yaml
    """
    from batcher.errors import WrongUse
    from batcher.plain import command

    if path.is_dir():
        path = path / "batch.yaml"
    starter = _starter(path.parent)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        raise WrongUse(f"{path} is there already", "give another name: batcher init NAME.yaml") from None
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from None
    _write_schema(path.parent / SCHEMA)
    if not _photos(path.parent):
        typer.echo("no photos are here, or in a folder one below: it has an example's, to be put in place")
    typer.echo(f"wrote {path}; next: {command('plan', path)} && {command('run', path, '--sandbox')}")


def _starter(folder: Path) -> str:
    """Give the manifest, about the photos that are there."""
    starter = Path(__file__).with_name("starter.yaml").read_text("utf-8")
    begin, _, rest = starter.partition("# [jobs]\n")
    example, _, end = rest.partition("# [/jobs]\n")
    if pattern := _photos(folder):
        example = f"""# One job for each photo: {{{{ path }}}}, {{{{ stem }}}} and {{{{ index }}}} are known of it.
jobs: {{glob: {json.dumps(pattern, ensure_ascii=False)}}}
"""
        begin = begin.replace("{{ product }}", "{{ stem }}").replace("{{ photo }}", "{{ path }}")
        end = end.replace("{{ product | slug }}", "{{ stem | slug }}")
    return begin + example + end


def _photos(folder: Path) -> str | None:
    """Give the pattern of photos in a folder or in one right below it, None where there are none."""
    try:
        inner = sorted(one for one in folder.iterdir() if one.is_dir() and not one.name.startswith("."))
        for place in [folder, *inner]:
            endings = Counter(one.suffix for one in place.iterdir() if one.suffix.lower() in _PHOTOS)
            name = str(place.relative_to(folder))
            if endings and name.isprintable():  # bytes that are no text cannot stand in a manifest
                return f"{'' if name == '.' else escape(name) + '/'}*{endings.most_common(1)[0][0]}"
    except OSError:
        return None
    return None


def _write_schema(file: Path) -> None:
    """Write the schema; one that an earlier `init` wrote is renewed, anything else is left."""
    from batcher.catalog import bundled
    from batcher.manifest.schema import TITLE, editor_schema

    try:
        ours = json.loads(file.read_text("utf-8")).get("title") == TITLE
    except FileNotFoundError:
        ours = True
    except (OSError, ValueError, AttributeError):
        ours = False
    if ours:
        file.write_text(json.dumps(editor_schema(bundled().values()), indent=1, ensure_ascii=False) + "\n", "utf-8")
