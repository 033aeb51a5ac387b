"""The worker's log lines, written by other threads because the application's handlers may block.

A handler that writes to a pipe which nobody reads, or to a host that does not answer, blocks its
caller, perhaps for ever. So the worker hands its lines to a thread that lives as long as lines
wait, and waits for it briefly, so that they keep their order among other lines.

If gevent or eventlet have replaced threads, one of the application's greenlets writes the lines.
The locks of `logging` are then the library's, and work for the greenlets of one thread only: when
one of our threads and a greenlet wanted the same lock, the greenlet waited for ever with eventlet,
and sometimes with gevent. So our lines wait until the library's loop writes them.
"""

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from arthur_relay.system import native

if TYPE_CHECKING:
    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter

T = TypeVar("T")

MAX_LINES = 1000
"""The most lines that wait, the newest ones: an application that never yields writes none."""

PATIENCE_SECONDS = 0.05
"""The longest wait of the worker until a line is written."""


class WorkerLogger(Adapter):
    """A logger for all threads, including the worker's.

    Args:
        name: The logger's.
        everywhere: Whether it must not block other threads either.
    """

    def __init__(self, name: str, *, everywhere: bool = False) -> None:
        super().__init__(logging.getLogger(name), {})
        self._everywhere = everywhere

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        """Return the message as it is."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line; for one of our threads, another thread logs it."""
        if not self.logger.isEnabledFor(level):
            return
        is_ours = native.is_background_thread()
        if native.is_patched():
            if is_ours:
                _lines.put(self.logger, level, msg, args)
                return
        elif is_ours or self._everywhere:
            file, line, function, _ = self.logger.findCaller(stacklevel=2)
            name = self.logger.name
            _writers.put(
                self.logger,
                self.logger.makeRecord(name, level, file, line, msg, args, None, function),
            )
            return
        self.logger.log(level, msg, *args, **{"stacklevel": 2, **kwargs})


class _Ours(logging.Filter):
    """Treats the lines that asyncio logs in one of our threads like our own lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not (native.is_patched() and native.is_background_thread()):
            return True
        _lines.put(logging.getLogger(record.name), record.levelno, record.getMessage(), ())
        return False


_OURS = _Ours()


class _Queue(Generic[T]):
    """The lines that wait to be written; when full, it drops and counts the oldest. Any thread."""

    def __init__(self) -> None:
        self._waiting: deque[T] = deque()
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, line: T) -> None:
        with suppress(IndexError):
            while len(self._waiting) >= MAX_LINES:
                self._waiting.popleft()
                self._dropped += 1
        self._waiting.append(line)

    def take(self) -> T:
        """Return the next line, after logging how many before it were dropped.

        Raises:
            IndexError: There is none.
        """
        line = self._waiting.popleft()
        dropped, self._dropped = self._dropped, 0
        if dropped:
            with suppress(Exception):  # of the application's handlers
                logging.getLogger("arthur_relay").warning(
                    "arthur-relay: %d log lines are missing here: a handler of the application"
                    " did not take them in time",
                    dropped,
                )
        return line

    def clear(self) -> None:
        self._waiting.clear()
        self._dropped = 0


def _wake_nobody() -> None:
    """Do nothing, because no writer was started yet."""


class _Lines:
    """The lines that wait for a greenlet to write them. Any thread may put lines."""

    def __init__(self) -> None:
        self._waiting: _Queue[tuple[logging.Logger, int, object, tuple[object, ...]]] = _Queue()
        self._wake: Callable[[], object] = _wake_nobody
        self._written_in: int | None = None

    def start(self) -> None:
        """Start writing the lines in this process. Not for one of our threads."""
        if native.is_patched() and self._written_in != os.getpid():
            self._written_in = os.getpid()
            self._waiting.clear()  # in a forked child they are the parent's
            logging.getLogger("asyncio").addFilter(_OURS)  # adding it twice has no effect
            gevent = sys.modules.get("gevent")
            self._wake = self._by_callback(gevent) if gevent else self._by_greenlet()

    def put(
        self, logger: logging.Logger, level: int, message: object, values: tuple[object, ...]
    ) -> None:
        self._waiting.put((logger, level, message, values))
        with suppress(Exception):  # the loop has ended: closing the relay writes them
            self._wake()

    def write(self) -> None:
        """Write the waiting lines. Not for one of our threads."""
        with suppress(IndexError):
            while True:
                logger, level, message, values = self._waiting.take()
                logger.log(level, message, *values)

    def _by_callback(self, gevent: Any) -> Callable[[], object]:
        # Not referenced: an application that waits until its loop has no work left has to end.
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


class _Writers:
    """The lines that wait for a handler, and the thread that calls it. Any thread may put lines."""

    def __init__(self) -> None:
        self._waiting: _Queue[tuple[logging.Logger, logging.LogRecord]] = _Queue()
        self._busy_in: int | None = None  # the process: a forked child has no such thread

    def put(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        """Write a line in another thread; waits for that `PATIENCE_SECONDS` at most."""
        self._waiting.put((logger, record))
        if self._busy_in == os.getpid():  # a handler blocks it: this line comes after the others
            return
        self._busy_in = os.getpid()
        written = native.Lock()
        written.acquire()
        try:
            threading.Thread(
                target=self._write, args=(written,), name="arthur-relay-log", daemon=True
            ).start()
        except RuntimeError:  # the interpreter ends, or no thread can be started
            self._write(written)
        else:
            written.acquire(timeout=PATIENCE_SECONDS)

    def _write(self, written: threading.Lock) -> None:
        while self._waiting:
            self._busy_in = os.getpid()
            with suppress(IndexError):
                while True:
                    logger, record = self._waiting.take()
                    with suppress(Exception):  # of the application's filters
                        logger.handle(record)
            self._busy_in = None  # then look again for lines that were added meanwhile
        written.release()


_writers = _Writers()
_lines = _Lines()


def start() -> None:
    """Start writing the worker's lines in this process. Not for one of our threads."""
    _lines.start()


def write() -> None:
    """Write the waiting lines. Not for one of our threads."""
    _lines.write()
