"""Input that is hard to encode, too large, or changed by the application while it waits."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
    get_buffer_string,
)
from langchain_core.outputs import ChatGeneration

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.testing import MemoryDestination

from .arthur import TEXT_ONLY, extra
from .fakes import ResultModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay.destinations.scope.schema import ModelSchema

    from .arthur import Arthur

MB = 1_000_000
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
TOOL_CALL = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}


def deep() -> Any:
    """An argument that is nested deeper than JSON's writer goes."""
    value: Any = "end"
    for _ in range(300):
        value = {"in": value}
    return value


def tool_call() -> Any:
    return {**TOOL_CALL, "args": {"a": 1}}


CONVERSATIONS: dict[str, list[BaseMessage]] = {
    "all kinds": [
        SystemMessage("be kind"),
        HumanMessage("hi"),
        AIMessage("calling", tool_calls=[tool_call()]),
        ToolMessage("3", tool_call_id="c1"),
        FunctionMessage(name="f", content="4"),
        AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
        ChatMessage(role="critic", content="boo"),
    ],
    "an image": [
        HumanMessage(
            [
                {"type": "text", "text": "what is this?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
                {"type": "file", "data": b"\xff\x00"},
                "and this?",
            ]
        )
    ],
    "several lines": [HumanMessage("a\nb"), AIMessage("c\r\nd")],
    "nothing": [HumanMessage("")],
    "no blocks": [HumanMessage([])],
}


def ask(arthur: Arthur, messages: Any, answer: str = "ok") -> dict[str, Any]:
    model = FakeListChatModel(responses=[answer])
    model.invoke(messages, {"callbacks": [arthur.handler]})
    return arthur.only()


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_input_is_what_langchain_makes_of_it(arthur: Arthur, name: str) -> None:
    messages = CONVERSATIONS[name]
    row = ask(arthur, messages)
    assert row["input_text"] == get_buffer_string(messages)
    assert PIXEL not in row["input_text"]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("lone \ud800 surrogate", "lone \ufffd surrogate"),
        ("a pair \ud83d\ude42", "a pair 🙂"),
        ("a NUL\x00 byte", "a NUL byte"),
        ("both \x00\udfff", "both \ufffd"),
        ("spelled \\u0000 out", "spelled \\u0000 out"),
        ("\u2028 \x7f \x1b[31m \ufeff", "\u2028 \x7f \x1b[31m \ufeff"),
        ("🙂" * 1000, "🙂" * 1000),
    ],
)
@pytest.mark.parametrize("chat", [True, False])
def test_texts(arthur: Arthur, text: str, sent: str, chat: bool) -> None:
    kind: Any = FakeListChatModel if chat else FakeListLLM
    kind(responses=[text]).invoke(text, {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert row["input_text"] == (f"Human: {sent}" if chat else sent)
    assert row["output_text"] == sent


def test_ten_megabytes(arthur: Arthur) -> None:
    row = ask(arthur, "x" * 10 * MB, "y" * 2 * MB)
    assert len(row["input_text"]) == len("Human: ") + 10 * MB
    assert len(row["output_text"]) == 2 * MB
    assert arthur.stats().pending_bytes == 0


@pytest.mark.parametrize("content", ["", []])
def test_an_empty_answer(arthur: Arthur, content: Any) -> None:
    model = ResultModel(generations=[ChatGeneration(message=AIMessage(content))])
    model.invoke("hi", {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert (row["output_text"], row["outcome"]) == ("", "ok")


class OddMessage(BaseMessage):
    """One that LangChain can't turn into text."""

    type: str = "odd"


def test_a_message_of_an_unknown_type(arthur: Arthur) -> None:
    messages = [HumanMessage("a"), OddMessage(content="b"), AIMessage("c")]
    with pytest.raises(ValueError, match="unsupported message type"):
        get_buffer_string(messages)
    assert ask(arthur, messages)["input_text"] == "Human: a\nodd: b\nAI: c"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not(make_arthur: Any, value: float) -> None:
    arthur: Arthur = make_arthur((*TEXT_ONLY, *extra(score="FLOAT", note="STRING")))
    config: Any = {"callbacks": [arthur.handler], "metadata": {"score": value, "note": value}}
    FakeListChatModel(responses=["ok"]).invoke("hi", config)
    row = arthur.only()
    assert row == {"input_text": "Human: hi", "output_text": "ok"}
    assert arthur.stats().attributes_omitted == 2


@pytest.mark.parametrize(
    ("argument", "omitted"),
    [("\ud800", 0), (2**70, 0), (10**5000, 0), (deep(), 1)],
    ids=["surrogate", "large", "huge", "deep"],
)
def test_a_tool_call_that_is_hard_to_encode(arthur: Arthur, argument: Any, omitted: int) -> None:
    call: Any = {**TOOL_CALL, "args": {"a": argument}}
    answer = ChatGeneration(message=AIMessage("calling", tool_calls=[call]))
    ResultModel(generations=[answer]).invoke("hi", {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert (row["output_text"], row["outcome"]) == ("calling", "ok")
    assert ("tool_calls" in row) == (not omitted)
    assert arthur.stats().attributes_omitted == omitted


class Gate(MemoryDestination):
    """Knows no model until it is opened, so that what was captured waits as it was captured."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        await to_thread.run_sync(self.opened.wait, abandon_on_cancel=True)
        return await super().fetch_schema(model_id)


@pytest.fixture
def gated() -> Iterator[tuple[Gate, ArthurCallbackHandler]]:
    gate = Gate()
    with Relay(gate, model_id="model", settings=RelaySettings(connect="lazy")) as relay:
        yield gate, ArthurCallbackHandler(relay=relay)
        gate.opened.set()


def conversation() -> list[Any]:
    return [
        HumanMessage("asked"),
        AIMessage(
            [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}],
            tool_calls=[tool_call()],
        ),
        AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
        ChatMessage(role="critic", content="boo"),
    ]


CHANGES: dict[str, Callable[[list[Any]], object]] = {
    "content": lambda m: setattr(m[0], "content", "changed"),
    "list append": lambda m: m.append(HumanMessage("more")),
    "list clear": lambda m: m.clear(),
    "block": lambda m: m[1].content[0].update(text="changed"),
    "block append": lambda m: m[1].content.append({"type": "text", "text": "more"}),
    "content of blocks": lambda m: setattr(m[1], "content", "changed"),
    "tool call append": lambda m: m[1].tool_calls.append(tool_call()),
    "tool calls": lambda m: setattr(m[1], "tool_calls", []),
    "tool call's name": lambda m: m[1].tool_calls[0].update(name="changed"),
    "tool call's argument": lambda m: m[1].tool_calls[0]["args"].update(a=2),
    "role": lambda m: setattr(m[3], "role", "changed"),
    "function call": lambda m: m[2].additional_kwargs.update(function_call="changed"),
    "function call's name": lambda m: (
        m[2].additional_kwargs["function_call"].update(name="changed")
    ),
    "keywords": lambda m: m[2].additional_kwargs.clear(),
}


@pytest.mark.parametrize("when", ["in the call", "after the call"])
@pytest.mark.parametrize("name", CHANGES)
def test_messages_that_the_application_changes(
    gated: tuple[Gate, ArthurCallbackHandler], name: str, when: str
) -> None:
    gate, handler = gated
    messages = conversation()
    as_asked = get_buffer_string(messages)

    def answer(_: list[BaseMessage]) -> list[ChatGeneration]:
        if when == "in the call":
            CHANGES[name](messages)
        return [ChatGeneration(message=AIMessage("ok"))]

    ResultModel(answer=answer).invoke(messages, {"callbacks": [handler]})
    if when == "after the call":
        CHANGES[name](messages)
    assert get_buffer_string(messages) != as_asked
    gate.opened.set()
    assert handler.flush(30).delivered == 1
    (row,) = gate.inferences
    assert row["inference_data"]["input_text"] == as_asked


ANSWER_CHANGES: dict[str, Callable[[Any], object]] = {
    "content": lambda m: setattr(m, "content", "changed"),
    "tool calls": lambda m: m.tool_calls.clear(),
    "tool call's argument": lambda m: m.tool_calls[0]["args"].update(a=2),
    "metadata": lambda m: m.response_metadata.update(finish_reason="changed"),
    "usage": lambda m: m.usage_metadata.update(input_tokens=9),
    "likelihoods": lambda m: m.response_metadata.pop("logprobs"),
    "everything": lambda m: m.response_metadata.clear(),
}


@pytest.mark.parametrize("name", ANSWER_CHANGES)
def test_answers_that_the_application_changes(
    gated: tuple[Gate, ArthurCallbackHandler], name: str
) -> None:
    gate, handler = gated
    message = AIMessage(
        "ok",
        tool_calls=[tool_call()],
        response_metadata={
            "finish_reason": "stop",
            "logprobs": {"content": [{"token": "ok", "logprob": 0.0}]},
        },
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    )
    model = ResultModel(generations=[ChatGeneration(message=message)])
    ANSWER_CHANGES[name](model.invoke("hi", {"callbacks": [handler]}))
    gate.opened.set()
    assert handler.flush(30).delivered == 1
    data = gate.inferences[0]["inference_data"]
    assert data["output_text"] == "ok"
    assert '"a":1' in data["tool_calls"]
    assert data["finish_reason"] == "stop"
    assert data["prompt_tokens"] == 1
    assert data["output_tokens"] == ["ok"]
