"""Which runs become spans, and where in which trace."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.types import Command, interrupt

from arthur_relay.capture.tracing import RECENT_RUNS, Tracing
from arthur_relay.inference import Run, TraceScope
from tests.destinations.engine.models import Documents, answer, call, chat
from tests.destinations.engine.stage import ERROR, OK, Span, Traced, traced


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def agent() -> Any:
    """A graph of a model and a tool, which it calls once."""
    model = chat(call("weather", city="Ulm"), answer("It is sunny.")).bind_tools([weather])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


QUESTION: Any = {"messages": [("user", "How is the weather in Ulm?")]}


def tree(spans: list[Span]) -> dict[str, str]:
    """The name of the parent by the name of each span; "" for roots."""
    names = {span.span_id: span.name for span in spans}
    return {span.name: names.get(span.parent_id, "") for span in spans}


def test_an_agent_is_one_tree() -> None:
    with traced() as stage:
        agent().invoke(QUESTION, config=stage.config)
        spans = stage.spans()
    assert tree(spans) == {
        "LangGraph": "",
        "model": "LangGraph",
        "Chat": "model",
        "tools_condition": "model",
        "tools": "LangGraph",
        "weather": "tools",
    }
    assert len({span.trace_id for span in spans}) == 1
    assert spans[-1].is_root  # and so it is sent last
    assert [span.kind for span in spans if span.name in ("Chat", "weather", "LangGraph")] == [
        "LLM",
        "TOOL",
        "LLM",
        "CHAIN",
    ]


def test_ids_come_from_the_ids_of_the_runs() -> None:
    run_id = uuid4()
    with traced() as stage:
        agent().invoke(QUESTION, config={**stage.config, "run_id": run_id})
        spans = stage.spans()
    root = spans[-1]
    assert {span.trace_id for span in spans} == {run_id.hex}
    assert root.span_id == run_id.hex[16:]
    assert root.row_id == f"{run_id.hex}-{run_id.hex[16:]}"


def test_async_streams_are_the_same_tree() -> None:
    async def run(stage: Traced) -> None:
        async for _ in agent().astream(QUESTION, config=stage.config):
            pass

    with traced() as sync_stage:
        agent().invoke(QUESTION, config=sync_stage.config)
        expected = tree(sync_stage.spans())
    with traced() as stage:
        asyncio.run(run(stage))
        assert tree(stage.spans()) == expected


def test_llm_runs_alone_are_roots() -> None:
    with traced(TraceScope.LLM) as stage:
        agent().invoke(QUESTION, config=stage.config)
        spans = stage.spans()
    assert [span.name for span in spans] == ["Chat", "Chat"]
    assert all(span.is_root for span in spans)
    assert len({span.trace_id for span in spans}) == 2


def test_without_tracing_no_event_of_a_chain_is_heard() -> None:
    with traced(TraceScope.NONE) as stage:
        assert stage.handler.ignore_chain
        assert stage.handler.ignore_agent
        assert stage.handler.ignore_retriever
        assert stage.handler._tracing is None


def test_a_chain_with_a_retriever() -> None:
    prompt = ChatPromptTemplate.from_messages([("system", "Use {context}"), ("user", "{question}")])
    chain = (
        {"context": Documents(), "question": RunnableLambda(lambda x: x)}
        | prompt
        | chat(answer("sunny"))
        | StrOutputParser()
    )
    with traced() as stage:
        chain.invoke("How is Ulm?", config=stage.config)
        spans = stage.by_name()
    assert spans["Documents"].kind == "RETRIEVER"
    assert spans["ChatPromptTemplate"].kind == "PROMPT"
    assert spans["RunnableSequence"].is_root


def test_a_handler_of_the_model_alone_makes_roots() -> None:
    with traced() as stage:
        model = chat(answer("sunny"))
        model.callbacks = [stage.handler]
        (RunnableLambda(lambda x: x) | model).invoke("How is Ulm?")
        assert stage.span().is_root


def test_a_run_in_the_background_finds_its_trace_after_its_parent_ended() -> None:
    started, ended = threading.Event(), threading.Event()
    threads = []

    def begin(_: Any, config: RunnableConfig) -> str:
        def later() -> None:
            started.set()
            ended.wait(10)
            RunnableLambda(lambda x: x).with_config(run_name="late").invoke("x", config=config)

        threads.append(threading.Thread(target=later))
        threads[0].start()
        return "begun"

    with traced() as stage:
        RunnableLambda(begin).invoke("x", config=stage.config)
        ended.set()
        threads[0].join()
        spans = stage.by_name()
    assert spans["late"].trace_id == spans["begin"].trace_id
    assert spans["late"].parent_id == spans["begin"].span_id


def test_the_memory_of_ended_runs_is_bounded() -> None:
    tracing = Tracing(TraceScope.FULL)

    def ended() -> Run:
        run = Run(0, uuid4(), "task", None, 0, 0.0)
        run.trace = tracing.place(run.run_id)
        tracing.ended(run)
        return run

    runs = [ended() for _ in range(3 * RECENT_RUNS)]
    assert not tracing.place(uuid4(), parent_id=runs[-1].run_id).is_root
    assert not tracing.place(uuid4(), parent_id=runs[-RECENT_RUNS].run_id).is_root
    assert tracing.place(uuid4(), parent_id=runs[0].run_id).is_root
    assert len(tracing._recent) + len(tracing._older) <= 2 * RECENT_RUNS


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_finds_the_trace_of_its_parent() -> None:
    with traced() as stage:
        manager = CallbackManager.configure([stage.handler])
        parent = manager.on_chain_start({"name": "parent"}, {})
        stage.host.tracing.remember(stage.host.open_runs.runs())  # what the child does
        stage.host.open_runs.clear()
        child = parent.get_child().on_chain_start({"name": "child"}, {})
        child.on_chain_end({})
        assert stage.span().trace_id == parent.run_id.hex


def test_an_interrupt_is_no_error() -> None:
    def ask(state: MessagesState) -> dict[str, Any]:
        return {"messages": [("ai", interrupt({"question": "Really?"}))]}

    inner = StateGraph(MessagesState)
    inner.add_node("ask", ask)
    inner.add_edge(START, "ask")
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    with traced() as stage:
        config: Any = {**stage.config, "configurable": {"thread_id": "thread-1"}}
        graph.invoke(QUESTION, config)
        graph.invoke(Command(resume="yes"), config)
        spans = stage.spans()
    assert len({span.trace_id for span in spans}) == 2
    assert {span.status for span in spans} == {OK}
    assert not any(span.events for span in spans)
    assert {span.attributes["session.id"] for span in spans} == {"thread-1"}
    assert stage.relay.stats().unmatched_events == 0


def test_failures_are_told_on_every_span_that_they_pass() -> None:
    def fail(_: Any) -> None:
        raise ValueError("no weather")

    with traced() as stage:
        with pytest.raises(ValueError, match="no weather"):
            (RunnableLambda(lambda x: x) | RunnableLambda(fail)).invoke({}, config=stage.config)
        spans = stage.by_name()
    for name in ("fail", "RunnableSequence"):
        assert spans[name].status == ERROR
        assert spans[name].message == "ValueError: no weather"
        (event,) = spans[name].events
        assert event["exception.type"] == "ValueError"
        assert 'raise ValueError("no weather")' in event["exception.stacktrace"]


def test_a_cancelled_chain_and_its_model() -> None:
    async def run(stage: Traced) -> None:
        begun = asyncio.Event()

        async def wait(_: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(RunnableLambda(wait).ainvoke("x", config=stage.config))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with traced() as stage:
        asyncio.run(run(stage))
        stage.host.open_runs.abandon_all()
        span = stage.span()
    assert span.status == ERROR
    assert span.message in ("cancelled", "abandoned: no end event came")
    assert span.end >= span.start > 0


def test_runs_without_an_end_are_spans_with_what_is_known() -> None:
    with traced() as stage:
        manager = CallbackManager.configure([stage.handler])
        parent = manager.on_chain_start({"name": "parent"}, {"question": "Why?"})
        stage.host.open_runs.abandon_all()
        span = stage.span()
        late = parent.get_child().on_tool_start({"name": "late"}, "x")
        late.on_tool_end("y")
        assert stage.by_name()["late"].trace_id == span.trace_id
    assert span.message == "abandoned: no end event came"
    assert span.attributes["input.value"] == "Why?"
    assert "output.value" not in span.attributes


def test_a_stream_that_is_left() -> None:
    with traced() as stage:
        stream: Any = chat("one two three").stream("x", config=stage.config)
        next(stream)
        stream.close()
        span = stage.span()
    assert span.message == "disconnected: the consumer of the stream went away"
    assert "one" in span.attributes["output.value"]


def test_an_agent_of_old_is_known_by_its_actions() -> None:
    with traced() as stage:
        manager = CallbackManager.configure([stage.handler])
        run: Any = manager.on_chain_start({"name": "executor"}, {})
        run.on_agent_action("action")
        run.on_agent_finish("finish")
        run.on_chain_end({})
        assert stage.span().kind == "AGENT"


def test_ids_may_be_texts() -> None:
    with traced() as stage:
        run_id = str(uuid4())
        config: Any = {**stage.config, "run_id": run_id}
        RunnableLambda(lambda x: x).invoke("x", config=config)
        assert stage.span().trace_id == UUID(run_id).hex


def test_inputs_that_come_with_the_end_are_taken() -> None:
    with traced() as stage:
        list(RunnableLambda(lambda x: x).transform(iter(["a", "b"]), config=stage.config))
        span = stage.span()
    assert span.attributes["input.value"] == "ab"
    assert span.attributes["output.value"] == "ab"


def test_messages_of_a_state_are_as_they_were() -> None:
    def change(state: dict[str, Any]) -> dict[str, Any]:
        message = state["messages"][0]
        message.content = "changed"
        message.additional_kwargs["more"] = "changed"
        state["messages"].append(AIMessage("changed"))
        return {}

    with traced() as stage:
        state = {"messages": [HumanMessage("first")]}
        RunnableLambda(change).invoke(state, config=stage.config)
        assert "changed" not in stage.span().attributes["input.value"]


def test_a_trace_is_sampled_whole() -> None:
    with traced(sample_rate=0.5) as stage:
        for _ in range(20):
            agent().invoke(QUESTION, config=stage.config)
        spans = stage.spans()
    by_trace = {span.trace_id: 0 for span in spans}
    for span in spans:
        by_trace[span.trace_id] += 1
    assert 0 < len(by_trace) < 20
    assert len(set(by_trace.values())) == 1


def test_ten_thousand_spans_in_one_trace() -> None:
    with traced() as stage:
        manager = CallbackManager.configure([stage.handler])
        root = manager.on_chain_start({"name": "root"}, {})
        for _ in range(10_000):
            root.get_child().on_tool_start({"name": "tool"}, "x").on_tool_end("y")
        root.on_chain_end({})
        result = stage.relay.flush(60)
        assert result.pending == 0
        assert stage.relay.stats().captured == 10_001


def test_the_disabled_relay_hears_nothing() -> None:
    with traced(disabled=True) as stage:
        assert stage.handler.ignore_chain
        agent().invoke(QUESTION, config=stage.config)
        assert stage.relay.stats().captured == 0
