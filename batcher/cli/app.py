"""All commands by name. A command's module is loaded when the command is given: `--help` needs none of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Final, cast

import typer
from typer.core import TyperCommand, TyperGroup

from batcher.cli.strict_command import StrictCommand
from batcher.version import __version__

_STYLE: Final[dict[str, Any]] = {"rich_markup_mode": None, "pretty_exceptions_enable": False, "add_completion": False}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A command: what `batcher --help` says of it, and where its function stands."""

    short_help: str
    module: str
    function: str
    cls: type[TyperCommand] = StrictCommand
    context_settings: dict[str, Any] = field(default_factory=dict)

    def load(self, name: str) -> TyperCommand:
        """Import the module, and return the command."""
        function: Callable[..., object] = getattr(import_module(f"batcher.cli.{self.module}"), self.function)
        single = typer.Typer(**_STYLE)
        add = single.command(name, cls=self.cls, short_help=self.short_help, context_settings=self.context_settings)
        add(function)
        return cast(TyperCommand, typer.main.get_command(single))


def _entry(short_help: str, module: str, function: str = "") -> _Entry:
    return _Entry(short_help, module, function or module)


COMMANDS: Final[dict[str, _Entry]] = {
    "run": _entry("Run a manifest; run it again, and it goes on.", "run"),
    "plan": _entry("The bill: what a run would do, cost and take.", "plan"),
    "resume": _entry("Go on with the run in a directory.", "resume"),
    "status": _entry("Where a run stands; --by VAR: cost by a variable.", "status"),
    "jobs": _entry("List jobs: id, state, name, request, error.", "jobs"),
    "retry": _entry("Queue failed or uncertain jobs again.", "retry"),
    "cancel": _entry("Cancel what is still queued at the server.", "cancel"),
    "pause": _entry("End the run at work, until `resume`.", "pause"),
    "adopt": _entry("Continue a job under a request id you found.", "adopt"),
    "report": _entry("Write a page of before and after.", "report"),
    "verify": _entry("Hash every file again; mend what can be.", "verify"),
    "doctor": _entry("Check token, balance, space, images, clock.", "doctor"),
    "models": _entry("List models, or one's inputs and price.", "models"),
    "init": _entry("Write a manifest to begin from.", "init"),
    "set": _entry("Change settings of the run at work.", "set_command", "change"),
    "sandbox": _Entry(
        "Serve a stand-in for the API on loopback.",
        "sandbox",
        "sandbox",
        TyperCommand,
        {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    ),
}


class _Group(TyperGroup):
    """Knows its commands by name and line of help, and loads the one that is given."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's own
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, short_help=entry.short_help) for name, entry in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - click's own, whose module depends on typer's version
        """Return the name, the command and its arguments, loaded, for it is given."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, COMMANDS[str(name)].load(str(name)), rest


app: Final = typer.Typer(
    name="batcher",
    cls=_Group,
    help="Thousands of images through a paid generation API: nothing lost, nothing paid for twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(f"batcher {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    *,
    version: bool = typer.Option(
        False,  # noqa: FBT003 - typer's form
        "--version",
        callback=lambda value: _version(wanted=value),
        is_eager=True,
        help="Say which version this is.",
    ),
) -> None:
    pass
