"""Events that can't be read, or come when nothing is open: counted, and never raised."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from tests.destinations.engine.stage import traced


class Raising:
    """Something that raises whenever it is looked at."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("don't")

    def __len__(self) -> int:
        raise RuntimeError("don't")

    def __bool__(self) -> bool:
        raise RuntimeError("don't")


ODD: Any = Raising()

STARTS = ("on_chain_start", "on_tool_start", "on_retriever_start")
ENDS = ("on_chain_end", "on_tool_end", "on_retriever_end")
ERRORS = ("on_chain_error", "on_tool_error", "on_retriever_error")


@pytest.mark.parametrize("name", STARTS)
def test_a_start_that_can_not_be_read_is_counted(name: str) -> None:
    with traced() as stage:
        getattr(stage.handler, name)({}, "x", run_id=ODD)
        stats = stage.relay.stats()
    assert (stats.captured, stats.capture_errors) == (1, 1)


@pytest.mark.parametrize("name", [*ENDS, *ERRORS])
def test_an_end_without_a_start_is_counted(name: str) -> None:
    with traced() as stage:
        getattr(stage.handler, name)(ValueError("x"), run_id=uuid4())
        assert stage.relay.stats().unmatched_events == 1
        getattr(stage.handler, name)(ValueError("x"), run_id=ODD)
        assert stage.relay.stats().capture_errors == 1


@pytest.mark.parametrize("name", ["on_agent_action", "on_agent_finish"])
def test_news_of_an_agent_that_can_not_be_read(name: str) -> None:
    with traced() as stage:
        getattr(stage.handler, name)("x", run_id=uuid4())
        assert stage.relay.stats().capture_errors == 0
        getattr(stage.handler, name)("x", run_id=ODD)
        assert stage.relay.stats().capture_errors == 1


@pytest.mark.parametrize(("start", "end", "omitted"), [*zip(STARTS, ENDS, (2, 3, 2), strict=True)])
def test_odd_values_cost_themselves_only(start: str, end: str, omitted: int) -> None:
    class Odd(dict[str, Any]):
        def __len__(self) -> int:
            raise RuntimeError("don't")

        def items(self) -> Any:
            raise RuntimeError("don't")

    with traced() as stage:
        run_id = uuid4()
        getattr(stage.handler, start)({}, Odd(), run_id=run_id)
        getattr(stage.handler, end)(Odd(), run_id=run_id)
        span = stage.span()
        assert stage.relay.stats().attributes_omitted == omitted
    assert span.is_root


def test_a_retriever_and_a_tool_that_fail() -> None:
    with traced() as stage:
        for start, error in (STARTS[1], ERRORS[1]), (STARTS[2], ERRORS[2]):
            run_id = uuid4()
            getattr(stage.handler, start)({"name": "step"}, "x", run_id=run_id)
            getattr(stage.handler, error)(ValueError("no"), run_id=run_id)
        assert [span.message for span in stage.spans()] == ["ValueError: no"] * 2


def test_a_model_whose_values_raise() -> None:
    with traced() as stage:
        run_id = uuid4()
        stage.handler.on_chat_model_start({}, [[ODD]], run_id=run_id, metadata={"a": 1})
        stage.handler.on_llm_end(ODD, run_id=run_id)
        assert stage.relay.stats().capture_errors == 1
        completion = uuid4()
        stage.handler.on_llm_start({}, [ODD], run_id=completion)
        stage.handler.on_llm_error(ValueError("x"), run_id=completion)
        assert stage.span().message == "ValueError: x"


def test_names_come_from_descriptions() -> None:
    with traced() as stage:
        for serialized in ({"id": ["langchain", "Chain"]}, {"name": "own", "id": ["x"]}, None):
            run_id = uuid4()
            stage.handler.on_chain_start(serialized, {}, run_id=run_id)
            stage.handler.on_chain_end({}, run_id=run_id)
        assert [span.name for span in stage.spans()] == ["Chain", "own", "Unnamed"]


def test_news_of_interrupts_are_taken() -> None:
    with traced() as stage:
        stage.handler.on_interrupt("event")
        stage.handler.on_resume("event")
        assert stage.relay.stats().capture_errors == 0
