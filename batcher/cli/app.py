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
from batcher.cli.once import OnceCommand

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
        from batcher.version import __version__

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


_SHORT = {
    "run": "Run a manifest; run it again, and it goes on.",
    "plan": "The bill: what a run would do, cost and take.",
    "resume": "Go on with the run in a directory.",
    "status": "Where a run stands; --by VAR: who cost what.",
    "jobs": "List jobs: id, state, name, request, error.",
    "retry": "Let failed or uncertain jobs go on.",
    "cancel": "Cancel what is still queued at the server.",
    "pause": "End the run at work, until `resume`.",
    "adopt": "Give a job the request id that you found.",
    "report": "Write a page of before and after.",
    "verify": "Hash every file again; mend what can be.",
    "doctor": "Check token, balance, space, images, clock.",
    "models": "List models, or one's inputs and price.",
    "init": "Write a manifest to begin from.",
    "set": "Change settings of the run at work.",
    "sandbox": "Serve a stand-in for the API on loopback.",
}
"""What fits a line of `batcher --help`."""

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
    app.command(cls=OnceCommand, short_help=_SHORT[command.__name__])(command)
app.command("set", cls=OnceCommand, short_help=_SHORT["set"])(change.change)
app.command(
    short_help=_SHORT["sandbox"],
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)(sandbox.sandbox)
