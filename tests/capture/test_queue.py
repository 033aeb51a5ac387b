"""The capture queue: no capture is lost or doubled, from any thread, nor at its end."""

from __future__ import annotations

import threading
from collections import deque

import pytest

from arthur_relay.accounting import Ledger
from arthur_relay.capture.queue import HAND_OVER_SECONDS, CaptureQueue, CaptureQueueLimits
from arthur_relay.inference import Capture, CapturedInference, Inference
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.system import native
from tests.threads import THREADS, in_threads
from tests.waker import Waker

EACH = 2_000


def _item(inference_id: str = "i") -> CapturedInference:
    return CapturedInference(
        Inference(input_text="t", output_text=""),
        inference_id=inference_id,
        model_id="m",
        captured_at=0.0,
    )


def test_the_inlet_loses_nothing_from_any_thread() -> None:
    settings = RelaySettings(queue_bytes=1 << 30)
    queue = CaptureQueue(CaptureQueueLimits.of(settings), Ledger(), Waker())
    taken: list[str] = []
    stop = threading.Event()

    def take() -> None:
        while not stop.is_set() or len(queue):
            for capture in queue.take(7):
                assert isinstance(capture, CapturedInference)
                taken.append(capture.id)

    taker = threading.Thread(target=take)
    taker.start()
    in_threads(lambda thread: [queue.put(_item(f"{thread}-{n}")) for n in range(EACH)])
    stop.set()
    taker.join()
    assert sorted(taken) == sorted(f"{t}-{n}" for t in range(THREADS) for n in range(EACH))
    for thread in range(THREADS):  # each thread's own order is kept
        mine = [name for name in taken if name.startswith(f"{thread}-")]
        assert mine == [f"{thread}-{n}" for n in range(EACH)]
    assert queue.take(1) == []
    assert queue.size == 0
    assert queue.ledger.totals().captured == THREADS * EACH


def test_large_captures_are_taken_by_their_bytes() -> None:
    queue = CaptureQueue(CaptureQueueLimits.of(RelaySettings()), Ledger(), Waker())
    for _ in range(5):
        queue.put(_item())
    size = queue.size // 5
    assert len(queue.take(4, enough_bytes=2 * size - 1)) == 2
    assert len(queue.take(1, enough_bytes=10 * size)) == 1
    assert len(queue.take(4, enough_bytes=1)) == 1  # one larger than that by itself
    assert queue.size == size


def test_a_full_queue_hands_the_lock_over_to_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(native, "sleep", pauses.append)
    limits = CaptureQueueLimits(items=2, size=1 << 20, wake=(1, 1), drop_oldest=True)
    waker = Waker()
    queue = CaptureQueue(limits, Ledger(), waker)
    for _ in range(2):
        queue.put(_item())
    assert pauses == []  # there was room
    queue.put(_item())
    assert pauses == [HAND_OVER_SECONDS]
    queue.put(_item(), may_wait=False)
    waker.is_this_thread = True
    queue.put(_item())
    waker.is_this_thread = False
    queue.stall(True)  # it could take nothing
    queue.put(_item())
    assert pauses == [HAND_OVER_SECONDS]
    queue.stall(False)
    queue.put(_item())
    assert pauses == [HAND_OVER_SECONDS] * 2


def test_a_lost_update_of_the_byte_count_heals_when_the_inlet_is_empty() -> None:
    queue = CaptureQueue(CaptureQueueLimits.of(RelaySettings()), Ledger(), Waker())
    queue.put(_item())
    queue._size_in -= 500
    queue.take(1)
    assert queue.take(1) == []
    assert queue._size_in == queue._size_out


def test_a_caller_that_meets_the_end_drops_for_the_reason_of_the_end() -> None:
    dropping, go_on = threading.Event(), threading.Event()

    class Slow(Ledger):
        def drop_oldest(self, reason: DropReason, waiting: deque[Capture]) -> Capture:
            oldest = super().drop_oldest(reason, waiting)
            if threading.current_thread() is closer:
                dropping.set()
                go_on.wait()
            return oldest

    def end() -> None:
        queue.close()
        queue.discard(DropReason.SHUTDOWN)

    def meet_the_end() -> None:  # the put below is between its check for the end and its append
        closer.start()
        dropping.wait()

    closer = threading.Thread(target=end)
    ledger = Slow()
    limits = CaptureQueueLimits(items=100, size=1 << 20, wake=(10, 1 << 20))
    queue = CaptureQueue(limits, ledger, Waker(meet_the_end))
    for _ in range(10):
        queue.put(_item())
    go_on.set()
    closer.join()
    assert ledger.totals().dropped == {"shutdown": 10}
    assert ledger.totals().pending == 0


def test_the_inlet_wakes_an_idle_worker_once() -> None:
    waker = Waker()
    limits = CaptureQueueLimits.of(RelaySettings(batch_size=4))
    queue = CaptureQueue(limits, Ledger(), waker)
    assert queue.rest(idle=True)
    for _ in range(10):
        queue.put(_item())
    assert waker.wakes == 1
    assert not queue.rest(idle=True)  # there is something to take first
    while queue.take(8):
        pass
    assert queue.rest(idle=False)
    for _ in range(3):
        queue.put(_item())
    assert waker.wakes == 1  # a busy worker is not woken for less than a batch
    queue.put(_item())
    assert waker.wakes == 2


def test_a_capture_that_comes_in_while_the_worker_ends_is_counted() -> None:
    ledger = Ledger()
    queue = CaptureQueue(CaptureQueueLimits.of(RelaySettings()), ledger, Waker())
    queue.put(_item())
    queue._finished = DropReason.CLOSED  # as if the end came between the check and the append
    queue.put(_item())
    assert ledger.totals().dropped == {"closed": 2}
    queue.close()
    assert not queue.put(_item())
    assert ledger.totals().pending == 0
