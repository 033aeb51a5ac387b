"""Calls that block, look-ups of names among them, beside the worker's loop."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from arthur_relay.runtime.daemon_thread_executor import DaemonThreadExecutor
from arthur_relay.runtime.event_loop import RelayEventLoop
from arthur_relay.runtime.thread import Runtime
from tests.relay.relays import Job
from tests.waiting import turn_until

if TYPE_CHECKING:
    from collections.abc import Callable


def _with_resolver(lookup: Any, test: Any) -> None:
    resolver = DaemonThreadExecutor("resolver")
    resolver.start()
    try:
        loop = RelayEventLoop(resolver, lookup)
        try:
            loop.run_until_complete(test())
        finally:
            loop.close()
    finally:
        resolver.stop()


def test_names_are_resolved_without_the_loops_thread_pool() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert found == socket.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert getattr(loop, "_default_executor", None) is None

    _with_resolver(socket.getaddrinfo, test)


def test_without_the_thread_the_call_is_made_on_the_loop() -> None:
    side = DaemonThreadExecutor("never started")

    async def test() -> None:
        assert await side.call(threading.get_ident) == threading.get_ident()
        with pytest.raises(ZeroDivisionError):
            await side.call(lambda: 1 // 0)

    asyncio.run(test())


def test_a_name_that_does_not_resolve() -> None:
    def lookup(*_question: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    async def test() -> None:
        with pytest.raises(socket.gaierror):
            await asyncio.get_running_loop().getaddrinfo("nowhere", 80)

    _with_resolver(lookup, test)


@pytest.mark.parametrize("fails", [True, False])
def test_a_slow_look_up_does_not_hold_who_gave_up(fails: bool) -> None:
    asked, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def lookup(*_question: Any) -> Any:
        asked.set()
        go_on.wait(30)
        done.set()
        if fails:
            raise OSError("too late")
        return []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        question = asyncio.ensure_future(loop.getaddrinfo("slow", 80))
        await turn_until(asked.is_set)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        go_on.set()
        await turn_until(done.is_set)

    _with_resolver(lookup, test)


def test_a_call_that_no_one_waits_for_any_more_leaves_the_thread_to_the_next() -> None:
    gate = threading.Event()

    async def test() -> None:
        thread = DaemonThreadExecutor("side")
        thread.start()
        try:
            with anyio.move_on_after(0.01):
                await thread.call(gate.wait)
            gate.set()
            assert await thread.call(sum, [1, 2]) == 3
            with pytest.raises(ZeroDivisionError):
                await thread.call(divmod, 1, 0)
        finally:
            thread.stop()

    anyio.run(test)


def test_a_worker_offloads_to_another_thread_and_does_it_itself_when_none_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []

    def work() -> None:
        threads.append(threading.get_ident())

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    async def run(_ready: Callable[[], None]) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            await runtime.offload(work)
        await runtime.offload(work)
        await runtime.offload(work)
        return False

    runtime = Runtime()
    runtime.start(Job(run))
    worker = runtime._thread.ident
    assert runtime.join(30)
    assert threads[0] == worker
    assert threads[1] == threads[2] != worker
