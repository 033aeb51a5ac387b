"""A table that is printed wider than any terminal: an id that is cut is of no use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WIDTH = 1_000_000


def print_wide_table(
    columns: Sequence[str], lines: Iterable[Sequence[str]], *, text_column: str = ""
) -> None:
    """Print a table, each line in one line of the output; a terminal breaks it by itself.

    Args:
        columns: The names of the columns.
        lines: The cells of each line, as many as there are columns; they may hold any text.
        text_column: A column whose texts may even be wider: it is broken where it has to be.
    """
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=column != text_column, overflow="fold")
    for cells in lines:
        # As Text, so that no bracket is taken for markup.
        table.add_row(*[Text(printable(cell)) for cell in cells])
    Console(highlight=False, soft_wrap=True, width=WIDTH).print(table)
