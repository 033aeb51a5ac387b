"""Chains that are given, and return, what nobody should: bounded, counted, and nothing raised."""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections import UserDict, deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel

from tests import needs
from tests.destinations.engine.stage import traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOST_BYTES = 16_000_000
"""Of one span, whatever it was given: four million characters of up to four bytes."""


class Slow:
    """A table that counts its bytes by looking at each of its cells, as pandas does."""

    looks = 0

    def __sizeof__(self) -> int:
        Slow.looks += 1
        return 1_000_000


class NoClass:
    """An object that does not let its class be asked for."""

    @property  # type: ignore[misc] # on purpose
    def __class__(self) -> Any:
        raise RuntimeError("don't")


class NoSize(dict[str, Any]):
    """A mapping that does not know its length."""

    def __len__(self) -> int:
        raise RuntimeError("don't")


class NoText:
    """An object without a text."""

    def __repr__(self) -> str:
        raise RuntimeError("don't")

    __str__ = __repr__


class NoBool:
    """An array, of which nobody can say whether it is true."""

    def __bool__(self) -> bool:
        raise ValueError("ambiguous")


class Endless(Mapping[str, int]):
    """A mapping without an end."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())

    def __len__(self) -> int:
        return 1


class EndlessDict(dict[str, int]):
    """A dict whose items have no end."""

    def items(self) -> Any:
        return ((str(number), number) for number in itertools.count())


class EndlessList(list[int]):
    """A list without an end."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class EndlessSet(set[int]):
    """A set without an end."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class Large(BaseModel):
    """A model with many values."""

    rows: list[dict[str, int]]


@dataclasses.dataclass
class Liar:
    """A dataclass without the values that it names."""

    x: int

    def __getattribute__(self, name: str) -> Any:
        if name == "x":
            raise RuntimeError("don't")
        return super().__getattribute__(name)


class Dumps(BaseModel):
    """A model that is made of itself."""

    def model_dump(self, **_: Any) -> Any:
        return {"self": self, "again": self}


def deep(levels: int) -> Any:
    found: Any = "the end"
    for _ in range(levels):
        found = [found]
    return found


def cyclic() -> Any:
    found: list[Any] = []
    found += [found, {"again": found}]
    return found


def wide_and_deep() -> Any:
    found: Any = "x" * 100
    for _ in range(30):
        found = [found, found, found]
    return found


def generator() -> Iterator[int]:
    yield 1
    raise AssertionError("someone has taken what is the application's")


VALUES: dict[str, Callable[[], Any]] = {
    "a table": Slow,
    "no class": NoClass,
    "no size": NoSize,
    "no text": NoText,
    "no truth": NoBool,
    "an endless mapping": Endless,
    "an endless dict": lambda: EndlessDict(a=1),
    "an endless list": lambda: EndlessList([1]),
    "an endless set": lambda: EndlessSet([1]),
    "a large model": lambda: Large(rows=[{"a": number} for number in range(200_000)]),
    "a large set": lambda: set(range(100_000)),
    "a large dict": lambda: UserDict({str(number): number for number in range(200_000)}),
    "a large array": lambda: np.zeros((1_000, 1_000)),
    "an array": lambda: np.array([1, 2]),
    "a liar": lambda: Liar(1),
    "a model of itself": Dumps,
    "deep": lambda: deep(50_000),
    "cyclic": cyclic,
    "wide and deep": wide_and_deep,
    "a generator": generator,
    "bytes": lambda: b"\x00" * 10_000_000,
    "a view": lambda: memoryview(bytearray(1_000_000)),
    "surrogates": lambda: "\ud800" * 100 + "\x00",
    "odd keys": lambda: {1: 2, None: 3, (1, 2): 4, "a/b": 5, "\x00": 6, "\ud800": 7, 2.5: 8},
    "no numbers": lambda: [float("nan"), float("inf"), -float("inf"), 10**400, -(2**63)],
    "a huge number": lambda: 7**2_000_000,
    "a long text": lambda: "ä" * 20_000_000,
    "many texts": lambda: ["x" * 10_000 for _ in range(5_000)],
    "a message of many texts": lambda: AIMessage(
        [{"type": "text", "text": "x" * 100_000} for _ in range(500)]
    ),
    "many messages": lambda: [HumanMessage("x" * 20_000) for _ in range(2_000)],
    "a class": lambda: Large,
    "an exception": lambda: ValueError(NoText()),
    "a deque": lambda: deque([1, 2]),
}


@pytest.fixture(params=VALUES)
def value(request: pytest.FixtureRequest) -> Any:
    return VALUES[request.param]()


def seconds(call: Callable[[], Any]) -> float:
    """The CPU time of a call: others use the machine as well."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


def runs(handler: Any, given: Any) -> list[Callable[[], Any]]:
    """Each way in which a value comes to the handler; each is two events of a run."""
    from uuid import uuid4

    def chain(inputs: Any, outputs: Any) -> None:
        run_id = uuid4()
        handler.on_chain_start({}, inputs, run_id=run_id, name="chain")
        handler.on_chain_end(outputs, run_id=run_id)

    def tool() -> None:
        run_id = uuid4()
        handler.on_tool_start({"name": "tool"}, "x", inputs={"x": given}, run_id=run_id)
        handler.on_tool_end(given, run_id=run_id)

    def retriever() -> None:
        run_id = uuid4()
        found = [Document("text", metadata={"x": given}), given]
        handler.on_retriever_start({}, "query", run_id=run_id)
        handler.on_retriever_end(found, run_id=run_id)

    def model() -> None:
        run_id = uuid4()
        message = HumanMessage("x", additional_kwargs={"x": given, "tool_calls": [given]})
        handler.on_chat_model_start(
            {},
            [[message, given]],
            run_id=run_id,
            metadata={"session_id": given, "user_id": given, "x": given},
            invocation_params={"tools": [given], "x": given},
            tags=["a"],
        )
        handler.on_llm_error(ValueError("no"), run_id=run_id)

    return [
        lambda: chain({"x": given, "y": 1}, {"x": given}),
        lambda: chain(given, given),
        lambda: chain({"messages": given}, {"output": given}),
        tool,
        retriever,
        model,
    ]


def test_any_value_is_a_span_that_is_bounded(value: Any) -> None:
    with traced(queue_bytes=10**9) as stage:
        for number, run in enumerate(runs(stage.handler, value), 1):
            assert seconds(run) < 0.1, "the caller's thread"
            spans = stage.spans()
            assert len(spans) == number
            assert len(stage.memory.rows[-1].body) < MOST_BYTES
        assert stage.relay.stats().capture_errors == 0
    assert Slow.looks == 0


def test_what_stands_beside_is_kept(value: Any) -> None:
    with traced(queue_bytes=10**9) as stage:
        runs(stage.handler, value)[0]()
        assert '"y":1' in stage.span().attributes["input.value"]


def test_the_worker_goes_on(value: Any) -> None:
    with traced(queue_bytes=10**9) as stage:
        for run in runs(stage.handler, value):
            run()
        began = time.process_time()
        assert len(stage.spans()) == 6
        assert time.process_time() - began < 5


@needs.pipes
def test_code_that_says_it_is_from_a_pipe_does_not_hold_the_worker(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    names: dict[str, Any] = {}
    exec(compile("def fail(_):\n    raise ValueError('no')\n", str(pipe), "exec"), names)
    with traced() as stage:
        with pytest.raises(ValueError, match="no"):
            RunnableLambda(names["fail"]).invoke("x", config=stage.config)
        assert str(pipe) in stage.span().events[0]["exception.stacktrace"]
