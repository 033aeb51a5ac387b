"""The small parts: ledger, inlet, buffer, open runs, tokens, public names."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections import deque
from typing import Any
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest

import arthur_relay
from arthur_relay.accounting import AtomicCounter, Ledger
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.capture.open_runs import OpenRuns
from arthur_relay.capture.queue import CaptureQueue, CaptureQueueLimits
from arthur_relay.destinations.scope.auth import Token, TokenSource, refresh_time
from arthur_relay.inference import Capture, CapturedInference, Inference, Run, RunOutcome
from arthur_relay.row import Row
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from tests.clock import Clock
from tests.waker import Waker

THREADS, EACH = 16, 2_000


def in_threads(function: Any) -> None:
    """Call a function in many threads at once, which switch as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=function, args=(n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)


def test_the_counter_loses_no_count_from_any_thread() -> None:
    counter = AtomicCounter()

    def count(_thread: int) -> None:
        for number in range(EACH):
            counter.increment()
            if number % 100 == 0:
                counter.value()

    in_threads(count)
    counter.add(5)
    assert counter.value() == counter.value() == THREADS * EACH + 5


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


def test_a_ledger_that_is_closed_out_counts_nothing_twice() -> None:
    ledger = Ledger()
    ledger.captured.add(10)
    ledger.deliver(3, "model")
    ledger.reject("row 400", 1, "model")
    assert ledger.close_out() == 6
    # A worker that could not be stopped goes on; what it does no longer counts.
    ledger.deliver(2, "model")
    ledger.reject("row 400", 1, "model")
    ledger.drop(DropReason.OVERFLOW, 1)
    totals = ledger.totals()
    assert (totals.captured, totals.delivered, totals.rejected) == (10, 3, 1)
    assert totals.dropped == {"shutdown": 6}
    assert totals.pending == 0


def test_a_ledger_that_two_threads_close_out_at_once_keeps_the_reason() -> None:
    ledger = Ledger()
    ledger.captured.add(10)
    counter = ledger.captured

    def meanwhile() -> int:  # another thread closes it out while this one reads the count
        assert ledger.close_out() == 10
        return counter.value()

    ledger.captured = _Watched(counter, meanwhile)  # type: ignore[assignment]  # it only reads
    assert ledger.close_out() == 10
    assert ledger.totals().dropped == {"shutdown": 10}


class _Watched:
    """A counter that calls a function when it is read for the first time."""

    def __init__(self, counter: AtomicCounter, then: Any) -> None:
        self._counter = counter
        self._then = then

    def value(self) -> int:
        then, self._then = self._then, self._counter.value
        return int(then())


def _rows(count: int) -> list[Row]:
    return [Row(f"r{number}", "m", b"x" * 100) for number in range(count)]


def test_the_memory_buffer() -> None:
    buffer = MemoryBuffer(max_rows=3, max_bytes=1_200)
    assert buffer.has_room(rows=1, size=10**9)  # one of any size, when it is empty
    rows = _rows(3)
    for row in rows:
        buffer.put([row])
    assert (buffer.rows, buffer.waiting, buffer.size) == (3, 3, 1_500)
    assert not buffer.has_room(rows=1, size=1)
    (first,) = buffer.lease(1)
    assert first is rows[0]
    assert (buffer.rows, buffer.waiting, buffer.size) == (3, 2, 1_500)
    smaller = Row("r0", "m", b"x")
    buffer.replace(rows[0], smaller)
    assert buffer.size == 1_401
    buffer.release_all()
    assert buffer.lease(1) == [smaller]  # before the others, again
    buffer.settle([smaller, smaller])  # settling again changes nothing
    assert buffer.evict() is rows[1]
    assert buffer.evict() is rows[2]
    assert buffer.evict() is None
    assert buffer.lease(1) == []
    assert (buffer.rows, buffer.size) == (0, 0)


def _run(key: int, size: int = 10, started_at: float = 0.0) -> Run:
    return Run(
        key=key,
        run_id=UUID(int=key),
        model_id="m",
        prompt="p",
        size=size,
        started_at=started_at,
    )


