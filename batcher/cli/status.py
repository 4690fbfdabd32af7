"""`batcher status`: counts, cost, and what is left."""

import json as json_
import sys
from dataclasses import replace
from typing import Annotated

import typer
from rich.console import Console

from batcher.cli import options as o
from batcher.cli.wrap import wrapped
from batcher.clock import Clock
from batcher.ledger.lock import is_locked
from batcher.ledger.reader import Reader
from batcher.show.board import Board, drawn
from batcher.show.board import line as board_line
from batcher.show.run_status import ByValue, PaceNow
from batcher.show.status import board_of, by_value, table
from batcher.show.status import status as look
from batcher.show.words import summary
from batcher.terminal_text import command

By = Annotated[
    str | None,
    typer.Option("--by", metavar="VAR", help="Jobs and cost by a variable or an input: scene, resolution, model ..."),
]


def status(out: o.NewestOut = None, *, by: By = None, json: o.Json = False) -> None:
    """Show where a run stands, at work or not.

    Examples: batcher status runs/products; batcher status runs/products --by scene
    """
    out = o.newest(out)
    found = look(out)
    board = None
    if is_locked(out):
        with Reader(out) as reader:
            board = board_of(reader, Clock().now())
        left = None if board.left is None else (round(board.left[0], 1), round(board.left[1], 1))
        found = found.working(PaceNow(round(board.rate * 60, 2), left))
    if by is not None:
        with Reader(out) as reader:
            found = replace(found, by=ByValue(by, by_value(reader, by)))
    if json:
        typer.echo(json_.dumps(found.to_json(), ensure_ascii=False))
        return
    with Reader(out) as reader:
        paused = bool(reader.meta().get("paused"))
    if paused:
        typer.echo(f"paused: no run goes on with it until {command('resume', out)}")
    if board:
        _say(board)
    for line in summary(found, out):
        if not (board and line.startswith("next: ")):  # that is for when it has ended
            typer.echo(wrapped(line, sys.stdout))
    if found.by is not None:
        typer.echo("")
        for line in table(found.by.values, found.by.variable):
            typer.echo(line)


def _say(board: Board) -> None:
    """Show a run at work as it shows itself."""
    typer.echo("a run is at work on this directory")
    if sys.stdout.isatty():
        sys.stdout.flush()
        console = Console(file=getattr(sys.stdout, "untamed", sys.stdout))
        console.print(drawn(board, console.width))
    else:
        typer.echo(board_line(board))
