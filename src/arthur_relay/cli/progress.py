"""How far a long work is: a line on a terminal that comes and goes, and nothing anywhere else.

It is for the person who waits, so it goes to standard error, and a pipe, a file and a CI's log get
none of it.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.progress import Task


class _Counts(TextColumn):
    """Shows `1,500 of 20,000`, or without an end `1,500`."""

    def __init__(self) -> None:
        super().__init__("")

    def render(self, task: Task) -> Text:
        """Return the text."""
        of_all = "" if task.total is None else f" of {task.total:,.0f}"
        return Text(f"{task.completed:,.0f}{of_all} {task.description}")


def is_watched() -> bool:
    """Return whether somebody sees what is written to standard error, as it is written."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return is_terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("CI")


@contextmanager
def progress(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show, within the block, how far a work is.

    Args:
        what: What is counted, with what is done to it, such as `files looked at`.
        total: How many there are, or None where that is not known.

    Yields:
        A function to be called with how many more are done.
    """
    if not is_watched():
        yield lambda _more: None
        return
    with Progress(
        _Counts(), TimeElapsedColumn(), console=Console(stderr=True), transient=True
    ) as shown:
        task = shown.add_task(printable(what), total=total)
        yield lambda more: shown.advance(task, more)


def files_looked_at(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield files to look at, and show meanwhile how many of them that was done with."""
    with progress("files looked at", len(paths)) as done:
        for path in paths:
            yield path
            done(1)