def test_open_runs_are_bounded_by_count_bytes_and_age() -> None:
    given_up: list[Run] = []
    runs = OpenRuns(max_runs=3, max_bytes=100, give_up=given_up.append)
    for key in range(5):
        runs.begin(_run(key))
    assert [run.key for run in given_up] == [0, 1]
    assert len(runs) == 3
    runs.begin(_run(9, size=500))  # one may go beyond, and the next makes room
    runs.begin(_run(10))
    assert runs.size <= 100
    assert {run.outcome for run in given_up} == {RunOutcome.ABANDONED}
    runs.begin(_run(11, started_at=100.0))
    runs.sweep(started_before=50.0)
    assert [runs.end(key) is not None for key in (10, 11, 11)] == [False, True, False]
    assert runs.size == 0
    runs.begin(_run(12))
    runs.abandon_all()
    assert len(runs) == 0
    runs.begin(_run(13))
    runs.clear()
    assert (len(runs), runs.size) == (0, 0)


def test_a_run_that_begins_twice_is_one_run() -> None:
    runs = OpenRuns(max_runs=10, max_bytes=1000, give_up=lambda _run: None)
    first, second = _run(1, size=30), _run(1, size=50)
    runs.begin(first)
    runs.begin(second)
    assert (len(runs), runs.size) == (1, 50)
    assert runs.find(1) is runs.end(1) is second


def test_open_runs_survive_threads() -> None:
    given_up: list[Run] = []
    runs = OpenRuns(max_runs=50, max_bytes=10**9, give_up=given_up.append)
    ended: list[Run] = []

    def work(thread: int) -> None:
        for number in range(500):
            key = thread * 1_000 + number
            runs.begin(_run(key))
            if number % 2 and (run := runs.end(key)) is not None:
                ended.append(run)

    in_threads(work)
    runs.abandon_all()
    keys = [run.key for run in given_up + ended]
    assert len(keys) == len(set(keys)) == THREADS * 500
    assert len(runs) == 0


def _jwt(**claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"header.{payload}.signature"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (_jwt(exp=4600.0), 4300.0),  # five minutes before, as the SDK
        (_jwt(exp=1100.0), 1050.0),  # half of a life that is shorter than that
        (_jwt(exp=500.0), 1000.0),  # expired already: at once, and not without end
        (_jwt(sub="x"), None),
        (_jwt(exp="soon"), None),
        ("not-a-jwt", None),
        ("a.b.c", None),
        ("a.!.c", None),
    ],
)
def test_when_a_token_is_refreshed(token: str, expected: float | None) -> None:
    assert refresh_time(token, now=1000.0) == expected


def test_concurrent_requests_log_in_once() -> None:
    logins = []
    clock = Clock()

    class Login:
        async def log_in(self) -> str:
            logins.append(1)
            await anyio.lowlevel.checkpoint()
            return _jwt(exp=clock.utc_now().timestamp() + 3600)

    async def test() -> None:
        source = TokenSource(login=Login(), api_key=None, clock=clock)
        source.enter()
        tokens: list[Token] = []

        async def ask() -> None:
            tokens.append(await source.token())

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask)
        assert len(logins) == 1
        source.refused(tokens[0])
        await source.token()
        source.refused(tokens[0])  # an old one that another request was still using
        await source.token()
        assert len(logins) == 2
        clock.now += 3500
        await source.token()
        assert len(logins) == 3
        assert "exp" not in repr(tokens[0])

    anyio.run(test)


def test_an_api_key_is_never_replaced() -> None:
    async def test() -> None:
        source = TokenSource(login=None, api_key="key", clock=Clock())
        source.enter()
        token = await source.token()
        source.refused(token)
        assert not source.can_log_in
        assert (await source.token()).value == "key"

    anyio.run(test)


def test_public_names() -> None:
    assert sorted(arthur_relay.__all__) == arthur_relay.__all__
    for name in arthur_relay.__all__:
        assert getattr(arthur_relay, name).__name__ == name
    assert dir(arthur_relay) == arthur_relay.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = arthur_relay.nothing


def test_importing_the_handler_loads_nothing_that_is_slow() -> None:
    slow = "print([m for m in ('httpx', 'pydantic_settings', 'starlette') if m in sys.modules])"
    ours, theirs = (
        subprocess.run(
            [sys.executable, "-c", f"import sys; {line}; {slow}"],
            capture_output=True,
            text=True,
            check=True,
        )
        for line in (
            "from arthur_relay import ArthurCallbackHandler",
            "import langchain_core.callbacks",
        )
    )
    assert ours.stdout == theirs.stdout
