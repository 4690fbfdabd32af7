"""The command line: one file a command, arguments in, exit code out."""

import contextlib
import errno
import os
import sys

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
    """Give the argument or setting that no ledger and no sidecar could name, since it is no text."""
    settings = (f"{name}={value}" for name, value in os.environ.items() if name.startswith("BATCHER_"))
    for one in (*sys.argv[1:], *settings):
        try:
            one.encode()
        except UnicodeEncodeError:
            return ascii(one)
    return ""


def _run() -> int:
    import typer

    from batcher.cli.app import app

    if said := _no_text():
        _say(f"batcher: {said} has bytes that are no UTF-8; rename it, or give it another name")
        return EXIT_USAGE
    try:
        result = app(standalone_mode=False)
    except typer.Exit as ended:
        return ended.exit_code
    except (typer.Abort, KeyboardInterrupt):  # before the work began; from then on the run hears of signals itself
        _say("batcher: stopped before the work began; the same command goes on")
        return SIGNAL_BASE + 2
    except ManifestFaulty as faulty:
        say_faults(faulty)
        return faulty.exit_code
    except BatcherError as error:
        _say_as_json(error)
        _say(f"batcher: {error}")
        if error.hint:
            _say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:
        return EXIT_OK
    except OSError as error:
        _say(f"batcher: {error}")
        if error.errno == errno.ENAMETOOLONG:
            return EXIT_USAGE
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            _say("  too many files are open: raise the limit in this shell, as by `ulimit -n 1024`, then try again")
        else:
            _say("  what was written before is safe; make room or see to the disk, then give the same command again")
        return EXIT_STOPPED
    except Exception as error:  # noqa: BLE001 - a defect of ours, said as one
        if show := getattr(error, "show", None):  # click's own, whose module depends on typer's version
            show()
            _say_as_json(WrongUse(error.format_message()))  # type: ignore[attr-defined]
            return EXIT_USAGE
        import traceback

        _say("batcher: this is a bug in batcher; the run can be resumed. What happened:")
        _say(traceback.format_exc())
        return EXIT_BUG
    return result if isinstance(result, int) else EXIT_OK


def _say_as_json(error: BatcherError) -> None:
    """End a `run --json` with an event, also where it could not even begin to expand."""
    if "--json" in sys.argv and sys.argv[1:2] in (["run"], ["resume"]):
        from batcher.cli.lines import Lines

        Lines().end(error)


def say_faults(faulty: ManifestFaulty) -> None:
    """Print the faults of a manifest to standard error, and how many there are."""
    from batcher.plain import plain

    for fault in faulty.faults:
        _say(plain(str(fault)))
    if faulty.count > len(faulty.faults):
        _say(f"... and {faulty.count - len(faulty.faults):,} more")
    _say(f"batcher: {faulty.summary}")
    if faulty.hint:
        _say(f"  {plain(faulty.hint)}")


def _say(line: str) -> None:
    from batcher.cli.fitted import fitted
    from batcher.plain import plain

    with contextlib.suppress(OSError):
        print(line if "\n" in line else fitted(plain(line), sys.stderr), file=sys.stderr, flush=True)
