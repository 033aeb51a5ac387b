"""Messages of all types, in all forms, and what providers say beside them."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompts import (
    ChatPromptTemplate,
    FewShotChatMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)
from langchain_core.retrievers import BaseRetriever

from tests.destinations.engine.models import Chat, answer, call, chat

from .scenarios import scenario


@scenario
def messages_of_all_types(config: Any) -> None:
    messages = [
        SystemMessage([{"type": "text", "text": "Be kind."}]),
        HumanMessage("Hello", name="bob", id="m-1"),
        AIMessage(
            "",
            tool_calls=[
                {"name": "a", "args": {}, "id": "1"},
                {"name": "b", "args": {"x": {"y": [1, None, True]}}, "id": None},
            ],
            invalid_tool_calls=[{"name": "c", "args": "{", "id": "3", "error": "no JSON"}],
        ),
        ToolMessage([{"type": "text", "text": "rain"}], tool_call_id="1", status="error", name="a"),
        FunctionMessage(content="sun", name="f"),
        AIMessageChunk(content="part"),
        HumanMessage(""),
    ]
    chat(answer("Hm.")).invoke(messages, config=config)


@scenario
def contents_of_all_kinds(config: Any) -> None:
    blocks: list[Any] = [
        "a plain text",
        {"type": "text", "text": ""},
        {"type": "text", "text": "kept", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 40_000}"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "f-1"}},
        {"type": "image", "source_type": "url", "url": "https://example.org/c.png"},
        {"type": "thinking", "thinking": "Hm.", "signature": "x"},
        {"text": "without a type"},
    ]
    reply = answer("", id="r-1")
    reply.content = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "text", "text": "Yes.", "annotations": []},
        {"type": "tool_use", "id": "t", "name": "a", "input": {}},
    ]
    chat(reply).invoke([HumanMessage(blocks)], config=config)


@scenario
def parallel_tool_calls(config: Any) -> None:
    reply = call("weather", city="Ulm")
    reply.tool_calls.append({"name": "weather", "args": {"city": "Bonn"}, "id": "call-2"})
    chat(reply).invoke("How is it?", config=config)


def _counted(usage_metadata: dict[str, Any] | None = None, /, **metadata: Any) -> AIMessage:
    found = AIMessage("Yes.", response_metadata=metadata)
    found.usage_metadata = usage_metadata  # type: ignore[assignment] # of its keys
    return found


USAGES: dict[str, Any] = {
    "nothing": _counted(),
    "details of langchain": _counted(
        {
            "input_tokens": 100,
            "output_tokens": 50,
            "total_tokens": 150,
            "input_token_details": {"audio": 10, "cache_creation": 20, "cache_read": 30},
            "output_token_details": {"audio": 10, "reasoning": 20},
        }
    ),
    "openai": _counted(
        None,
        model_name="gpt-5",
        token_usage={
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 5},
            "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 2},
        },
    ),
    "anthropic": _counted(
        {"input_tokens": 60, "output_tokens": 50, "total_tokens": 110},
        model="claude",
        usage={
            "input_tokens": 10,
            "output_tokens": 50,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 30,
        },
        stop_reason="end_turn",
    ),
}


@scenario
def token_counts(config: Any) -> None:
    for reply in USAGES.values():
        chat(reply.model_copy(deep=True)).invoke("Yes?", config=config)


class Scored(BaseRetriever):
    """A retriever that says how good each document is."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [
            Document("best", id="d-1", metadata={"score": 0.9, "nested": {"a": [1]}}),
            Document("", metadata={}),
            Document("last", metadata={"relevance_score": 1}),
        ]


@scenario
def documents_with_scores(config: Any) -> None:
    Scored().invoke("best?", config=config)


@scenario
def prompt_templates(config: Any) -> None:
    PromptTemplate.from_template("Tell of {topic} in {n} words").invoke(
        {"topic": "Ulm", "n": 3}, config=config
    )
    examples = FewShotChatMessagePromptTemplate(
        examples=[{"a": "1", "b": "2"}],
        example_prompt=ChatPromptTemplate.from_messages([("human", "{a}"), ("ai", "{b}")]),
    )
    several = ChatPromptTemplate.from_messages(
        [("system", "Use {context}"), examples, MessagesPlaceholder("history"), ("user", "{q}")]
    )
    given = {"context": "x", "history": [HumanMessage("before")], "q": "Why?"}
    several.partial(context="y").invoke({**given, "more": 1}, config=config)
    ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("user", "{q}")]).invoke(
        given, config=config
    )


@scenario
def settings_of_a_call(config: Any) -> None:
    model = chat(answer("Yes.")).bind(
        temperature=0.5, stop=["x"], response_format={"type": "json_object"}, tool_choice="auto"
    )
    model.invoke("Yes?", config=config)


@scenario
def removed_messages(config: Any) -> None:
    model = Chat(messages=iter([answer("Yes.")]))
    model.invoke([HumanMessage("Yes?"), RemoveMessage(id="m-1")], config=config)
