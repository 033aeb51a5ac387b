"""`arthur-relay top`: the daemon live on a terminal, until q or Ctrl-C."""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from arthur_relay.cli import fail
from arthur_relay.cli.daemon_client import NoAnswerError
from arthur_relay.cli.top_view import products_of, view
from arthur_relay.system.operating_system import HAS_TERMINALS, keys_at_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    from arthur_relay.cli.daemon_client import Daemon
    from arthur_relay.cli.top_view import Status

FOOTER = "q ends"
FOOTER_OF_BOTH = "q ends · Tab shows the other product"

PLAIN_COLUMNS = 120
"""The width of the output where it is no terminal."""

PLAIN_ROWS = 1000
"""The height of the output that is printed once, which may scroll."""


def run_top(daemon: Daemon, *, once: bool, interval_seconds: float) -> None:
    """Show the daemon.

    Args:
        daemon: The daemon.
        once: Whether to print it once, and end.
        interval_seconds: The time between two requests.

    Raises:
        typer.Exit: With 1 when it is asked once and does not answer.
    """
    console = Console()
    if once:
        if not console.is_terminal:
            console = Console(width=PLAIN_COLUMNS)
        try:
            status = daemon.status()
        except NoAnswerError as error:
            fail(str(error))
        for each in products_of(status):
            console.print(view(each, problem="", width=console.width, height=PLAIN_ROWS, footer=""))
        return
    with suppress(KeyboardInterrupt):
        _watch(daemon, console, interval_seconds)


def _watch(daemon: Daemon, console: Console, interval_seconds: float) -> None:
    statuses: list[Status] = []
    chosen = 0
    problem = ""

    def screen() -> RenderableType:
        keys = FOOTER if len(statuses) < 2 else FOOTER_OF_BOTH
        return view(
            statuses[chosen % len(statuses)] if statuses else None,
            problem=problem,
            width=console.width,
            height=console.height,
            footer=f"{keys} · {daemon.name}",
        )

    with (
        _keys() as pressed,
        Live(screen(), console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            try:
                statuses, problem = products_of(daemon.status()), ""
            except NoAnswerError as error:
                problem = str(error)
            live.update(screen(), refresh=True)
            match pressed(interval_seconds):
                case "q" | "Q" | "\x04":
                    return
                case "\t":
                    chosen += 1


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key, and returns it, or "" when the time is over.

    Where there is no keyboard it only waits.
    """
    descriptor = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    if descriptor is None or not HAS_TERMINALS:
        yield _wait
        return

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([descriptor], [], [], seconds)
        return os.read(descriptor, 1).decode("ascii", "replace") if ready else ""

    with keys_at_once(descriptor):
        yield pressed


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""
