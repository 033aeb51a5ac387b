"""Keeps the HTTP library's log records of our requests out of every log: they hold credentials.

At DEBUG httpcore logs the headers of each answer, the cookie of a login among them, and the
password of a SOCKS proxy; httpx logs a line for each request. The application decides which loggers
are at DEBUG, so the records are dropped where they are made. The application's own requests, on
any thread, are logged as usual.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# Includes those that httpcore makes when it first needs them. A child logger does not inherit a
# filter, so each has its own.
LOGGERS = (
    "httpcore",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "httpx",
)

# Per context, not per thread: a redactor may make requests of its own on the worker's thread.
_ours: ContextVar[bool] = ContextVar("arthur_relay_request", default=False)


class _NotOurs(logging.Filter):
    """Passes the records that do not come from a request of ours."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - all are alike
        return not _ours.get()


_NOT_OURS = _NotOurs()


def install() -> None:
    """Put the filter on every logger of the HTTP library. Any thread; may be called again."""
    known = [name for name in list(logging.root.manager.loggerDict) if name.startswith("httpcore.")]
    for name in {*LOGGERS, *known}:
        logging.getLogger(name).addFilter(_NOT_OURS)  # keeps each filter once


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep the HTTP library from logging within the block, also in tasks started there."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
