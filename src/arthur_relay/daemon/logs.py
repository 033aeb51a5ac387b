"""Log lines on standard error: JSON or for people, and rate-limited."""

from __future__ import annotations

import json
import logging
import os
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from arthur_relay.daemon.log_writer import LogWriter, log_uncaught, standard_error
from arthur_relay.daemon.settings import LogFormat
from arthur_relay.system.clocks import SYSTEM_CLOCK, Clock
from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.daemon.settings import LogLevel

logger = logging.getLogger("arthur_relay.daemon")

BURST = 10
"""The lines of one kind that are written at once; then one line every `EVERY_SECONDS`."""

EVERY_SECONDS = 10.0

KINDS_KEPT = 1000

_product: ContextVar[str | None] = ContextVar("product", default=None)


@contextmanager
def logging_for(product: str) -> Iterator[None]:
    """Log the block's lines, and those of what it starts, as lines of a product."""
    token = _product.set(product)
    try:
        yield
    finally:
        _product.reset(token)


@contextmanager
def products_named() -> Iterator[None]:
    """Have each line that is logged within the block name its product, if it has one."""
    before = logging.getLogRecordFactory()

    def made(*values: Any, **more: Any) -> logging.LogRecord:
        record = before(*values, **more)
        record.product = _product.get()
        return record

    logging.setLogRecordFactory(made)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def product_of(record: logging.LogRecord) -> str | None:
    """Return the product that a line is of, or None."""
    return getattr(record, "product", None)


class RateLimit(logging.Filter):
    """Passes a few lines of each kind, and adds to the next one how many were held back.

    A kind is a product, a logger and a message before its values are filled in.

    Args:
        clock: Measures durations.
    """

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str | None, str, str], tuple[float, float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written."""
        now = self._clock.monotonic()
        kind = (product_of(record), record.name, str(record.msg))
        allowance, since, held_back = self._kinds.pop(kind, (float(BURST), now, 0))
        allowance = min(float(BURST), allowance + (now - since) / EVERY_SECONDS)
        passes = allowance >= 1.0
        if passes and held_back:
            record.held_back = held_back
        while len(self._kinds) >= KINDS_KEPT:
            del self._kinds[next(iter(self._kinds))]
        self._kinds[kind] = (allowance - passes, now, 0 if passes else held_back + 1)
        return passes


class JsonFormatter(logging.Formatter):
    """One JSON object per line: `time`, `level`, `logger`, `message`, and sometimes more."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if product := product_of(record):
            line["product"] = product
        held_back = getattr(record, "held_back", 0)
        if held_back:
            line["held_back"] = held_back
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return printable(json.dumps(line, default=str))


class ConsoleLines(logging.Formatter):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(of_product)s%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return a line."""
        product = product_of(record)
        record.of_product = f"{product}: " if product else ""
        # It may contain what clients and Arthur have sent. A traceback has several lines.
        line = printable(super().format(record), keep="\n" if record.exc_info else "")
        held_back = getattr(record, "held_back", 0)
        return f"{line} (and {held_back} more like it)" if held_back else line


def set_up(log_format: LogFormat, level: LogLevel) -> LogWriter:
    """Write the process's log to standard error, in place of the former handlers.

    Logging never waits for the reader of standard error.

    Returns:
        The writer, which counts dropped lines.
    """
    descriptor = standard_error()
    if log_format is LogFormat.AUTO:
        is_terminal = descriptor is not None and os.isatty(descriptor)
        log_format = LogFormat.CONSOLE if is_terminal else LogFormat.JSON
    handler = LogWriter(descriptor)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else ConsoleLines())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    log_uncaught(lambda where, kind: logger.error("%s raised %s", where, kind))
    set_level(level)
    return handler


def set_level(level: LogLevel) -> None:
    """Set the lowest level that is written."""
    logging.getLogger().setLevel(max(level.number, logging.INFO))
    logging.getLogger("arthur_relay").setLevel(level.number)
    # The libraries' INFO lines are of no use to operators, and their DEBUG lines show requests.
    for name in ("httpx", "httpcore", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
