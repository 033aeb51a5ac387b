"""Graphs, and runs that end in other ways than well."""

from __future__ import annotations

import asyncio
import operator
from contextlib import suppress
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from tests.destinations.engine.models import answer, chat

from .scenarios import scenario


class State(TypedDict, total=False):
    """The state of the graph."""

    items: list[int]
    found: Annotated[list[int], operator.add]
    item: int


def _send(state: State) -> list[Send]:
    return [Send("work", {"item": item}) for item in state["items"]]


def _work(state: State) -> State:
    return {"found": [state["item"]]}


def _sending() -> Any:
    graph: Any = StateGraph(State)
    graph.add_node("work", _work)
    graph.add_conditional_edges(START, _send, ["work"])
    return graph.compile(checkpointer=InMemorySaver())


@scenario
def graph_that_sends(config: Any) -> None:
    config |= {"configurable": {"thread_id": "thread-1"}, "max_concurrency": 1}
    _sending().invoke({"items": [1, 2]}, config)


@scenario
def graph_that_goes_elsewhere(config: Any) -> None:
    def first(_: State) -> Command[Any]:
        return Command(goto="second", update={"found": [1]})

    graph: Any = StateGraph(State)
    graph.add_node("first", first, destinations=("second",))
    graph.add_node("second", lambda _: {"found": [2]})
    graph.add_edge(START, "first")
    graph.compile().invoke({"items": []}, config)


@scenario
def left_stream(config: Any) -> None:
    stream: Any = RunnableLambda(lambda x: x).stream("x", config=config)
    next(stream)
    stream.close()


@scenario
def cancelled_chain(config: Any) -> None:
    async def run() -> None:
        begun = asyncio.Event()

        async def wait(_: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        chain: Any = RunnableLambda(lambda x: x, afunc=wait)
        task = asyncio.create_task(chain.ainvoke("x", config=config))
        await begun.wait()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())


@scenario
def failing_with_a_cause(config: Any) -> None:
    def fail(_: Any) -> Any:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    def fail_again(_: Any) -> Any:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from ValueError("made")

    def fail_otherwise(_: Any) -> Any:
        try:
            raise KeyError("inner")
        except KeyError:
            return int("no number")

    def fail_alone(_: Any) -> Any:
        try:
            raise KeyError("inner")
        except KeyError:
            raise ValueError("outer") from None

    for each in (fail, fail_again, fail_otherwise, fail_alone):
        with suppress(ValueError):
            RunnableLambda(each).invoke({"a": 1}, config=config)


@scenario
def retried_and_fallen_back(config: Any) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("no")

    failing: Any = RunnableLambda(fail).with_retry(
        stop_after_attempt=2, wait_exponential_jitter=False
    )
    failing.with_fallbacks([RunnableLambda(lambda _: "well")]).invoke("x", config=config)


@scenario
def branches(config: Any) -> None:
    branch: Any = RunnableBranch(
        (RunnableLambda(lambda x: x > 1), RunnableLambda(lambda _: "large")),
        RunnableLambda(lambda _: "small"),
    )
    branch.invoke(2, config=config)
    parallel: Any = RunnableParallel(a=RunnableLambda(lambda x: x), b=chat(answer("Yes.")))
    parallel.invoke("x", config=config | {"max_concurrency": 1})


@scenario
def batch(config: Any) -> None:
    RunnableLambda(lambda x: x).batch(["a", "b"], config=config | {"max_concurrency": 1})


def _add(a: int, b: int = 2) -> int:
    return a + b


@scenario
def tools_alone(config: Any) -> None:
    add = StructuredTool.from_function(_add, name="add", description="Add two numbers.")
    add.invoke({"a": 1}, config=config)
    add.invoke(
        {"type": "tool_call", "id": "call-9", "name": "add", "args": {"a": 1, "b": 5}},
        config=config,
    )
    asyncio.run(add.ainvoke({"a": 3}, config=config))


@scenario
def metadata_of_all_kinds(config: Any) -> None:
    for metadata in (
        {"conversation_id": "c-1"},
        {"thread_id": "t-1", "nested": {"a": [1, None]}},
        {"session_id": 7, "flag": True, "n": 1.5},
    ):
        RunnableLambda(lambda x: x).invoke("x", config=config | {"metadata": metadata})
