"""Runs a command, and ends the process with its exit code; whatever goes wrong is said in words."""

import errno
import os
import sys
import traceback

import typer

from batcher.cli.app import app
from batcher.cli.json_events import JsonEvents
from batcher.cli.messages import say, say_faults
from batcher.cli.streams import open_what_is_closed, tame
from batcher.errors import (
    EXIT_BUG,
    EXIT_OK,
    EXIT_STOPPED,
    EXIT_USAGE,
    SIGNAL_BASE,
    BatcherError,
    ManifestFaulty,
    WrongUse,
)


def main() -> None:
    """Run a command, and end with its exit code."""
    open_what_is_closed()
    tame()
    code = _run()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # whoever read it is gone: what is left there would change the exit code to 120
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(code)


def _no_text() -> str:
    """Return the argument or setting that no ledger and no sidecar could name, since it is no text."""
    settings = (f"{name}={value}" for name, value in os.environ.items() if name.startswith("BATCHER_"))
    for one in (*sys.argv[1:], *settings):
        try:
            one.encode()
        except UnicodeEncodeError:
            return ascii(one)
    return ""


def _run() -> int:
    if said := _no_text():
        say(f"batcher: {said} has bytes that are not UTF-8; rename it, or give it another name")
        return EXIT_USAGE
    try:
        result = app(standalone_mode=False)
    except typer.Exit as ended:
        return ended.exit_code
    except (typer.Abort, KeyboardInterrupt):  # before the work began; from then on the run hears of signals itself
        say("batcher: stopped before the work began; the same command goes on")
        return SIGNAL_BASE + 2
    except ManifestFaulty as faulty:
        say_faults(faulty)
        return faulty.exit_code
    except BatcherError as error:
        _say_as_json(error)
        say(f"batcher: {error}")
        if error.hint:
            say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        return EXIT_OK
    except OSError as error:
        say(f"batcher: {error}")
        if error.errno == errno.ENAMETOOLONG:
            return EXIT_USAGE
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            say("  too many files are open: raise the limit in this shell, as by `ulimit -n 1024`, then try again")
        else:
            say("  what was written before is safe; make room or see to the disk, then give the same command again")
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - a defect of ours, said as one
        if show := getattr(error, "show", None):  # click's own, whose module depends on typer's version
            show()
            _say_as_json(WrongUse(error.format_message()))  # type: ignore[attr-defined]
            return EXIT_USAGE
        say("batcher: this is a bug in batcher; the run can be resumed. What happened:")
        say(traceback.format_exc())
        return EXIT_BUG
    return result if isinstance(result, int) else EXIT_OK


def _say_as_json(error: BatcherError) -> None:
    """End a `run --json` with an event, also where it could not even begin to expand."""
    if "--json" in sys.argv and sys.argv[1:2] in (["run"], ["resume"]):
        JsonEvents().end(error)
