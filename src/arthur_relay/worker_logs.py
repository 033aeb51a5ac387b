"""What the worker logs, where greenlets are threads: written by one of the application's.

The locks of `logging` are the library's there. They are made for the greenlets of one thread: when
a thread of ours and a greenlet wanted one at once, with eventlet the greenlet waited for ever, and
now and then with gevent. So a line of ours waits until the library's loop comes to it.
"""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from arthur_relay import native

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter

MAX_LINES = 1000
"""So many lines wait at most, the newest: an application that never rests writes none."""


class WorkerLogger(Adapter):
    """A logger for all threads, the worker's among them."""

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Change nothing."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line; in a thread of ours, where greenlets are threads, have it logged."""
        if native.is_patched() and native.is_background_thread():
            _lines.put(self.logger, level, msg, args)
        else:
            self.logger.log(level, msg, *args, **{"stacklevel": 2, **kwargs})


class _Ours(logging.Filter):
    """Has what asyncio logs in a thread of ours written as our own lines are."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not (native.is_patched() and native.is_background_thread()):
            return True
        _lines.put(logging.getLogger(record.name), record.levelno, record.getMessage(), ())
        return False


_OURS = _Ours()


class _Lines:
    """The lines that wait. Any thread puts, a greenlet writes."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[logging.Logger, int, object, tuple[object, ...]]]
        self._waiting = deque(maxlen=MAX_LINES)
        self._wake: Callable[[], object] = lambda: None
        self._written_in: int | None = None

    def start(self) -> None:
        """See to it that they are written in this process. Not for a thread of ours."""
        if native.is_patched() and self._written_in != os.getpid():
            self._written_in = os.getpid()
            self._waiting.clear()  # in a forked child they are the parent's
            logging.getLogger("asyncio").addFilter(_OURS)  # keeps it once
            gevent = sys.modules.get("gevent")
            self._wake = self._by_callback(gevent) if gevent else self._by_greenlet()

    def put(
        self, logger: logging.Logger, level: int, message: object, values: tuple[object, ...]
    ) -> None:
        self._waiting.append((logger, level, message, values))
        with suppress(Exception):  # the loop has ended: the end of the relay writes them
            self._wake()

    def write(self) -> None:
        """Write what waits. Not for a thread of ours."""
        with suppress(IndexError):
            while True:
                logger, level, message, values = self._waiting.popleft()
                logger.log(level, message, *values)

    def _by_callback(self, gevent: Any) -> Callable[[], object]:
        # Of no weight: an application that waits until its loop has nothing more to do has to end.
        watcher = gevent.get_hub().loop.async_(ref=False)
        watcher.start(gevent.spawn, self.write)
        return watcher.send  # type: ignore[no-any-return] # gevent has no types for it

    def _by_greenlet(self) -> Callable[[], object]:
        waiter = native.new_waiter()
        threading.Thread(
            target=self._write_whenever, args=(os.getpid(), waiter), daemon=True
        ).start()
        return waiter.wake

    def _write_whenever(self, process: int, waiter: native.Waiter) -> None:
        while waiter.wait(native.A_YEAR) and process == os.getpid():
            self.write()
        waiter.close()  # in a forked child, which has writers of its own


_lines = _Lines()


def start() -> None:
    """Have lines of the worker written in this process. A thread or greenlet of others."""
    _lines.start()


def write() -> None:
    """Write the lines that wait. A thread or greenlet of others."""
    _lines.write()
