"""All commands, together."""

import typer

from batcher.cli import (
    adopt,
    cancel,
    change,
    doctor,
    init,
    jobs,
    models,
    pause,
    plan,
    report,
    resume,
    retry,
    run,
    sandbox,
    status,
    verify,
)

app = typer.Typer(
    name="batcher",
    help="Thousands of images through a paid generation API: nothing lost, nothing paid for twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from batcher import __version__

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


for command in (
    run.run,
    plan.plan,
    resume.resume,
    status.status,
    jobs.jobs,
    retry.retry,
    cancel.cancel,
    pause.pause,
    adopt.adopt,
    report.report,
    verify.verify,
    doctor.doctor,
    models.models,
    init.init,
):
    app.command()(command)
app.command("set")(change.change)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})(
    sandbox.sandbox
)
