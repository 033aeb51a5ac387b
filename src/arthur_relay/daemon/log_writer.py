"""Writes log lines in a thread of its own, so that an unread standard error blocks nobody."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING_BYTES = 1024 * 1024
"""The most bytes of lines that wait to be written; newer lines are dropped and counted."""

LAST_SECONDS = 1.0
"""How long the end of the process waits for unwritten lines."""

CLEAR = b"\r\x1b[2K"
"""Takes a terminal's line away."""

DROPPED = "%d log lines were dropped, because standard error was not read"


class LogWriter(logging.Handler):
    """Hands lines to a thread that writes them. Never waits, never raises. Any thread.

    Lines that can't be written, because nobody reads any more or the descriptor is closed, are
    dropped.

    Args:
        descriptor: The file to write to; None when there is none.

    Attributes:
        dropped: The number of dropped lines. Any thread may read it.
        is_terminal: Whether the file is a terminal.
    """

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        self._unreported = 0
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_open = True
        self._is_showing = False
        self.is_terminal = descriptor is not None and os.isatty(descriptor)
        self._writer = threading.Thread(target=self._write, name="arthur-relay-log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Accept a line."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - a line that can't be formatted must not cost its caller
            line = b"arthur-relay: a log line could not be made\n"
        with self._changed:
            if self._bytes + len(line) > WAITING_BYTES:
                self.dropped += 1
                self._unreported += 1
                return
            self._report_dropped()
            self._put(CLEAR + line if self._is_showing else line)
            self._is_showing = False

    def show(self, text: str) -> None:
        """Show, on a terminal, a line that the next one takes the place of; "" shows none."""
        if not self.is_terminal:
            return
        with self._changed:
            if self._bytes or not (text or self._is_showing):
                return  # what is shown is of now, or not at all
            line = printable(text).encode("utf-8", "backslashreplace")
            self._put(CLEAR + line if self._is_showing else line)
            self._is_showing = bool(text)

    def flush(self) -> None:
        """Wait until all lines are written, for `LAST_SECONDS` at most."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, LAST_SECONDS)

    def close(self) -> None:
        """Write the waiting lines as far as time allows, and accept no more."""
        self.flush()
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return (self.format(record) + "\n").encode("utf-8", "backslashreplace")

    def _put(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        self._changed.notify_all()

    def _report_dropped(self) -> None:
        """Add a line with the number of lines that are missing here. Under the lock."""
        if self._unreported:
            name = "arthur_relay.daemon"
            record = logging.LogRecord(
                name, logging.WARNING, __file__, 0, DROPPED, (self._unreported,), None
            )
            self._unreported = 0
            self._put(self._line(record))

    def _write(self) -> None:
        while True:
            with self._changed:
                if not self._lines:
                    self._report_dropped()
                self._changed.wait_for(lambda: self._lines or not self._is_open)
                if not self._lines:
                    return
                line = self._lines.popleft()
            is_written = self._written(line)
            with self._changed:
                self.dropped += not is_written
                self._bytes -= len(line)
                self._changed.notify_all()

    def _written(self, line: bytes) -> bool:
        """Write a line, however long that takes. Returns whether it was written."""
        if self._descriptor is None:
            return False
        rest = memoryview(line)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # set by a program that shares the terminal
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):
            return False
        return True


def standard_error() -> int | None:
    """Return the descriptor of standard error, or None when it was closed before the start."""
    with suppress(OSError, ValueError, AttributeError):
        return sys.stderr.fileno()
    return None


def log_uncaught(log: Callable[[str, str], None]) -> None:
    """Log uncaught exceptions of threads and finalisers, which Python writes to standard error.

    Args:
        log: Gets the place and the exception's type, but not its text, which might quote a row.
    """

    def of_a_thread(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread is not None else "a thread"
        log(name, found.exc_type.__name__)

    def of_a_finaliser(found: sys.UnraisableHookArgs) -> None:
        log("a finaliser", found.exc_type.__name__)

    threading.excepthook = of_a_thread
    sys.unraisablehook = of_a_finaliser
