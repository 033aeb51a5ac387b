"""A signal handler that raises, at any step inside of a capture, leaves no count and no byte.

Every instruction of ours that runs in a capture is one where Python may call a signal handler: the
exception is raised at each of them in turn.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

import arthur_relay
from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.accounting import Ledger
from arthur_relay.capture.queue import CaptureQueue, CaptureQueueLimits
from arthur_relay.inference import CAPTURE_BYTES, Run
from arthur_relay.stats import DropReason
from arthur_relay.testing import MemoryDestination
from tests.relay.relays import inference
from tests.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

OURS = str(Path(arthur_relay.__file__).parent)


class Told(BaseException):
    """What a signal handler raises that ends the program, as KeyboardInterrupt and SystemExit."""


class Limit(Exception):  # noqa: N818 - as those of libraries
    """What one raises that ends a task, as Celery's SoftTimeLimitExceeded."""


def interrupted_everywhere(call: Callable[[], object], error: type[BaseException]) -> int:
    """Make a call again and again, with an exception at each of its steps. Returns how many."""
    step = 0
    while _interrupted_at(step, call, error):
        step += 1
    return step


def _interrupted_at(step: int, call: Callable[[], object], error: type[BaseException]) -> bool:
    left = step

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if left == 0:
                raise error
            left -= 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except error:
        pass
    finally:
        sys.settrace(before)
    return left == 0


def captured(rows: int = 1) -> Run:
    run = Run(1, UUID(int=1), "m", "prompt", CAPTURE_BYTES, 0.0)
    run.rows = rows
    return run


INLETS: dict[str, dict[str, Any]] = {
    "with room": {"items": 10_000, "size": 1 << 40},
    "drops the oldest": {"items": 5, "size": 1 << 40},
    "drops the oldest for its bytes": {"items": 10_000, "size": 3 * CAPTURE_BYTES},
    "drops the newest": {"items": 5, "size": 1 << 40, "drop_oldest": False},
    "blocks": {"items": 5, "size": 1 << 40, "drop_oldest": False, "block_seconds": 0.0},
}


@pytest.mark.parametrize("error", [Told, Limit])
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kind", INLETS)
def test_the_inlet(kind: str, rows: int, error: type[BaseException]) -> None:
    ledger = Ledger()
    queue = CaptureQueue(CaptureQueueLimits(wake=(2, 1 << 30), **INLETS[kind]), ledger, Waker())
    steps = interrupted_everywhere(lambda: queue.put(captured(rows)), error)
    assert steps > 30
    waiting = queue.take(100_000)
    rows_waiting = sum(each.rows for each in waiting)
    assert ledger.totals().pending == rows_waiting, "nothing is counted that is not there"
    if kind != "with room":
        assert ledger.totals().dropped["overflow"] % rows == 0
    ledger.drop(DropReason.SHUTDOWN, rows_waiting)
    assert ledger.totals().pending == 0
    queue.rest(idle=True)
    assert queue._size_in == queue._size_out, "an empty queue has no size, whatever they are"
    # The next ones find all of the room that there is.
    queue.put(captured(rows))
    assert queue.size == CAPTURE_BYTES
    assert queue.take(1)
    assert queue.rest(idle=True)
    assert queue.size == 0


@pytest.mark.parametrize("error", [Told, Limit])
@pytest.mark.parametrize("state", ["closed", "finished"])
def test_an_inlet_that_takes_no_more(state: str, error: type[BaseException]) -> None:
    ledger = Ledger()
    queue = CaptureQueue(
        CaptureQueueLimits(items=5, size=1 << 40, wake=(2, 1 << 30)), ledger, Waker()
    )

    def put() -> None:
        queue.put(captured())

    if state == "closed":
        queue.close()
    else:  # between its check for the end and its append
        queue._finished = DropReason.SHUTDOWN
    assert interrupted_everywhere(put, error) > 10
    queue.discard(DropReason.SHUTDOWN)
    assert ledger.totals().pending == 0
    assert queue.size == 0


CALLS: dict[str, Callable[[Relay], object]] = {
    "capture": lambda relay: relay.capture(inference()),
    "with attributes": lambda relay: relay.capture(inference(attributes={"user_id": ["a", 5]})),
    "unreadable": lambda relay: relay.capture(inference(attributes=5)),
    "ground truth": lambda relay: relay.log_ground_truth("id", {"thumbs_up": True}),
}


@pytest.mark.parametrize("error", [Told, Limit])
@pytest.mark.parametrize("what", CALLS)
@pytest.mark.parametrize("queue_size", [10_000, 3])
def test_a_relay(what: str, queue_size: int, error: type[BaseException]) -> None:
    settings = RelaySettings(queue_size=queue_size, flush_interval_seconds=0.0)
    with Relay(MemoryDestination(), model_id="m", settings=settings) as relay:
        assert interrupted_everywhere(lambda: CALLS[what](relay), error) > 50
        assert not relay.flush(30).timed_out
        assert_nothing_is_left(relay)


def assert_nothing_is_left(relay: Relay) -> None:
    stats = relay.stats()
    assert stats.pending == 0
    assert stats.captured == stats.delivered + stats.rejected + sum(stats.dropped.values())
    assert stats.pending_bytes == 0
    assert stats.open_runs == 0


def a_chat(handler: ArthurCallbackHandler) -> None:
    run_id = uuid4()
    handler.on_chat_model_start({}, [[HumanMessage("hello")]], run_id=run_id, metadata={"a": "b"})
    handler.on_llm_new_token("hi", run_id=run_id)
    handler.log_ground_truth(run_id, {"thumbs_up": True})
    generation = ChatGeneration(message=AIMessage("hi there"))
    handler.on_llm_end(LLMResult(generations=[[generation]]), run_id=run_id)


def a_completion(handler: ArthurCallbackHandler) -> None:
    run_id = uuid4()
    handler.on_llm_start({}, ["hello"], run_id=run_id)
    generations = [Generation(text="a"), Generation(text="b"), Generation(text="c")]
    handler.on_llm_end(LLMResult(generations=[generations]), run_id=run_id)


def a_failure(handler: ArthurCallbackHandler) -> None:
    run_id = uuid4()
    handler.on_llm_start({}, ["hello"], run_id=run_id)
    handler.on_llm_error(ValueError("no"), run_id=run_id)


def two_with_one_id(handler: ArthurCallbackHandler) -> None:
    run_id = uuid4()
    for _ in range(2):
        handler.on_llm_start({}, ["hello"], run_id=run_id)
    for _ in range(2):
        handler.on_llm_end(LLMResult(generations=[[Generation(text="a")]]), run_id=run_id)


@pytest.mark.parametrize("error", [Told, Limit])
@pytest.mark.parametrize("run", [a_chat, a_completion, a_failure, two_with_one_id])
def test_a_handler(
    run: Callable[[ArthurCallbackHandler], None], error: type[BaseException]
) -> None:
    settings = RelaySettings(flush_interval_seconds=0.0)
    with Relay(MemoryDestination(), model_id="m", settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        assert interrupted_everywhere(lambda: run(handler), error) > 100
        # What has begun and did not come to its end is a run without an end: given up in time.
        relay._host.open_runs.abandon_all()
        assert not relay.flush(30).timed_out
        assert_nothing_is_left(relay)
        assert not relay._host.open_runs.repeats
