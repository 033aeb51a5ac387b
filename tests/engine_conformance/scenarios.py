"""What an application does, by name; each is run once, and seen by both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models.fake import FakeListLLM
from langchain_core.messages import ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from tests.destinations.engine.models import Chat, Documents, answer, call, chat

Scenario = Callable[[Any], None]

SCENARIOS: dict[str, Scenario] = {}


def scenario(run: Scenario) -> Scenario:
    SCENARIOS[run.__name__] = run
    return run


@tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"sunny in {city}"


@tool
def broken(city: str) -> str:
    """Tell no weather."""
    raise ValueError(f"no weather in {city}")


@scenario
def chat_model(config: Any) -> None:
    messages = [SystemMessage("Be kind."), HumanMessage("Hello", name="bob")]
    chat(answer("Hello, Bob.")).invoke(messages, config=config)


@scenario
def streamed_chat_model(config: Any) -> None:
    list(chat("one two three").stream("Count", config=config))


@scenario
def chat_model_with_everything(config: Any) -> None:
    picture = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    calls = [{"id": "1", "type": "function", "function": {"name": "g", "arguments": '{"b": 2}'}}]
    extras = {"function_call": {"name": "f", "arguments": '{"a": 1}'}, "tool_calls": calls}
    messages = [
        HumanMessage([{"type": "text", "text": "What is this?"}, picture, "And then?"]),
        call("weather", city="Ulm", days=[1, 2]),
        ToolMessage("rain", tool_call_id="1", artifact={"raw": 1}),
        ChatMessage(content="Hm.", role="critic"),
    ]
    model = chat(answer("A cat.", additional_kwargs=extras)).bind_tools([weather])
    model.invoke(messages, config=config)


@scenario
def completion_model(config: Any) -> None:
    FakeListLLM(responses=["Paris"]).invoke("The capital of France is", config=config)


@scenario
def streamed_completion_model(config: Any) -> None:
    list(FakeListLLM(responses=["Paris"]).stream("The capital of France is", config=config))


def _agent(used: Any) -> Any:
    model = chat(call(used.name, city="Ulm"), answer("It is sunny."))
    return create_agent(model, [used])


QUESTION: Any = {"messages": [("user", "How is the weather in Ulm?")]}


@scenario
def agent(config: Any) -> None:
    _agent(weather).invoke(QUESTION, config=config | {"configurable": {"thread_id": "thread-1"}})


@scenario
def async_agent(config: Any) -> None:
    asyncio.run(_agent(weather).ainvoke(QUESTION, config=config))


@scenario
def streamed_agent(config: Any) -> None:
    list(_agent(weather).stream(QUESTION, config=config))


@scenario
def failing_tool(config: Any) -> None:
    with suppress(ValueError):
        _agent(broken).invoke(QUESTION, config=config)


def _rag() -> Any:
    prompt = ChatPromptTemplate.from_messages([("system", "Use {context}"), ("user", "{question}")])
    found = {"context": Documents() | RunnableLambda(_joined), "question": RunnableLambda(_same)}
    return found | prompt | chat(answer("Sunny.")) | StrOutputParser()


def _joined(documents: Any) -> str:
    return "\n".join(document.page_content for document in documents)


def _same(value: Any) -> Any:
    return value


@scenario
def rag(config: Any) -> None:
    _rag().invoke("How is Ulm?", config=config)


@scenario
def streamed_rag(config: Any) -> None:
    list(_rag().stream("How is Ulm?", config=config))


def _fail(_: Any) -> Any:
    raise RuntimeError("no more")


@scenario
def failing_chain(config: Any) -> None:
    with suppress(RuntimeError):
        (RunnableLambda(_same) | RunnableLambda(_fail)).invoke({"a": 1}, config=config)


class Down(Chat):
    """A model whose provider is down."""

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the provider is down")


@scenario
def failing_model(config: Any) -> None:
    with suppress(RuntimeError):
        Down(messages=iter(())).invoke("Hello", config=config)


def _ask(state: MessagesState) -> dict[str, Any]:
    return {"messages": [("ai", interrupt({"question": "Really?"}))]}


@scenario
def interrupted_graph(config: Any) -> None:
    inner: Any = StateGraph(MessagesState)
    inner.add_node("ask", _ask)
    inner.add_edge(START, "ask")
    outer: Any = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile())
    outer.add_edge(START, "inner")
    graph = outer.compile(checkpointer=InMemorySaver())
    config |= {"configurable": {"thread_id": "thread-1"}}
    graph.invoke(QUESTION, config)
    graph.invoke(Command(resume="yes"), config)


@scenario
def odd_values(config: Any) -> None:
    for value in (None, "", "plain", '{"a": 1}', [1, 2], {"a": None}, {"input": {"b": [True]}}, 5):
        RunnableLambda(_same).invoke(value, config=config)


@scenario
def own_metadata_and_tags(config: Any) -> None:
    more = {"metadata": {"session_id": "s-1", "user_id": "u-1", "n": 1}, "tags": ["mine"]}
    chat(answer("Hello")).invoke("Hello", config=config | more)
