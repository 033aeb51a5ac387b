"""Keeps what the HTTP library logs of our requests out of every log: headers are credentials.

At DEBUG httpcore logs the headers of each answer, the cookie of a login among them, and the
password of a SOCKS proxy; httpx logs a line for each request. Which loggers the application has at
DEBUG is not ours to say, so the records are dropped where they are made. The application's own
requests, on whatever thread, are logged as ever.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# With those that are made when httpcore first needs them. A filter is not inherited by the loggers
# below, so each has its own.
LOGGERS = (
    "httpcore",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
    "httpx",
)

# Of the context, not the thread: a redactor may make requests of its own on the worker's thread.
_ours: ContextVar[bool] = ContextVar("arthur_relay_request", default=False)


class _NotOurs(logging.Filter):
    """Passes the records that are not made by a request of ours."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - all are alike
        return not _ours.get()


_NOT_OURS = _NotOurs()


def install() -> None:
    """Put the filter on every logger of the HTTP library. Any thread; a second time is nothing."""
    known = [name for name in list(logging.root.manager.loggerDict) if name.startswith("httpcore.")]
    for name in {*LOGGERS, *known}:
        logging.getLogger(name).addFilter(_NOT_OURS)  # keeps each filter once


@contextmanager
def unlogged() -> Iterator[None]:
    """Have the HTTP library log nothing of what is done within, tasks begun in it included."""
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)
