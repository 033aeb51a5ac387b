"""What happens when more comes than can leave: the policies, their counts, and the bound."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import anyio
import pytest

from arthur_relay.accounting import Ledger
from arthur_relay.capture.queue import CaptureQueue, CaptureQueueLimits
from arthur_relay.inference import CapturedInference, Inference
from arthur_relay.row import Attempt, Batch
from arthur_relay.settings import RelaySettings
from tests.waker import Waker
from tests.worker.harness import (
    Harness,
    ScriptedDestination,
    delivered,
    harness,
    run,
    unavailable,
    unreachable,
)


def away(**settings: object) -> tuple[Harness, Callable[[], None]]:
    """Return a harness whose destination is away, and what brings it back."""
    state = {"back": False}

    def script(batch: Batch, _number: int) -> Attempt:
        return delivered(batch) if state["back"] else unavailable(batch)

    h = harness(ScriptedDestination(script), queue_size=50, batch_size=5, **settings)
    return h, lambda: state.update(back=True)


@pytest.mark.parametrize(
    ("overflow", "first_lost"),
    [("drop_oldest", False), ("drop_newest", True)],
)
def test_a_full_queue_drops_by_the_policy_and_counts(overflow: str, first_lost: bool) -> None:
    async def test() -> None:
        h, come_back = away(overflow=overflow)
        async with h.running():
            for number in range(300):
                h.capture(f"r{number}")
                await anyio.sleep(0.01)
            await anyio.sleep(5)
            totals = h.ledger.totals()
            assert totals.captured == 300
            assert totals.dropped["overflow"] > 0
            # The capture queue holds as many as the buffer where what came first is kept.
            assert totals.pending <= 50 + (50 if first_lost else 0)
            come_back()
            assert await h.flush()
            h.check(pending=0, delivered=300 - totals.dropped["overflow"])
            kept_newest = "r299" in h.destination.stored
            assert kept_newest is not first_lost

    run(test)


def test_the_buffer_is_bounded_in_bytes() -> None:
    async def test() -> None:
        h, come_back = away(queue_bytes=400_000)
        async with h.running():
            for number in range(200):
                h.capture(f"r{number}", text="x" * 20_000)
                await anyio.sleep(0.01)
                held = h.buffer.size + h.queue.size
                assert held <= 400_000
            come_back()
            assert await h.flush()
            assert h.buffer.size == 0
            assert h.queue.size == 0

    run(test)


def test_a_queue_that_overflows_is_told_once_and_again_when_it_has_room(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="arthur_relay")

    async def test() -> None:
        h, come_back = away()
        async with h.running():
            for number in range(300):
                h.capture(f"r{number}")
                await anyio.sleep(0.01)
            come_back()
            assert await h.flush()
            h.capture("too early to be sure")
            assert await h.flush()
            await anyio.sleep(120)
            h.capture("one more")
            assert await h.flush()

    run(test)
    texts = [record.getMessage() for record in caplog.records if "queue" in record.getMessage()]
    assert len(texts) == 2
    assert "is full" in texts[0]
    assert "room again" in texts[1]


def _item(text: str = "t") -> CapturedInference:
    return CapturedInference(
        Inference(input_text=text, output_text=""),
        inference_id="i",
        model_id="m",
        captured_at=0.0,
    )


def _blocking(seconds: float) -> CaptureQueue:
    settings = RelaySettings(
        overflow="block", queue_size=1, block_timeout_seconds=seconds, batch_size=1
    )
    return CaptureQueue(CaptureQueueLimits.of(settings), Ledger(), Waker())


def test_block_holds_the_caller_until_there_is_room() -> None:
    queue = _blocking(60.0)
    assert queue.put(_item())
    done = threading.Event()
    accepted = []

    def caller() -> None:
        accepted.append(queue.put(_item()))
        done.set()

    thread = threading.Thread(target=caller)
    thread.start()
    assert queue.take(1)
    queue.made_room()
    assert done.wait(30)
    thread.join()
    assert accepted == [True]
    assert queue.ledger.totals().dropped == {}


def test_block_lets_go_after_its_time_limit_and_counts() -> None:
    queue = _blocking(0.001)
    assert queue.put(_item())
    assert not queue.put(_item())
    assert queue.ledger.totals().dropped == {"overflow": 1}


def test_block_lets_go_when_the_relay_closes() -> None:
    queue = _blocking(60.0)
    assert queue.put(_item())
    results = []
    thread = threading.Thread(target=lambda: results.append(queue.put(_item())))
    thread.start()
    queue.close()
    thread.join(30)
    assert results == [False]


def test_one_large_capture_costs_no_other() -> None:
    settings = RelaySettings(queue_bytes=80_000)  # an eighth of it for the capture queue
    queue = CaptureQueue(CaptureQueueLimits.of(settings), Ledger(), Waker())
    for _ in range(5):
        assert queue.put(_item())
    assert queue.put(_item("x" * 1_000_000))
    assert queue.ledger.totals().dropped == {}
    assert queue.put(_item())  # now it is full: the oldest goes
    assert queue.ledger.totals().dropped == {"overflow": 1}


def test_drop_oldest_counts_bytes_right() -> None:
    settings = RelaySettings(queue_size=3)
    queue = CaptureQueue(CaptureQueueLimits.of(settings), Ledger(), Waker())
    for _ in range(10):
        queue.put(_item())
    assert len(queue) == 3
    while queue.take(8):
        pass
    assert queue.size == 0
    assert queue.ledger.totals().dropped == {"overflow": 7}


def test_drop_oldest_is_bounded_in_bytes_whatever_the_sizes() -> None:
    settings = RelaySettings(queue_bytes=8_000_000)
    queue = CaptureQueue(CaptureQueueLimits.of(settings), Ledger(), Waker())
    for _ in range(1_000):
        queue.put(_item("x" * 100))
    for _ in range(200):
        queue.put(_item("x" * 100_000))
        assert queue.size <= settings.capture_queue_bytes + 110_000
    totals = queue.ledger.totals()
    assert totals.captured == 1_200
    assert totals.dropped["overflow"] + len(queue) == 1_200


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_a_queue_smaller_than_a_batch_flows_all_the_same(overflow: str) -> None:
    async def test() -> None:
        h = harness(queue_size=10, batch_size=500, overflow=overflow)
        async with h.running():
            for number in range(60):
                h.capture(f"r{number}")
                await anyio.sleep(0.01)
            assert await h.flush()
            totals = h.ledger.totals()
            assert totals.delivered >= 50
            assert totals.pending == 0

    run(test)


def test_a_flush_does_not_wait_for_captures_that_gave_way_before_their_model_was_known() -> None:
    async def test() -> None:
        arthur = ScriptedDestination(schema_errors=unreachable(3))
        h = harness(arthur, queue_size=50, batch_size=5)
        async with h.running():
            for number in range(120):
                h.capture(f"r{number}")
                await anyio.sleep(0.01)
            assert h.ledger.totals().dropped["overflow"] >= 60
            assert arthur.requests == [], "all of them gave way while the model was not known"
            assert await h.flush(60.0)
            h.check(pending=0, delivered=120 - h.ledger.totals().dropped["overflow"])

    run(test)
