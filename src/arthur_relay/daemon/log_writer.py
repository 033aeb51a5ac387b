"""Writes log lines in a thread of its own: a standard error that nobody reads holds up nothing."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAITING_BYTES = 1024 * 1024
"""Bytes of lines that wait to be written, at most; newer ones are dropped, and counted."""

LAST_SECONDS = 1.0
"""How long the end of the process waits for what has not been written."""

GOES_ON = "%d log lines were dropped, because standard error was not read"


class LogWriter(logging.Handler):
    """Hands lines to a thread that writes them. Never waits, never raises, any thread.

    What can't be written, because the other end has gone or the descriptor is closed, is dropped.

    Args:
        descriptor: Where lines are written; None where there is nothing to write to.

    Attributes:
        dropped: Lines that nobody will see. Any thread may read it.
    """

    def __init__(self, descriptor: int | None) -> None:
        super().__init__()
        self.dropped = 0
        self._descriptor = descriptor
        self._untold = 0
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._changed = threading.Condition()
        self._is_open = True
        self._writer = threading.Thread(target=self._write, name="arthur-relay-log", daemon=True)
        self._writer.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - a line that can't be made must not cost its caller
            line = b"arthur-relay: a log line could not be made\n"
        with self._changed:
            if self._bytes + len(line) > WAITING_BYTES:
                self.dropped += 1
                self._untold += 1
                return
            self._tell_dropped()
            self._put(line)

    def flush(self) -> None:
        """Wait until all is written, for no longer than `LAST_SECONDS`."""
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, LAST_SECONDS)

    def close(self) -> None:
        """Write what waits, as far as that is possible in time, and take no more."""
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

    def _tell_dropped(self) -> None:
        """Say how many lines are missing here. Under the lock."""
        if self._untold:
            name = "arthur_relay.daemon"
            record = logging.LogRecord(
                name, logging.WARNING, __file__, 0, GOES_ON, (self._untold,), None
            )
            self._untold = 0
            self._put(self._line(record))

    def _write(self) -> None:
        while True:
            with self._changed:
                if not self._lines:
                    self._tell_dropped()
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
        """Write a line, however long that takes; returns whether it was."""
        if self._descriptor is None:
            return False
        rest = memoryview(line)
        try:
            while rest:
                try:
                    rest = rest[os.write(self._descriptor, rest) :]
                except BlockingIOError:  # someone who shares the terminal has it so
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):
            return False
        return True


def standard_error() -> int | None:
    """Return the descriptor of standard error, or None where it was closed before the start."""
    with suppress(OSError, ValueError, AttributeError):
        return sys.stderr.fileno()
    return None


def log_what_nobody_catches(log: Callable[[str, str], None]) -> None:
    """Have exceptions of threads and finalisers logged, which Python writes to standard error.

    Args:
        log: Told where it was, and of what type. Not of its text, which might quote a row.
    """

    def of_a_thread(found: threading.ExceptHookArgs) -> None:
        name = found.thread.name if found.thread is not None else "a thread"
        log(name, found.exc_type.__name__)

    def of_a_finaliser(found: sys.UnraisableHookArgs) -> None:
        log("a finaliser", found.exc_type.__name__)

    threading.excepthook = of_a_thread
    sys.unraisablehook = of_a_finaliser
