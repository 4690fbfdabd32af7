"""One run directory, held: joins the rooms, and closes them in reverse. The CLI and programs use nothing below it."""

from batcher.runs.opening import discard, open_ledger, open_run
from batcher.runs.parts import Parts
from batcher.runs.run import Outcome, Run

__all__ = ["Outcome", "Parts", "Run", "discard", "open_ledger", "open_run"]
