"""Every way to call every kind of model gives one inference for each prompt."""

from __future__ import annotations

import copy
import itertools
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from langchain_core.language_models import (
    FakeListChatModel,
    FakeListLLM,
    FakeMessagesListChatModel,
    FakeStreamingListLLM,
    GenericFakeChatModel,
    ParrotFakeChatModel,
)
from langchain_core.messages import AIMessage

from arthur_relay import ArthurCallbackHandler

from .calls import ASYNC, SYNC
from .provider import MODEL, USAGE, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arthur import Arthur
    from .provider import Provider

PROMPTS = ["alpha", "bravo bravo", "charlie, ünïcode 🙂"]
CANNED = "a canned answer"


def canned(prompt: str) -> str:
    return CANNED


@dataclass(frozen=True)
class Kind:
    """A kind of model, and what its rows hold."""

    make: Callable[..., Any]
    answer: Callable[[str], str] = canned
    chat: bool = True
    fixture: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    streams: bool = True

    def input(self, prompt: str) -> str:
        return f"Human: {prompt}" if self.chat else prompt


def from_fixture(make: Callable[..., Any], **fields: Any) -> Any:
    return make(**fields)


OPENAI_CHAT = Kind(from_fixture, answer=said, fixture="chat_openai", fields={"stream_usage": True})
KINDS = {
    "openai-chat": OPENAI_CHAT,
    "openai-chat-streaming": Kind(
        from_fixture,
        answer=said,
        fixture="chat_openai",
        fields={"streaming": True, "stream_usage": True, "use_responses_api": False},
    ),
    "openai-completion": Kind(from_fixture, answer=said, chat=False, fixture="openai_llm"),
    "generic-fake": Kind(lambda: GenericFakeChatModel(messages=itertools.repeat(CANNED))),
    "fake-list-chat": Kind(lambda: FakeListChatModel(responses=[CANNED])),
    "fake-messages": Kind(
        lambda: FakeMessagesListChatModel(responses=[AIMessage(CANNED)]), streams=False
    ),
    "parrot": Kind(ParrotFakeChatModel, answer=str, streams=False),
    "fake-list-llm": Kind(lambda: FakeListLLM(responses=[CANNED]), chat=False, streams=False),
    "fake-streaming-llm": Kind(
        lambda: FakeStreamingListLLM(responses=[CANNED]), chat=False, streams=False
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def model(kind: Kind, request: pytest.FixtureRequest) -> Any:
    if kind.fixture is None:
        return kind.make()
    return kind.make(request.getfixturevalue(kind.fixture), **kind.fields)


def check(arthur: Arthur, kind: Kind, how: str) -> None:
    rows = arthur.rows()
    assert len({UUID(row["partner_inference_id"]) for row in rows}) == len(PROMPTS)
    found = sorted(rows, key=lambda row: str(row["inference_data"]["input_text"]))
    for prompt, row in zip(PROMPTS, found, strict=True):
        data = row["inference_data"]
        assert data["input_text"] == kind.input(prompt)
        assert data["output_text"] == kind.answer(prompt)
        assert data["outcome"] == "ok"
        assert "error" not in data
        assert data["run_id"] == row["partner_inference_id"]
        assert 0 < data["duration"] < 60
        if "stream" in how and kind.streams:
            assert 0 < data["time_to_first_token"] <= data["duration"]
        if kind.fixture is not None:
            assert data["finish_reason"] == "stop"
            assert data["model_name"] == MODEL
    assert arthur.stats().unmatched_events == arthur.stats().capture_errors == 0


@pytest.mark.parametrize("how", SYNC)
def test_sync(arthur: Arthur, kind: Kind, model: Any, how: str) -> None:
    SYNC[how](model, PROMPTS, arthur.handler)
    check(arthur, kind, how)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ASYNC)
async def test_async(arthur: Arthur, kind: Kind, model: Any, how: str) -> None:
    await ASYNC[how](model, PROMPTS, arthur.handler)
    check(arthur, kind, how)


@pytest.mark.parametrize("how", [*SYNC, *ASYNC])
@pytest.mark.anyio
async def test_usage_of_a_chat_model(arthur: Arthur, chat_openai: Any, how: str) -> None:
    model = chat_openai(stream_usage=True)
    if how in SYNC:
        SYNC[how](model, ["hi"], arthur.handler)
    else:
        await ASYNC[how](model, ["hi"], arthur.handler)
    row = arthur.only()
    assert {name: row[name] for name in USAGE} == USAGE


@pytest.mark.anyio
async def test_a_streaming_completion_model(arthur: Arthur, openai_llm: Any) -> None:
    model = openai_llm(streaming=True)
    for call in (SYNC["invoke"], SYNC["stream"]):
        call(model, ["hi"], arthur.handler)
    for acall in (ASYNC["ainvoke"], ASYNC["astream"]):
        await acall(model, ["hi"], arthur.handler)
    rows = arthur.data()
    assert [row["output_text"] for row in rows] == [said("hi")] * 4
    assert [row["finish_reason"] for row in rows] == ["stop"] * 4
    assert all(row["time_to_first_token"] <= row["duration"] for row in rows)


@pytest.mark.anyio
async def test_the_handler_does_not_make_a_call_stream(
    arthur: Arthur, chat_openai: Any, provider: Provider
) -> None:
    for call in (SYNC["invoke"], SYNC["batch"], SYNC["generate"]):
        call(chat_openai(), ["hi"], arthur.handler)
    for acall in (ASYNC["ainvoke"], ASYNC["abatch"], ASYNC["agenerate"]):
        await acall(chat_openai(), ["hi"], arthur.handler)
    assert len(provider.requests) == 6
    assert not any(request.get("stream") for request in provider.requests)


class Where(ArthurCallbackHandler):
    """Notes which threads its events come from."""

    threads: set[int]

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.threads.add(threading.get_ident())
        super().on_llm_new_token(*args, **kwargs)


@pytest.mark.anyio
async def test_tokens_do_not_go_through_the_thread_pool(arthur: Arthur, chat_openai: Any) -> None:
    handler = Where(relay=arthur.handler.relay, model_id=arthur.sandbox.model_id)
    handler.threads = set()
    await ASYNC["astream"](chat_openai(), ["hi"], handler)
    assert handler.threads == {threading.get_ident()}
    assert arthur.only()["output_text"] == said("hi")


def test_a_copied_model_logs_to_the_same_relay(arthur: Arthur) -> None:
    model = FakeListChatModel(responses=[CANNED], callbacks=[arthur.handler])
    for each in (model, copy.copy(model), copy.deepcopy(model), model.model_copy(deep=True)):
        each.invoke("hi")
    assert len(arthur.rows()) == 4


def test_a_streaming_completion_model_refuses_several_prompts(
    arthur: Arthur, openai_llm: Any
) -> None:
    with pytest.raises(ValueError, match="multiple prompts"):
        openai_llm(streaming=True).generate(PROMPTS, callbacks=[arthur.handler])
    rows = arthur.data()
    assert [row["input_text"] for row in rows] == PROMPTS
    assert {row["outcome"] for row in rows} == {"error"}
    assert {row["error"] for row in rows} == {
        "ValueError: Cannot stream results with multiple prompts."
    }
