"""How a relay flushes and closes: within its time, once, and with every inference accounted for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import anyio.lowlevel
import pytest
from langchain_core.outputs import Generation, LLMResult

from arthur_relay import ArthurCallbackHandler, HealthStatus, Relay, RelaySettings, lifespan
from arthur_relay.buffers import overflow
from arthur_relay.row import Attempt, Batch
from arthur_relay.testing import MemoryDestination, arthur_memory
from arthur_relay.worker import pipeline
from tests.relay.relays import Gated, Memory, inference
from tests.waiting import wait_for

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["arthur_memory"]  # the fixture, as users import it


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
    assert relay.close(3600.0).timed_out  # it has ended: there is nothing to wait for any more
    texts = [record.getMessage() for record in caplog.records]
    (text,) = texts
    assert text.startswith(
        "arthur-relay: 30 inferences were not delivered in time and are dropped: raise"
        " shutdown_timeout_seconds (or ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS)"
    )
    assert not relay._host.pipeline.runtime.is_alive


def test_what_a_spill_has_no_time_to_keep_is_counted_as_dropped(tmp_path: Path) -> None:
    settings = RelaySettings(overflow="spill", spool_dir=tmp_path, flush_interval_seconds=0)
    relay = Relay(Gated(), model_id="m", settings=settings)
    for _ in range(2_000):
        relay.capture(inference())
    assert relay.flush(0.01).timed_out
    relay._host.pipeline.begin_shutdown()
    # A deadline so long ago that not even what comes on top of it is left.
    assert not relay._host.pipeline.finish_shutdown(time.monotonic() - 3600)
    stats = relay.stats()
    assert (stats.dropped, stats.pending, stats.spooled) == ({"shutdown": 2_000}, 0, 0)
    relay.close()
    again = Relay(Gated(), model_id="m", settings=settings)
    assert again.stats().captured == 0  # what is told to be dropped does not come back
    again.close(0.0)


def test_a_spill_has_a_part_of_the_time_to_keep_what_could_not_be_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "KEEPING_SHARE", 1.0)  # all of it, so that the test need not wait
    monkeypatch.setattr(overflow, "MOVED_BYTES_PER_SECOND", 1e-6)
    settings = RelaySettings(overflow="spill", spool_dir=tmp_path, flush_interval_seconds=0)
    relay = Relay(Gated(), model_id="m", settings=settings)
    for _ in range(2_000):
        relay.capture(inference())
    wait_for(lambda: relay._host.pipeline.worker.buffer.intake.rows == 2_000)
    result = relay.close(3600.0)
    assert (result.timed_out, result.dropped, result.pending) == (True, {}, 2_000)
    with Relay(MemoryDestination(), model_id="m", settings=settings) as again:
        wait_for(lambda: again.stats().delivered == 2_000)


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
