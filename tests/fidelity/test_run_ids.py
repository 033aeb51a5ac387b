"""Ids that the application gives: as texts, and twice at once. Nothing is lost uncounted."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from tests.callback.fakes import ResultModel
from tests.waiting import turn_until

if TYPE_CHECKING:
    from tests.fidelity.judged import Judged


def test_an_id_as_a_text(arthur: Judged) -> None:
    run_id = str(uuid4())
    model = ResultModel(generations=[ChatGeneration(message=AIMessage("answer"))])
    config: Any = {"callbacks": [arthur.handler], "run_id": run_id}
    model.invoke("hi", config)
    (row,) = arthur.rows()
    assert row["partner_inference_id"] == run_id
    assert row["inference_data"]["run_id"] == run_id
    stats = arthur.stats()
    assert stats.capture_errors == stats.unmatched_events == stats.open_runs == 0


class Echo(BaseChatModel):
    """Says the prompt back, once all who ask have come."""

    gate: Any

    def _generate(self, messages: Any, *arguments: Any, **more: Any) -> ChatResult:
        self.gate.wait(30)
        return self._answer(messages)

    async def _agenerate(self, messages: Any, *arguments: Any, **more: Any) -> ChatResult:
        await self.gate.wait()
        return self._answer(messages)

    def _answer(self, messages: Any) -> ChatResult:
        message = AIMessage(f"echo of {messages[-1].content}")
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "echo"


def check(arthur: Judged, run_id: Any, prompts: list[str]) -> None:
    rows = arthur.rows()
    said = {
        row["inference_data"]["input_text"]: row["inference_data"]["output_text"] for row in rows
    }
    assert said == {f"Human: {prompt}": f"echo of {prompt}" for prompt in prompts}
    ids = {row["partner_inference_id"] for row in rows}
    assert len(ids) == len(prompts)  # Judged takes an id once
    assert str(run_id) in ids
    assert all(each.startswith(str(run_id)) for each in ids)
    stats = arthur.stats()
    assert stats.captured == len(prompts)
    assert stats.unmatched_events == stats.open_runs == stats.capture_errors == 0


def test_two_calls_at_once_in_threads_with_one_id(arthur: Judged) -> None:
    run_id, prompts = uuid4(), ["one", "two", "three"]
    model = Echo(gate=threading.Barrier(len(prompts)))

    def ask(prompt: str) -> None:
        model.invoke(prompt, {"callbacks": [arthur.handler], "run_id": run_id})

    with ThreadPoolExecutor(len(prompts)) as pool:
        list(pool.map(ask, prompts))
    check(arthur, run_id, prompts)


@pytest.mark.anyio
async def test_two_calls_at_once_on_a_loop_with_one_id(arthur: Judged) -> None:
    run_id, prompts = uuid4(), ["one", "two", "three"]
    model = Echo(gate=asyncio.Event())
    calls = [
        asyncio.create_task(
            model.ainvoke(prompt, {"callbacks": [arthur.make_handler()], "run_id": run_id})
        )
        for prompt in prompts
    ]
    await turn_until(lambda: arthur.handler.relay.stats().open_runs == len(prompts))
    model.gate.set()
    await asyncio.gather(*calls)
    check(arthur, run_id, prompts)


def test_two_handlers_of_one_call_are_one_capture(arthur: Judged) -> None:
    run_id = uuid4()
    model = ResultModel(generations=[ChatGeneration(message=AIMessage("answer"))])
    config: Any = {"callbacks": [arthur.handler, arthur.make_handler()], "run_id": run_id}
    model.invoke("hi", config)
    assert [row["partner_inference_id"] for row in arthur.rows()] == [str(run_id)]


def test_what_can_not_be_read_is_counted_as_captured_and_dropped(arthur: Judged) -> None:
    odd: Any = None
    handler = arthur.handler
    handler.on_chat_model_start({}, odd, run_id=uuid4())
    handler.on_llm_start({}, odd, run_id=uuid4())
    handler.relay.capture(odd)
    handler.log_ground_truth("id", odd)
    run_id = uuid4()
    handler.on_llm_start({}, ["hi"], run_id=run_id)
    handler.on_llm_end(odd, run_id=run_id)
    stats = handler.relay.stats()
    assert (stats.captured, stats.dropped) == (5, {"unreadable": 5})
    assert (stats.capture_errors, stats.pending, stats.open_runs) == (5, 0, 0)
