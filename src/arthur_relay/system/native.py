"""The operating system's threads, locks and sockets, also where gevent or eventlet replaced them.

Both libraries replace threads by greenlets. If the worker were a greenlet, its event loop would run
in the application's thread: asyncio would find a running loop everywhere, and no second loop could
start. So the worker uses this module, which is never patched:

- everything imported from here is the operating system's, whenever the application was patched;
- a greenlet that waits for the worker waits on one of the library's sockets, so that other
  greenlets continue. A gevent lock would do as well, but eventlet's locks work within one thread
  only.

Neither library is imported. Without them, everything here is the standard library's.
"""

import _socket
import importlib.util
import os
import sys
import threading
from _queue import SimpleQueue  # `queue` hands out another one when it is replaced
from builtins import __import__ as import_module
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from types import ModuleType
from typing import Any

__all__ = [
    "BackgroundThread",
    "DefaultSelector",
    "Event",
    "Lock",
    "RLock",
    "SimpleQueue",
    "Waiter",
    "get_ident",
    "getaddrinfo",
    "is_background_thread",
    "is_patched",
    "new_future",
    "new_waiter",
    "open_file",
    "select",
    "sleep",
    "socket",
    "socketpair",
    "start_new_thread",
    "wait_for_any",
]

A_YEAR = 365 * 24 * 3600.0
"""The longest wait: `settimeout` refuses the value by which a lock waits for ever."""

PATCHABLE = ("threading", "thread", "socket", "select", "time")
"""The modules that the worker needs unpatched; gevent calls threads by the first of these names,
eventlet by the second."""


def is_patched() -> bool:
    """Return whether gevent or eventlet have replaced anything that the worker needs."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    tests = (
        getattr(gevent, "is_module_patched", None),
        getattr(eventlet, "is_monkey_patched", None),
    )
    return any(test(name) for test in tests if test is not None for name in PATCHABLE)


def _originals() -> dict[str, ModuleType]:
    """Return modules in which nothing is replaced: the loaded ones, or copies of our own."""
    names = ("_thread", "time", "select", "selectors")
    if not is_patched():
        return {name: importlib.import_module(name) for name in names}
    copies: dict[str, ModuleType] = {}
    for name in names:
        copies[name] = _copy(name, copies)
    return copies


def _copy(name: str, imports: dict[str, ModuleType]) -> ModuleType:
    """Load another copy of a module, and leave the one in `sys.modules` alone.

    Args:
        name: The name of a module of the standard library.
        imports: The modules that it gets when it imports these names.
    """
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    if not hasattr(spec.loader, "get_code") or spec.loader.get_code(name) is None:
        spec.loader.exec_module(module)  # written in C
        return module

    def find(name: str, *arguments: Any) -> ModuleType:
        return imports.get(name) or import_module(name, *arguments)

    builtins = {**vars(sys.modules["builtins"]), "__import__": find}
    vars(module)["__builtins__"] = builtins
    exec(spec.loader.get_code(name), vars(module))  # noqa: S102 - it is the standard library's
    return module


_modules = _originals()
Lock: Callable[[], threading.Lock] = _modules["_thread"].allocate_lock
RLock: Callable[[], "threading.RLock"] = _modules["_thread"].RLock
get_ident: Callable[[], int] = _modules["_thread"].get_ident
sleep: Callable[[float], None] = _modules["time"].sleep
DefaultSelector: Any = _modules["selectors"].DefaultSelector
select: ModuleType = _modules["select"]
# Written in C, these are never replaced; asyncio needs no more of a socket than they have.
socket: Any = _socket.socket
getaddrinfo: Any = _socket.getaddrinfo
socketpair: Any = (
    getattr(_socket, "socketpair", None) or importlib.import_module("socket").socketpair
)
_system = sys.modules.get("posix") or sys.modules.get("nt") or os
open_file: Callable[..., int] = vars(_system)["open"]
start_new_thread: Callable[..., int] = _modules["_thread"].start_new_thread


class BackgroundThread:
    """A daemon thread of the operating system, whatever `threading.Thread` is when it starts.

    Args:
        run: The function that it calls; must not raise.
        name: Its name.

    Attributes:
        ident: As `get_ident()` returns it there; None before it was started.
    """

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._run = run
        self._name = name
        self._thread: threading.Thread | None = None
        self._ended = Event()
        self.ident: int | None = None

    def start(self) -> None:
        """Start it.

        Raises:
            RuntimeError: No thread can be had.
        """
        if is_patched():
            self.ident = start_new_thread(self._run_to_end, ())
        else:
            self._thread = _Thread(target=self._run_to_end, name=self._name, daemon=True)
            self._thread.start()
            self.ident = self._thread.ident

    def adopt_caller(self) -> None:
        """Stand for the calling thread, if no other can be had; the caller has to call `run`."""
        self.ident = get_ident()

    def run(self) -> None:
        """Run the function in the adopted thread, as a started one does."""
        self._run_to_end()

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        if self._thread is not None:
            return self._thread.is_alive()
        return self.ident is not None and not self._ended.is_set()

    def join(self, seconds: float) -> None:
        """Wait for the thread's end, for `seconds` at most."""
        # If the library patched `threading` later on, `join` would wait as if for a greenlet.
        if self._thread is not None and not is_patched():
            self._thread.join(seconds)
        elif self.is_alive():
            self._ended.wait(seconds)

    def _run_to_end(self) -> None:
        ident = get_ident()
        _background.add(ident)
        try:
            self._run()
        finally:
            _background.discard(ident)
            self._ended.set()


