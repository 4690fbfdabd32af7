"""`batcher init`: writes a commented starter manifest."""

from pathlib import Path
from typing import Annotated

import typer


def init(path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("batch.yaml")) -> None:
    """Write a commented starter manifest; a file that is there is never overwritten.

    Example: batcher init restyle.yaml
    """
    from batcher.errors import WrongUse

    if path.is_dir():
        path = path / "batch.yaml"
    starter = Path(__file__).with_name("starter.yaml").read_text("utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(starter)
    except FileExistsError:
        raise WrongUse(f"{path} is there already", "give another name: batcher init NAME.yaml") from None
    except OSError as error:
        raise WrongUse(f"{path} cannot be written: {error.strerror}") from None
    from batcher.show.words import command

    typer.echo(f"wrote {path}; next: {command('plan', path)} && {command('run', path, '--sandbox')}")
