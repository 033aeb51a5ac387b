"""The relay and the handler over a destination in memory: what users see of them."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import signal
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from langchain_core.outputs import Generation, LLMResult

from arthur_relay import (
    ArthurCallbackHandler,
    ConfigurationError,
    HealthStatus,
    Inference,
    ModelError,
    Relay,
    RelaySettings,
    lifespan,
)
from arthur_relay.row import Attempt, Batch
from arthur_relay.schema import ModelSchema
from arthur_relay.testing import MemoryDestination, arthur_memory, arthur_sandbox, memory_relay

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

__all__ = ["arthur_memory", "arthur_sandbox"]  # the fixtures, as users import them

Memory = tuple[Relay, MemoryDestination]


def inference(**fields: Any) -> Inference:
    return Inference(**{"input_text": "in", "output_text": "out", **fields})


def test_what_is_captured_is_delivered(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory
    capture: Any = relay.capture
    assert capture(inference(inference_id="mine")) is None
    relay.capture(inference(model_id="another"))
    result = relay.flush(30)
    assert (result.delivered, result.rejected, result.dropped) == (2, 0, {})
    assert (result.pending, result.timed_out) == (0, False)
    first, second = sorted(destination.inferences, key=lambda row: row["model_id"], reverse=True)
    assert first["partner_inference_id"] == "mine"
    assert (first["model_id"], second["model_id"]) == ("test-model", "another")
    assert len(second["partner_inference_id"]) > 20
    stats = relay.stats()
    assert (stats.captured, stats.delivered, stats.pending, stats.pending_bytes) == (2, 2, 0, 0)


def test_made_up_ids_are_unique(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory

    def work() -> None:
        for _ in range(200):
            relay.capture(inference())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    relay.flush(30)
    assert len({row["partner_inference_id"] for row in destination.inferences}) == 1600


def test_capture_never_raises(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory
    odds: tuple[Any, ...] = (None, 5, "text", object())
    for odd in odds:
        relay.capture(odd)
    relay.capture(inference(attributes=5))
    relay.capture(inference(attributes={"user_id": object(), 5: 6}))
    relay.capture(inference(input_text=None, output_text=b"bytes"))
    relay.capture(inference(timestamp="yesterday", duration="long"))
    relay.capture(inference())
    relay.flush(30)
    stats = relay.stats()
    assert stats.capture_errors == 5
    assert stats.pending == 0
    assert stats.captured == 4
    assert stats.delivered + sum(stats.dropped.values()) == 4
    assert any(row["inference_data"]["output_text"] == "out" for row in destination.inferences)
    assert relay.health().status is HealthStatus.DEGRADED


def test_capture_works_in_a_signal_handler_and_in_a_finaliser(arthur_memory: Memory) -> None:
    relay, _destination = arthur_memory
    previous = signal.signal(signal.SIGUSR1, lambda *_: relay.capture(inference()))
    try:
        for _ in range(100):
            relay.capture(inference())
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            relay.capture(inference())

    for _ in range(100):
        Cyclic()
    gc.collect()
    assert relay.flush(30).delivered == 300


def test_closing_is_idempotent_and_what_comes_later_is_counted(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory
    relay.capture(inference())
    assert relay.close().delivered == 1
    relay.capture(inference())
    again = relay.close()
    assert (again.delivered, again.dropped, again.timed_out) == (1, {"closed": 1}, False)
    assert relay.flush().dropped == {"closed": 1}
    health = relay.health()
    assert health.status is HealthStatus.CLOSED
    assert "1 dropped" in health.detail
    assert len(destination.inferences) == 1


def test_open_runs_are_abandoned_when_the_relay_closes(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory
    handler = ArthurCallbackHandler(relay=relay)
    run_id = uuid4()
    handler.on_llm_start({}, ["never answered"], run_id=run_id)
    assert relay.stats().open_runs == 1
    assert relay.close().delivered == 1
    assert destination.inferences[0]["inference_data"]["outcome"] == "abandoned"
    assert relay.stats().abandoned == 1
    handler.on_llm_end(LLMResult(generations=[[Generation(text="late")]]), run_id=run_id)
    assert relay.stats().unmatched_events == 1


class Gated(MemoryDestination):
    """A destination that answers when the test, in another thread, has opened it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self._opened: Future[None] = Future()

    def open(self) -> None:
        self._opened.set_result(None)

    async def deliver(self, batch: Batch) -> Attempt:
        self.asked.set()
        # Shielded, as a request that is cancelled must not cancel the gate of the others.
        await asyncio.shield(asyncio.wrap_future(self._opened))
        return await super().deliver(batch)


