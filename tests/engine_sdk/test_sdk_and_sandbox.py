"""The unchanged SDK takes the sandbox for an Arthur Engine."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from arthur_observability_sdk import Arthur
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from openinference.instrumentation.langchain import LangChainInstrumentor
from opentelemetry import trace
from opentelemetry.util._once import Once

from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TASK = "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"
USAGE: Any = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch, "OPENINFERENCE_", "OTEL_")


@pytest.fixture
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox(task_id=TASK) as running:
        yield running


@pytest.fixture
def connect(sandbox: ArthurSandbox) -> Iterator[Callable[..., Any]]:
    """Return a function that makes the SDK's client for LangChain; it is shut down at the end."""
    made: list[Any] = []

    def make(**options: Any) -> Any:
        options = {"api_key": sandbox.api_key, "base_url": sandbox.url, **options}
        arthur = Arthur(**options)
        arthur.instrument_langchain()
        made.append(arthur)
        return arthur

    yield make
    LangChainInstrumentor().uninstrument()
    for arthur in made:
        arthur.shutdown()
    # The next test's provider is the process's one again.
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()


@tool
def weather(city: str) -> str:
    """Tell the weather."""
    return f"It is sunny in {city}."


def chat(*answers: AIMessage) -> Any:
    return GenericFakeChatModel(messages=iter(answers))


def agent() -> Any:
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "call_1"}
    model = chat(
        AIMessage("", tool_calls=[call], usage_metadata=USAGE),
        AIMessage("It is sunny in Paris.", usage_metadata=USAGE),
    )

    def ask(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    def use_tool(state: MessagesState) -> Any:
        last = state["messages"][-1]
        assert isinstance(last, AIMessage)
        (found,) = last.tool_calls
        return {"messages": [ToolMessage(weather.invoke(found["args"]), tool_call_id="call_1")]}

    def follow(state: MessagesState) -> str:
        return "tools" if getattr(state["messages"][-1], "tool_calls", None) else END

    graph = StateGraph(MessagesState)
    graph.add_node("agent", ask)
    graph.add_node("tools", use_tool)
    graph.add_edge(START, "agent")
    graph.add_conditional_edges("agent", follow)
    graph.add_edge("tools", "agent")
    return graph.compile()


def flush() -> None:
    """Have the SDK send what it holds; whether that arrives it does not say."""
    provider: Any = trace.get_tracer_provider()
    provider.force_flush()


def shape(span: Any) -> Any:
    return (span["span_kind"], span["span_name"], [shape(child) for child in span["children"]])


def test_a_call_is_a_span(sandbox: ArthurSandbox, connect: Callable[..., Any]) -> None:
    connect(task_id=sandbox.task_id)
    chat(AIMessage("Hello", usage_metadata=USAGE)).invoke("Hi")
    flush()
    (span,) = sandbox.spans
    assert (span["task_id"], span["span_kind"], span["status_code"]) == (TASK, "LLM", "Ok")
    assert span["prompt_token_count"] == 11
    assert span["completion_token_count"] == 7
    found = span["raw_data"]["attributes"]
    assert found["llm.output_messages.0.message.content"] == "Hello"
    (request,) = sandbox.requests
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.status == 200


def test_an_agent_is_a_tree(sandbox: ArthurSandbox, connect: Callable[..., Any]) -> None:
    arthur = connect(task_id=sandbox.task_id)
    with arthur.attributes(session_id="s1", user_id="u1"):
        agent().invoke({"messages": [HumanMessage("Weather in Paris?")]})
    flush()
    (found,) = sandbox.traces
    assert (found["session_id"], found["user_id"]) == ("s1", "u1")
    assert (found["prompt_token_count"], found["total_token_count"]) == (22, 36)
    assert "Weather in Paris?" in found["input_content"]
    assert "It is sunny in Paris." in found["output_content"]
    (root,) = found["root_spans"]
    kinds = str(shape(root))
    assert kinds.count("'LLM'") == 2
    assert kinds.count("'TOOL'") == 1
    assert [child["span_name"] for child in root["children"]] == ["agent", "tools", "agent"]


def test_a_task_by_its_services_name(sandbox: ArthurSandbox, connect: Callable[..., Any]) -> None:
    connect(service_name="my-bot")
    RunnableLambda(str.upper).invoke("text")
    RunnableLambda(str.upper).invoke("text")
    flush()
    (task,) = {span["task_id"] for span in sandbox.spans}
    assert task != TASK
    assert len(sandbox.traces) == 2


def test_an_error_is_a_span_with_a_status(
    sandbox: ArthurSandbox, connect: Callable[..., Any]
) -> None:
    def fail(_: Any) -> None:
        raise ValueError("no such city")

    connect(task_id=sandbox.task_id)
    with pytest.raises(ValueError, match="no such city"):
        RunnableLambda(fail).invoke(1)
    flush()
    (span,) = sandbox.spans
    assert span["status_code"] == "Error"
    assert span["raw_data"]["events"][0]["name"] == "exception"


def test_many_threads(sandbox: ArthurSandbox, connect: Callable[..., Any]) -> None:
    connect(task_id=sandbox.task_id)

    def work() -> None:
        for _ in range(10):
            RunnableLambda(lambda x: x).invoke("text")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    flush()
    assert len(sandbox.spans) == 40


@pytest.mark.parametrize(
    ("key", "status"), [("wrong", 401), ("sandbox-read-key", 403), ("sandbox-write-key", 200)]
)
def test_keys(key: str, status: int, sandbox: ArthurSandbox, connect: Callable[..., Any]) -> None:
    connect(task_id=sandbox.task_id, api_key=key)
    RunnableLambda(lambda x: x).invoke("text")
    flush()
    assert {request.status for request in sandbox.requests} == {status}
    assert len(sandbox.spans) == (status == 200)


@pytest.mark.parametrize(("text", "status"), [("a NUL \0 in a text", 500), ("a text", 200)])
def test_one_bad_text_costs_the_official_exporter_its_batch(
    text: str, status: int, sandbox: ArthurSandbox, connect: Callable[..., Any]
) -> None:
    connect(task_id=sandbox.task_id)
    for each in ("one", text, "three"):
        RunnableLambda(lambda x: x).invoke(each)
    flush()
    assert sandbox.requests[0].status == status
    assert len(sandbox.spans) == (3 if status == 200 else 0)


def test_a_prompt_that_the_sandbox_does_not_have(
    sandbox: ArthurSandbox, connect: Callable[..., Any]
) -> None:
    arthur = connect(task_id=sandbox.task_id)
    with pytest.raises(Exception, match="404"):
        arthur.get_prompt("greeting")
    flush()
    (span,) = sandbox.spans
    assert (span["span_kind"], span["status_code"]) == ("PROMPT", "Error")
