"""The operating system's threads, sockets and locks, where others stand in their place.

What gevent and eventlet really do is in `tests/hosts/test_green_threads.py`; here one of them says
that it has patched, in this process, where nothing is.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.errors import ConfigurationError, unable_to_start
from arthur_relay.runtime.daemon_thread_executor import DaemonThreadExecutor
from arthur_relay.runtime.event_loop import RelayEventLoop
from arthur_relay.runtime.thread import Runtime
from arthur_relay.system import native, worker_logs
from tests import needs
from tests.relay.relays import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(is_monkey_patched=lambda name: name == "thread")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", library)


@pytest.mark.parametrize(
    ("module", "test"),
    [("gevent.monkey", "is_module_patched"), ("eventlet.patcher", "is_monkey_patched")],
)
@pytest.mark.parametrize(
    ("name", "counts"), [("socket", True), ("time", True), ("subprocess", False)]
)
def test_each_library_is_asked(
    module: str, test: str, name: str, counts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not native.is_patched()
    library = SimpleNamespace(**{test: lambda asked: asked == name})
    monkeypatch.setitem(sys.modules, module, library)
    assert native.is_patched() is counts


@pytest.mark.skipif(
    "tests.other_systems" in sys.modules,
    reason="a copy has again what is only hidden",
)
def test_copies_of_modules_have_what_was_taken_away(
    patched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert native.is_patched()
    present = dict(sys.modules)
    with monkeypatch.context() as patch:
        for name in ("epoll", "kqueue", "poll"):
            patch.delattr(select, name, raising=False)
        patch.setattr("_thread.get_ident", lambda: 0)
        originals = native._originals()
    assert dict(sys.modules) == present
    assert originals["_thread"].get_ident() == threading.get_ident()
    assert originals["selectors"].DefaultSelector.__name__ == native.DefaultSelector.__name__
    selector = originals["selectors"].DefaultSelector()
    reader, writer = native.socketpair()
    try:
        selector.register(reader, 1)
        assert selector.select(0) == []
        writer.send(b"\0")
        assert len(selector.select(0)) == 1
    finally:
        selector.close()
        reader.close()
        writer.close()


@pytest.mark.parametrize("is_patched", [False, True])
def test_a_background_thread(is_patched: bool, request: pytest.FixtureRequest) -> None:
    if is_patched:
        request.getfixturevalue("patched")
    go = native.Event()
    seen: list[tuple[int | None, bool]] = []

    def run() -> None:
        seen.append((native.get_ident(), native.is_background_thread()))
        go.wait(30)

    thread = native.BackgroundThread(run, "background")
    assert not thread.is_alive()
    thread.start()
    assert thread.is_alive()
    thread.join(0)
    assert thread.is_alive()
    go.set()
    thread.join(30)
    assert not thread.is_alive()
    assert seen == [(thread.ident, True)]
    assert not native.is_background_thread()


def test_a_thread_that_ran_before_the_library_came(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    go = native.Event()

    def run() -> None:
        go.wait(30)

    thread = native.BackgroundThread(run, "background")
    thread.start()
    request.getfixturevalue("patched")
    with monkeypatch.context() as patch:
        patch.setattr(threading, "get_ident", lambda: -1)  # by which it looks for itself
        go.set()
        thread.join(30)
        assert thread._thread is not None
        assert thread._ended.is_set()
        while thread._thread.is_alive():
            native.sleep(0)
    with threading._active_limbo_lock:  # type: ignore[attr-defined] # not for everybody
        threading._active.pop(thread.ident, None)  # type: ignore[attr-defined] # as above


@pytest.mark.parametrize("is_patched", [False, True])
def test_a_wait_for_any_of_several(is_patched: bool, request: pytest.FixtureRequest) -> None:
    if is_patched:
        request.getfixturevalue("patched")
    event, future = native.Event(), native.new_future()
    assert not native.wait_for_any((event, future), 0)
    assert not native.wait_for_any((event, future), -1)
    assert not event.wait(0.001)
    timer = threading.Timer(0.01, future.set_result, (None,))
    timer.start()
    assert native.wait_for_any((event, future), 30)
    timer.join()
    assert native.wait_for_any((event, future), 1e12)  # more than a socket or a lock takes
    event.set()
    event.set()
    assert event.wait(0)
    event.clear()
    assert not event.wait(0)
    assert event._waiters == []


def test_a_wake_up_after_the_end_of_a_wait_is_nothing(patched: None) -> None:
    waiter = native.new_waiter()
    waiter.wake()
    waiter.wake()
    assert waiter.wait(30)
    waiter.close()
    waiter.wake()


def test_a_wait_when_no_more_files_can_be_had(
    patched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(native, "socketpair", refuse)
    future = native.new_future()
    timer = threading.Timer(0.01, future.set_result, (None,))
    timer.start()
    assert native.wait_for_any((future,), 30)
    timer.join()


def test_a_copy_that_a_fork_made_passes_a_wake_up_on(
    patched: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiter = native.new_waiter()
    waiter.wake()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        assert not waiter.wait(30)
    assert waiter.wait(30)
    waiter.close()


@needs.unix_sockets
def test_the_loop_connects_by_real_sockets(patched: None, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    resolver = DaemonThreadExecutor("resolver")
    resolver.start()

    async def connect() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
        unix = await loop.create_unix_server(asyncio.Protocol, path)
        port = server.sockets[0].getsockname()[1]
        transports = [
            (await loop.create_connection(asyncio.Protocol, "localhost", port))[0],
            (
                await loop.create_connection(
                    asyncio.Protocol, host="localhost", port=port, local_addr=("127.0.0.1", 0)
                )
            )[0],
            (await loop.create_unix_connection(asyncio.Protocol, path))[0],
        ]
        for method, address in (
            (loop.create_connection, ("localhost", port)),
            (loop.create_unix_connection, (path,)),
        ):
            # Refused by the base class when ours is connected, and has to be closed.
            with pytest.raises(ValueError, match="server_hostname"):
                await method(asyncio.Protocol, *address, server_hostname="name")
        for transport in transports:
            assert type(transport.get_extra_info("socket")._sock) is native.socket
            transport.close()
        server.close()
        unix.close()
        with pytest.raises(OSError, match=r"refused|111|61"):
            await loop.create_connection(asyncio.Protocol, "127.0.0.1", port)
        with pytest.raises(FileNotFoundError):
            await loop.create_unix_connection(asyncio.Protocol, path + "2")

    loop = RelayEventLoop(resolver)
    try:
        loop.run_until_complete(connect())
    finally:
        loop.close()
        resolver.stop()


def test_the_workers_lines_are_written_by_another_thread(
    patched: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_logs, "_lines", worker_logs._Lines())
    written = threading.Event()
    writers: list[int] = []

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            writers.append(threading.get_ident())
            if record.getMessage() == "asyncio's":
                written.set()

    logger, handler = worker_logs.WorkerLogger("arthur_relay.test"), Note()
    logger.warning("%s", "of this thread")
    assert caplog.records[-1].filename == "test_native.py"

    async def run(ready: Callable[[], None]) -> bool:
        ready()
        logger.warning("%s", "the worker's")
        logging.getLogger("asyncio").warning("%s", "asyncio's")
        return False

    logging.root.addHandler(handler)
    try:
        runtime = Runtime()
        runtime.start(Job(run))
        assert runtime.wait_until_ready() is None
        assert written.wait(30)
        worker = runtime._thread.ident
        assert runtime.join(30)
    finally:
        logging.root.removeHandler(handler)
        logging.getLogger("asyncio").removeFilter(worker_logs._OURS)
        with monkeypatch.context() as patch:  # so it ends in a forked child
            patch.setattr(os, "getpid", lambda: 0)
            worker_logs._lines._wake()
            for thread in threading.enumerate():
                if "_write_whenever" in thread.name:
                    thread.join(30)
                    assert not thread.is_alive()
    assert caplog.messages == ["of this thread", "the worker's", "asyncio's"]
    assert worker not in writers


def test_a_worker_that_can_not_start_where_threads_are_greenlets(patched: None) -> None:
    async def run(_ready: Any) -> bool:
        raise AttributeError("sendmsg")

    runtime = Runtime()
    runtime.start(Job(run))
    error = runtime.wait_until_ready()
    runtime.cancel()
    assert runtime.join(30)
    assert isinstance(error, AttributeError)
    assert isinstance(unable_to_start(error), ConfigurationError)