def test_a_flush_that_takes_too_long_says_so() -> None:
    destination = Gated()
    settings = RelaySettings(flush_interval_seconds=0)
    with Relay(destination, model_id="m", settings=settings) as relay:
        relay.capture(inference())
        result = relay.flush(0.01)
        assert (result.timed_out, result.pending) == (True, 1)
        destination.open()
        assert relay.flush(30) == (1, 0, {}, 0, False)


def test_a_close_that_takes_too_long_drops_and_tells_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    destination = Gated()
    settings = RelaySettings(flush_interval_seconds=0, batch_size=1)
    relay = Relay(destination, model_id="m", settings=settings)
    for _ in range(30):
        relay.capture(inference())
    assert destination.asked.wait(30)
    result = relay.close(0.01)
    assert result.timed_out
    assert result.dropped == {"shutdown": 30}
    assert result.pending == 0
    relay.close()
    texts = [record.getMessage() for record in caplog.records]
    assert texts == ["30 inferences were not delivered in time and are dropped"]
    assert not relay._parts.runtime.is_alive


def test_async_flush_and_close_do_not_block_the_loop() -> None:
    async def test() -> None:
        destination = Gated()
        settings = RelaySettings(flush_interval_seconds=0)
        async with Relay(destination, model_id="m", settings=settings) as relay:
            relay.capture(inference())
            async with anyio.create_task_group() as group:

                async def flush() -> None:
                    assert (await relay.aflush(30)).delivered == 1

                group.start_soon(flush)
                while not destination.asked.is_set():
                    await anyio.lowlevel.checkpoint()
                destination.open()  # reached, because the loop was not blocked
            handler = ArthurCallbackHandler(relay=relay)
            assert (await handler.aflush(30)).delivered == 1
            assert (await handler.aclose(30)).delivered == 1
            async with handler:
                pass
        assert relay.health().status is HealthStatus.CLOSED

    for backend in ("asyncio", "trio"):
        anyio.run(test, backend=backend)


def test_a_lifespan_flushes_a_handler_and_closes_a_relay(arthur_memory: Memory) -> None:
    relay, _destination = arthur_memory
    handler = ArthurCallbackHandler(relay=relay)

    async def serve(target: ArthurCallbackHandler | Relay) -> None:
        async with lifespan(target)(None):
            relay.capture(inference())

    anyio.run(serve, handler)
    assert relay.stats().delivered == 1
    anyio.run(serve, handler)  # again, as a test client of the application's does it
    assert relay.stats().delivered == 2
    anyio.run(serve, relay)
    assert relay.stats().delivered == 3
    assert relay.health().status is HealthStatus.CLOSED


def test_a_lifespan_that_runs_out_of_time_says_so(caplog: pytest.LogCaptureFixture) -> None:
    destination = Gated()
    settings = RelaySettings(flush_interval_seconds=0, shutdown_timeout_seconds=0.01)
    with Relay(destination, model_id="m", settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)

        async def serve() -> None:
            async with lifespan(handler)(None):
                relay.capture(inference())

        anyio.run(serve)
        assert "1 inferences were not delivered in time" in caplog.text
        destination.open()
        assert relay.close(30).delivered == 1


def test_a_flush_from_the_workers_own_thread_does_not_dead_lock() -> None:
    results: list[Any] = []

    class Reentrant(MemoryDestination):
        relay: Relay

        async def deliver(self, batch: Batch) -> Attempt:
            results.append(self.relay.flush(30))
            return await super().deliver(batch)

    destination = Reentrant()
    settings = RelaySettings(flush_interval_seconds=0)
    with Relay(destination, model_id="m", settings=settings) as relay:
        destination.relay = relay
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
    assert results[0].pending == 1


def test_a_worker_that_dies_comes_back_and_is_counted(
    arthur_memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    relay, _destination = arthur_memory
    worker = relay._parts.worker
    sweep = worker.sweep

    def killed() -> bool:
        worker.sweep = sweep
        raise RuntimeError("killed")

    class Hostile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("a log handler of the application's")

    hostile = Hostile()
    logging.getLogger("arthur_relay.runtime").addHandler(hostile)
    try:
        worker.sweep = killed
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
    finally:
        logging.getLogger("arthur_relay.runtime").removeHandler(hostile)
    assert relay.stats().worker_restarts == 1
    assert relay.health().status is HealthStatus.OK


def test_a_relay_that_can_not_start_says_so_at_once() -> None:
    class Broken(MemoryDestination):
        async def __aenter__(self) -> Self:
            raise ValueError("no such proxy")

    before = set(threading.enumerate())
    with pytest.raises(ConfigurationError, match=r"can't start \(ValueError: no such proxy\)"):
        Relay(Broken(), model_id="m")
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name == "arthur-relay"]