_background: set[int] = set()


def is_background_thread() -> bool:
    """Return whether the calling thread is a `BackgroundThread`."""
    return get_ident() in _background


class _Thread(threading.Thread):
    """A thread that ends without an error if a library patched `threading` while it ran."""

    def _delete(self) -> None:
        with suppress(KeyError):  # it looks itself up by the ident that it had before
            super()._delete()  # type: ignore[misc] # a private method


class Event:
    """Does what `threading.Event` does, also for a greenlet that waits for a thread.

    `set` takes no lock that anybody holds for long, and never blocks. Any thread.
    """

    __slots__ = ("_is_set", "_waiters")  # eventlet replaces locks that it finds in a `__dict__`

    def __init__(self) -> None:
        self._is_set = False
        self._waiters: list[Waiter] = []

    def is_set(self) -> bool:
        """Return whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Wake all waiters; nobody waits from now on."""
        self._is_set = True
        for waiter in list(self._waiters):
            waiter.wake()

    def clear(self) -> None:
        """Reset it; `wait` waits again from now on."""
        self._is_set = False

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, for `seconds` at most. Returns whether it is."""
        return wait_for_any((self,), seconds)


def wait_for_any(events: "Iterable[Event | Future[Any]]", seconds: float) -> bool:
    """Wait until one of these is set, or done, for `seconds` at most.

    Only the calling greenlet waits, and others go on. Within the library's own loop, where no
    greenlet may wait, the whole thread waits.

    Returns:
        Whether one of them is set or done.
    """
    found = [_when_done(event) if isinstance(event, Future) else event for event in events]
    waiter = new_waiter()
    try:
        for event in found:
            event._waiters.append(waiter)  # noqa: SLF001 - in the same module
        if not any(event.is_set() for event in found):  # last, because `set` wakes us now
            return waiter.wait(min(max(0.0, seconds), A_YEAR))
    finally:
        for event in found:
            event._waiters.remove(waiter)  # noqa: SLF001 - as above
        waiter.close()
    return True


def new_future() -> "Future[Any]":
    """Return a future that one thread may set and another may read.

    Wait for it by `wait_for_any`.
    """
    future: Future[Any] = Future()
    if is_patched():
        future._condition = threading.Condition(RLock())  # noqa: SLF001 - else it is for greenlets
    return future


def _when_done(future: "Future[Any]") -> Event:
    event = Event()

    def on_done(_future: "Future[Any]") -> None:
        event.set()

    future.add_done_callback(on_done)
    return event


class Waiter:
    """Lets a thread wait until another one wakes it."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait for a `wake`. Returns whether there was one."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        """End the wait, or the next one. Any thread, also after `close`; never blocks."""
        with suppress(RuntimeError):  # it is released already
            self._lock.release()

    def close(self) -> None:
        """Free what it uses."""


class _GreenWaiter(Waiter):
    """Lets a greenlet wait on a socket, because every hub can wait for sockets."""

    __slots__ = ("_made_in", "_open", "_reader", "_writer")

    def __init__(self) -> None:
        self._made_in = os.getpid()
        self._open = Lock()
        reader, self._writer = socketpair()
        self._writer.settimeout(0.0)
        # The class that `socket` has now is the library's.
        family, kind = reader.family, reader.type
        self._reader = sys.modules["socket"].socket(family, kind, fileno=reader.detach())

    def wait(self, seconds: float) -> bool:
        self._reader.settimeout(seconds)
        try:
            self._reader.recv(1)
        except (TimeoutError, BlockingIOError):  # BlockingIOError when `seconds` is 0
            return False
        if self._made_in != os.getpid():
            self.wake()  # a fork has copied this greenlet, but not what it waits for
            return False
        return True

    def wake(self) -> None:
        with self._open, suppress(OSError):  # it is closed, or woken already
            self._writer.send(b"\0")

    def close(self) -> None:
        with self._open:
            self._writer.close()
        self._reader.close()


def new_waiter() -> Waiter:
    """Return a waiter for the calling thread or greenlet."""
    if is_patched() and not _is_in_hub():
        with suppress(OSError):  # no more files can be opened: then the whole thread waits, as long
            return _GreenWaiter()
    return Waiter()


def _is_in_hub() -> bool:
    """Return whether the caller is the library's own loop, which runs most signal handlers."""
    greenlet = sys.modules.get("greenlet")
    if greenlet is None:
        return False
    current = greenlet.getcurrent()
    gevent, eventlet = sys.modules.get("gevent.hub"), sys.modules.get("eventlet.hubs")
    return (gevent is not None and gevent.get_hub() is current) or (
        eventlet is not None and eventlet.get_hub().greenlet is current
    )
