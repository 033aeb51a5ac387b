"""Streaming by events (v3) and by LangGraph: one inference a call, with its first token's time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypedDict

import pytest
from anyio import to_thread
from langchain_core.messages import HumanMessage
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from .provider import MODEL, USAGE, Reply, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arthur import Arthur
    from .provider import Provider

pytestmark = [
    # What is tested here is in beta, and says so whenever it is called.
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]

WEATHER = {
    "id": "call-1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
}


class State(TypedDict):
    messages: Annotated[list[Any], add_messages]


def graph_of(model: Any, *, asynchronous: bool = False) -> Any:
    """A graph of one node that calls the model."""

    def call(state: State) -> dict[str, Any]:
        return {"messages": [model.invoke(state["messages"])]}

    async def acall(state: State) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(State)
    graph.add_node("call", acall if asynchronous else call)
    graph.add_edge(START, "call")
    graph.add_edge("call", END)
    return graph.compile()


def drain_v3(run: Any) -> None:
    for _ in run:
        pass


async def adrain_v3(run: Any) -> None:
    async for _ in run:
        pass


def check(arthur: Arthur, *, streamed: bool = True, usage: bool = True) -> dict[str, Any]:
    row = arthur.only()
    assert row["input_text"] == "Human: hi"
    assert row["output_text"] == said("hi")
    assert row["outcome"] == "ok"
    assert row["finish_reason"] == "stop"
    assert row["model_name"] == MODEL
    if streamed:
        assert 0 < row["time_to_first_token"] <= row["duration"]
    if usage:
        assert {name: row[name] for name in USAGE} == USAGE
    assert arthur.stats().unmatched_events == arthur.stats().capture_errors == 0
    return row


def test_events_of_a_chat_model(arthur: Arthur, chat_openai: Any) -> None:
    model = chat_openai(stream_usage=True)
    drain_v3(model.stream_events("hi", {"callbacks": [arthur.handler]}, version="v3"))
    check(arthur)


def test_only_the_output_of_a_stream_is_asked_for(arthur: Arthur, chat_openai: Any) -> None:
    stream = chat_openai(stream_usage=True).stream_events(
        "hi", {"callbacks": [arthur.handler]}, version="v3"
    )
    assert stream.output.text == said("hi")
    drain_v3(stream)  # pumps on after the end, which ends the run a second time in LangChain
    row = arthur.only()
    assert row["output_text"] == said("hi")


@pytest.mark.anyio
async def test_async_events_of_a_chat_model(arthur: Arthur, chat_openai: Any) -> None:
    model = chat_openai(stream_usage=True)
    stream = await model.astream_events("hi", {"callbacks": [arthur.handler]}, version="v3")
    await adrain_v3(stream)
    await stream.aclose()  # its events end before its run does
    check(arthur)


V1_IS_OLD = "ignore:astream_events version='v1' is deprecated"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "version", [pytest.param("v1", marks=pytest.mark.filterwarnings(V1_IS_OLD)), "v2"]
)
async def test_older_events(arthur: Arthur, chat_openai: Any, version: str) -> None:
    model = chat_openai(stream_usage=True)
    async for _ in model.astream_events("hi", {"callbacks": [arthur.handler]}, version=version):
        pass
    check(arthur)


def test_a_tool_call_in_events(arthur: Arthur, chat_openai: Any, provider: Provider) -> None:
    provider.default = Reply(tool_calls=(WEATHER,), finish_reason="tool_calls")
    model = chat_openai(stream_usage=True)
    drain_v3(model.stream_events("hi", {"callbacks": [arthur.handler]}, version="v3"))
    row = arthur.only()
    assert '"city":"Paris"' in row["tool_calls"]
    assert row["finish_reason"] == "tool_calls"
    assert row["time_to_first_token"] <= row["duration"]


def test_an_error_in_events(arthur: Arthur, chat_openai: Any, provider: Provider) -> None:
    provider.default = Reply(status=500)
    stream = chat_openai().stream_events("hi", {"callbacks": [arthur.handler]}, version="v3")
    with pytest.raises(Exception, match="told to fail"):
        drain_v3(stream)
    row = arthur.only()
    assert row["outcome"] == "error"
    assert "told to fail with 500" in row["error"]


@pytest.mark.anyio
async def test_an_event_stream_that_is_closed(
    arthur: Arthur, chat_openai: Any, provider: Provider
) -> None:
    provider.default = Reply(hold_after=2)
    model = chat_openai()
    stream = await model.astream_events("hi", {"callbacks": [arthur.handler]}, version="v3")
    async for event in stream:
        if event["event"] == "content-block-delta":
            break
    await to_thread.run_sync(provider.held.wait)
    await stream.aclose()
    assert arthur.only()["outcome"] == "cancelled"


def graph_invoke(graph: Any, value: Any, config: Any) -> None:
    graph.invoke(value, config)


def graph_stream(graph: Any, value: Any, config: Any) -> None:
    for _ in graph.stream(value, config, stream_mode="messages"):
        pass


def graph_stream_v2(graph: Any, value: Any, config: Any) -> None:
    for _ in graph.stream(value, config, stream_mode="messages", version="v2"):
        pass


def graph_events(graph: Any, value: Any, config: Any) -> None:
    drain_v3(graph.stream_events(value, config, version="v3"))


async def graph_ainvoke(graph: Any, value: Any, config: Any) -> None:
    await graph.ainvoke(value, config)


async def graph_astream(graph: Any, value: Any, config: Any) -> None:
    async for _ in graph.astream(value, config, stream_mode="messages"):
        pass


async def graph_astream_v2(graph: Any, value: Any, config: Any) -> None:
    async for _ in graph.astream(value, config, stream_mode="messages", version="v2"):
        pass


async def graph_aevents(graph: Any, value: Any, config: Any) -> None:
    await adrain_v3(await graph.astream_events(value, config, version="v3"))


async def graph_aevents_v2(graph: Any, value: Any, config: Any) -> None:
    async for _ in graph.astream_events(value, config, version="v2"):
        pass


SYNC = {
    "invoke": graph_invoke,
    "stream": graph_stream,
    "stream-v2": graph_stream_v2,
    "events": graph_events,
}
ASYNC = {
    "ainvoke": graph_ainvoke,
    "astream": graph_astream,
    "astream-v2": graph_astream_v2,
    "aevents": graph_aevents,
    "aevents-v2": graph_aevents_v2,
}
PLACES = ("config", "model", "both", "two handlers")


def prepare(
    arthur: Arthur, make: Callable[..., Any], place: str
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """A model, a state and a config with the handler at a place."""
    second = arthur.make_handler() if place == "two handlers" else arthur.handler
    model = make(stream_usage=True, callbacks=None if place == "config" else [second])
    config = {} if place == "model" else {"callbacks": [arthur.handler]}
    return model, {"messages": [HumanMessage("hi")]}, config


def check_graph(arthur: Arthur, how: str, place: str) -> None:
    row = arthur.only()
    assert row["input_text"] == "Human: hi"
    assert row["output_text"] == said("hi")
    assert {name: row[name] for name in USAGE} == USAGE
    assert row["finish_reason"] == "stop"
    if place in {"config", "both"}:
        assert row["parent_run_id"] != row["run_id"]
    if "invoke" not in how:
        assert 0 < row["time_to_first_token"] <= row["duration"]
    stats = arthur.stats()
    assert stats.captured == 1
    assert stats.unmatched_events == (1 if place == "two handlers" else 0)
    assert stats.capture_errors == stats.open_runs == 0


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", SYNC)
def test_a_graph(arthur: Arthur, chat_openai: Any, how: str, place: str) -> None:
    model, state, config = prepare(arthur, chat_openai, place)
    SYNC[how](graph_of(model), state, config)
    check_graph(arthur, how, place)


@pytest.mark.anyio
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ASYNC)
async def test_an_async_graph(arthur: Arthur, chat_openai: Any, how: str, place: str) -> None:
    model, state, config = prepare(arthur, chat_openai, place)
    await ASYNC[how](graph_of(model, asynchronous=True), state, config)
    check_graph(arthur, how, place)
