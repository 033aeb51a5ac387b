"""Large prompts, and bad captures, cost no other inference."""

from __future__ import annotations

import random
import threading
import uuid
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.outputs import Generation, LLMResult

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from arthur_relay.inference import CapturedInference
from arthur_relay.testing import MemoryDestination
from tests.relay.relays import Gated
from tests.worker.harness import harness, virtual

LARGE = "x" * 10_000_000


def inference(name: str, text: str = "text", **more: Any) -> Inference:
    return Inference(input_text=text, output_text="answer", inference_id=name, **more)


def test_a_large_prompt_in_a_burst_costs_no_other() -> None:
    busy, go_on = threading.Event(), threading.Event()

    def wait(text: str) -> str:
        busy.set()
        assert go_on.wait(30)
        return text

    destination = MemoryDestination()
    with Relay(destination, model_id="m", settings=RelaySettings(redact=wait)) as relay:
        relay.capture(inference("first"))
        relay.flush(0)
        assert busy.wait(30)  # the worker takes nothing from the queue now
        names = [f"small {number}" for number in range(50)]
        for name in names:
            relay.capture(inference(name))
        relay.capture(inference("large", LARGE))
        for name in ("late 1", "late 2", "late 3"):
            relay.capture(inference(name))
        assert relay.stats().dropped == {}
        go_on.set()
        assert relay.flush(60) == (55, 0, {}, 0, False)


def test_large_prompts_of_open_runs_cost_no_other() -> None:
    destination = MemoryDestination()
    with Relay(destination, model_id="m") as relay:
        handler = ArthurCallbackHandler(relay=relay)
        ids = [uuid.uuid4() for _ in range(4)]
        for run_id, text in zip(ids, ["small", LARGE, LARGE, "small"], strict=True):
            handler.on_chat_model_start({}, [[HumanMessage(content=text)]], run_id=run_id)
        for run_id in ids:
            handler.on_llm_end(LLMResult(generations=[[Generation(text="a")]]), run_id=run_id)
        assert relay.flush(60) == (4, 0, {}, 0, False)
        assert relay.stats().abandoned == 0


def test_what_large_prompts_take_is_bounded_all_the_same() -> None:
    settings = RelaySettings(queue_bytes=16_000_000)
    with Relay(MemoryDestination(), model_id="m", settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        for _ in range(10):
            handler.on_chat_model_start(
                {}, [[HumanMessage(content="x" * 3_000_000)]], run_id=uuid.uuid4()
            )
            assert relay._host.open_runs.size <= settings.queue_bytes + 3_100_000
        assert relay.stats().abandoned > 0


def test_rows_leave_free_what_large_prompts_take() -> None:
    settings = RelaySettings(queue_bytes=16_000_000, batch_size=1)
    destination = Gated()
    with Relay(destination, model_id="m", settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        for _ in range(3):
            handler.on_chat_model_start(
                {}, [[HumanMessage(content="x" * 3_000_000)]], run_id=uuid.uuid4()
            )
        assert relay.stats().abandoned == 0
        noise = random.Random(1)
        for number in range(2_000):
            relay.capture(inference(f"i{number}", noise.randbytes(5_000).hex()))
            # One row and one capture may go beyond.
            assert relay.stats().pending_bytes <= settings.queue_bytes + 30_000
        # What is over comes out when the worker has taken as much as it will while requests hang.
        while relay._host.pipeline.queue.is_half_full:
            destination.asked.wait(0.01)
        stats = relay.stats()
        assert stats.pending_bytes <= settings.queue_bytes + 30_000
        assert stats.dropped.get("overflow", 0) > 0  # it was full, and nothing else gave way
        assert stats.abandoned == 0
        destination.open()


def test_a_bad_model_id_costs_no_other() -> None:
    destination = MemoryDestination()
    with Relay(destination, model_id="m") as relay:
        relay.capture(inference("before"))
        relay.capture(inference("bad", model_id=["x"]))
        relay.capture(inference("after"))
        assert relay.flush(30) == (2, 0, {"unreadable": 1}, 0, False)
        stats = relay.stats()
    assert (stats.capture_errors, stats.worker_restarts) == (1, 0)


@virtual
async def test_a_capture_that_the_worker_cannot_handle_is_dropped_alone() -> None:
    h = harness()
    async with h.running():
        h.capture("a")
        bad: Any = ["x"]
        h.queue.put(CapturedInference(inference("bad"), "bad", bad, 0.0))
        h.capture("b")
        assert await h.flush(30)
    assert h.destination.stored == ["a", "b"]
    h.check(captured=3, delivered=2, dropped={"unencodable": 1}, pending=0)
