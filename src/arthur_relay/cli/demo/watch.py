"""Looks at the relay often while the demo runs, for the timeline and the screen."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.cli.demo.recording import Recording
    from arthur_relay.cli.demo.view import View
    from arthur_relay.relay import Relay

PERIOD_SECONDS: Final = 0.1


@contextlib.contextmanager
def watching(relay: Relay, recording: Recording, view: View) -> Iterator[None]:
    """Take samples and refresh the view inside of the block, and once more at its end."""
    enough = threading.Event()

    def look() -> None:
        over = False
        while not over:
            over = enough.wait(PERIOD_SECONDS)
            recording.sample(relay.stats())
            view.refresh()

    thread = threading.Thread(target=look, name="demo-watch")
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@contextlib.contextmanager
def logging_to(view: View) -> Iterator[None]:
    """Show what the relay logs as notes, inside of the block, and nowhere else."""
    logger = logging.getLogger("arthur_relay")
    handler = _NoteHandler(view)
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate, level = before
        logger.setLevel(level)


class _NoteHandler(logging.Handler):
    def __init__(self, view: View) -> None:
        super().__init__()
        self._view = view

    def emit(self, record: logging.LogRecord) -> None:
        self._view.note(f"log: {record.getMessage()}")
