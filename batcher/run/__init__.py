"""One run directory, held: joins the rooms, and closes them in reverse. The CLI and programs use nothing below it."""

from batcher.run.opening import discard, open_ledger, open_run
from batcher.run.parts import Parts
from batcher.run.run import Outcome, Run

__all__ = ["Outcome", "Parts", "Run", "discard", "open_ledger", "open_run"]