def test_closes_from_many_threads_count_once() -> None:
    destination = Gated()
    settings = RelaySettings(flush_interval_seconds=0, batch_size=10)
    relay = Relay(destination, model_id="m", settings=settings)
    for _ in range(5_000):
        relay.capture(inference())
    threads = [threading.Thread(target=relay.close, args=(0.05,)) for _ in range(8)]
    flusher = threading.Thread(target=relay.flush, args=(3600.0,))  # ends when the relay does
    for thread in [flusher, *threads]:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        relay.capture(inference())
    for thread in [flusher, *threads]:
        thread.join(60)
        assert not thread.is_alive()
    relay.capture(inference())
    stats = relay.stats()
    assert stats.pending == 0
    assert stats.captured == stats.delivered + sum(stats.dropped.values())
    assert stats.dropped["shutdown"] >= 4_000


def test_closing_does_not_wait_for_room() -> None:
    settings = RelaySettings(
        overflow="block", queue_size=1, block_timeout_seconds=600, flush_interval_seconds=0
    )
    relay = Relay(Gated(), model_id="m", settings=settings)
    handler = ArthurCallbackHandler(relay=relay)
    for _ in range(5):
        handler.on_llm_start({}, ["never answered"], run_id=uuid4())
    relay.close(0.05)  # would be 600 s for each run
    stats = relay.stats()
    assert stats.abandoned == 5
    assert stats.captured == sum(stats.dropped.values())


def test_health_tells_of_a_refused_model_without_crying_failure() -> None:
    class Choosy(MemoryDestination):
        async def fetch_schema(self, model_id: str) -> ModelSchema:
            if model_id == "wrong":
                raise ModelError("no such model")
            return await super().fetch_schema(model_id)

    settings = RelaySettings(flush_interval_seconds=0)
    with Relay(Choosy(), model_id="right", settings=settings) as relay:
        with pytest.raises(ModelError):
            ArthurCallbackHandler(relay=relay, model_id="wrong")
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
        health = relay.health()
        assert health.status is HealthStatus.DEGRADED
        assert "unknown model" in health.detail


def test_a_fork_that_no_hook_has_seen_is_found_out_by_the_next_capture(
    arthur_memory: Memory,
) -> None:
    relay, destination = arthur_memory
    relay.capture(inference(inference_id="parent"))
    parent = relay._parts
    relay.flush(30)
    parent.live_in = -5  # as if this were a child of the process that started the worker
    try:
        relay.capture(inference(inference_id="child"))
        assert relay.flush(30).delivered == 1
        assert relay._parts is not parent
        assert relay.stats().captured == 1
        assert [row["partner_inference_id"] for row in destination.inferences] == [
            "parent",
            "child",
        ]
    finally:
        parent.runtime.cancel()
        assert parent.runtime.join(30)


def test_health_and_stats_of_a_quiet_relay(arthur_memory: Memory) -> None:
    relay, _destination = arthur_memory
    health = relay.health()
    assert health.status is HealthStatus.OK
    assert str(health.status) == "ok"
    assert health.detail.endswith(".")
    assert relay.stats().captured == 0


def test_a_registered_model_needs_no_question() -> None:
    class Unasked(MemoryDestination):
        async def fetch_schema(self, model_id: str) -> ModelSchema:
            raise AssertionError("asked")

    destination = Unasked()
    settings = RelaySettings(flush_interval_seconds=0)
    with Relay(destination, model_id="m", settings=settings) as relay:
        relay.register(ModelSchema("m", MemoryDestination()._attributes))
        relay.connect("m")
        relay.capture(inference())
        assert relay.flush(30).delivered == 1


def test_a_disabled_relay_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="arthur_relay")
    before = set(threading.enumerate())
    settings = RelaySettings(disabled=True)
    with Relay(MemoryDestination(), settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        assert handler.ignore_llm
        assert handler.ignore_chat_model
        relay.capture(inference())
        relay.connect("m")
        assert relay.flush() == (0, 0, {}, 0, False)
        assert relay.health().status is HealthStatus.DISABLED
        assert relay.stats().captured == 0
    assert set(threading.enumerate()) <= before  # those of earlier tests may end meanwhile


def test_a_handler_survives_copies(arthur_memory: Memory) -> None:
    handler = ArthurCallbackHandler(relay=arthur_memory[0])
    assert copy.deepcopy({"callbacks": [handler]})["callbacks"][0] is handler
    assert copy.copy(handler) is handler


def test_memory_relay_takes_settings() -> None:
    settings = RelaySettings(flush_interval_seconds=5)
    relay, _destination = memory_relay(model_id="x", settings=settings)
    assert relay.settings is settings
    assert relay.model_id == "x"
    relay.close()


def test_the_sandbox_fixture_and_names(arthur_sandbox: ArthurSandbox) -> None:
    from arthur_relay import sandbox, testing

    assert testing.ArthurSandbox is sandbox.ArthurSandbox
    assert arthur_sandbox.url.startswith("http://127.0.0.1:")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing
