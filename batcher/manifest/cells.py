"""What templates see of cells that are empty, and of a whole row: `row["Image Position"]`. Knows no file."""

from collections.abc import Mapping
from typing import Final

ROW: Final = "row"
"""The name under which templates see the whole row, unless a column or the matrix has it."""


class Empty(str):
    """A cell that is there and has nothing in it: an empty text to templates, and not given to the model."""

    __slots__ = ()


EMPTY: Final = Empty()
"""The one of its kind."""


class RowCells(dict[str, object]):
    """A row as templates see it whole, each cell under its column's heading."""


def of_the_row(variables: Mapping[str, object]) -> dict[str, object]:
    """Return the variables that have a value of their own: neither cells that are empty nor the row as a whole."""
    return {name: value for name, value in variables.items() if value is not EMPTY and not isinstance(value, RowCells)}
