"""Runs that fail: errors of the provider, cuts, interrupts, batches of which a part fails."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import openai
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModelError
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration

from .arthur import TEXT_ONLY, extra
from .calls import ALL_CALLS, ASYNC, SYNC, call
from .fakes import ChunkModel, ResultModel
from .provider import Reply, pieces, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arthur import Arthur
    from .provider import Provider

    Make = Callable[..., Any]

PARTIAL = "".join(pieces(said("hi"))[:2])


@pytest.fixture(params=["chat_openai", "openai_llm"])
def make(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.mark.anyio
@pytest.mark.parametrize("status", [429, 500])
@pytest.mark.parametrize("how", ALL_CALLS)
async def test_an_error_of_the_provider(
    arthur: Arthur, make: Make, provider: Provider, how: str, status: int
) -> None:
    provider.default = Reply(status=status)
    with pytest.raises(openai.APIStatusError) as raised:
        await call(how, make(), arthur.handler, "hi")
    (row,) = arthur.rows()
    data = row["inference_data"]
    assert data["outcome"] == "error"
    assert data["input_text"].endswith("hi")
    assert data["output_text"] == ""
    assert f"told to fail with {status}" in data["error"]
    assert data["error"].startswith(f"{type(raised.value).__name__}: ")
    assert "finish_reason" not in data
    assert "header-value" not in str(row)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_a_cut_in_mid_stream(
    arthur: Arthur, make: Make, provider: Provider, how: str
) -> None:
    provider.default = Reply(cut_after=2)
    with pytest.raises(openai.APIConnectionError) as raised:
        await call(how, make(), arthur.handler, "hi")
    row = arthur.only()
    assert row["outcome"] == "error"
    assert row["output_text"] == PARTIAL
    assert row["error"] == f"{type(raised.value).__name__}: {raised.value}"
    assert row["time_to_first_token"] <= row["duration"]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
async def test_a_cut_that_is_not_seen_by_the_caller(
    arthur: Arthur, chat_openai: Make, provider: Provider, how: str
) -> None:
    provider.default = Reply(cut_after=2)
    with pytest.raises(openai.APIConnectionError):
        await call(how, chat_openai(streaming=True), arthur.handler, "hi")
    row = arthur.only()
    assert row["outcome"] == "error"
    assert row["output_text"] == ""  # LangChain does not tell what had come


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("how", SYNC)
def test_an_interrupt(arthur: Arthur, how: str, error: BaseException) -> None:
    model = ChunkModel(
        chunks=[AIMessageChunk(content="par"), AIMessageChunk(content="tial"), error]
    )
    model.streaming = True
    with pytest.raises(type(error)):
        SYNC[how](model, ["hi"], arthur.handler)
    row = arthur.only()
    assert row["outcome"] == "cancelled"
    assert row["output_text"] == ("partial" if how == "stream" else "")


def test_an_error_after_the_finish_reason_is_an_error(arthur: Arthur) -> None:
    last = AIMessageChunk(content="done", response_metadata={"finish_reason": "stop"})
    model = ChunkModel(chunks=[last, ValueError("late")])
    with pytest.raises(ValueError, match="late"):
        SYNC["stream"](model, ["hi"], arthur.handler)
    assert arthur.only()["outcome"] == "error"


def test_a_fake_that_fails_in_mid_stream(arthur: Arthur) -> None:
    model = FakeListChatModel(responses=["abcdef"], error_on_chunk_number=3)
    with pytest.raises(FakeListChatModelError):
        SYNC["stream"](model, ["hi"], arthur.handler)
    row = arthur.only()
    assert (row["outcome"], row["output_text"]) == ("error", "abc")
    assert row["error"] == "FakeListChatModelError"


def fail_on(word: str) -> ResultModel:
    def answer(messages: list[Any]) -> list[ChatGeneration]:
        if messages[-1].content == word:
            raise ValueError(f"can't answer {word}")
        return [ChatGeneration(message=AIMessage(said(messages[-1].content)))]

    return ResultModel(answer=answer)


def outcomes(arthur: Arthur) -> dict[str, tuple[str, str]]:
    return {
        row["input_text"].removeprefix("Human: "): (row["outcome"], row["output_text"])
        for row in arthur.data()
    }


def test_one_of_three_fails(arthur: Arthur) -> None:
    with pytest.raises(ValueError, match="can't answer b"):
        SYNC["generate"](fail_on("b"), ["a", "b", "c"], arthur.handler)
    # LangChain ends the one that failed, and forgets about the others.
    assert outcomes(arthur) == {"b": ("error", "")}
    assert arthur.stats().open_runs == 2
    arthur.handler.relay.close()
    assert outcomes(arthur) == {
        "a": ("abandoned", ""),
        "b": ("error", ""),
        "c": ("abandoned", ""),
    }
    assert arthur.stats().abandoned == 2


@pytest.mark.anyio
async def test_one_of_three_fails_concurrently(arthur: Arthur) -> None:
    with pytest.raises(ValueError, match="can't answer b"):
        await ASYNC["agenerate"](fail_on("b"), ["a", "b", "c"], arthur.handler)
    assert outcomes(arthur) == {
        "a": ("ok", said("a")),
        "b": ("error", ""),
        "c": ("ok", said("c")),
    }


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["batch", "abatch"])
async def test_one_of_a_batch_fails(arthur: Arthur, how: str) -> None:
    model = fail_on("b")
    config: Any = {"callbacks": [arthur.handler]}
    if how == "batch":
        model.batch(["a", "b", "c"], config, return_exceptions=True)
    else:
        await model.abatch(["a", "b", "c"], config, return_exceptions=True)
    assert outcomes(arthur) == {
        "a": ("ok", said("a")),
        "b": ("error", ""),
        "c": ("ok", said("c")),
    }


def test_attempts_and_fallbacks_are_inferences_of_their_own(arthur: Arthur) -> None:
    tries = itertools.count(1)

    def answer(messages: list[Any]) -> list[ChatGeneration]:
        if next(tries) < 4:
            raise ValueError("not yet")
        return [ChatGeneration(message=AIMessage("at last"))]

    model = ResultModel(answer=answer)
    patient = model.with_retry(stop_after_attempt=2, wait_exponential_jitter=False)
    config: Any = {"callbacks": [arthur.handler]}
    patient.with_fallbacks([patient]).invoke([HumanMessage("hi")], config)
    rows = arthur.data()
    assert [row["outcome"] for row in rows] == ["error", "error", "error", "ok"]
    assert len({row["run_id"] for row in rows}) == 4


@pytest.mark.parametrize(
    ("attributes", "told"),
    [
        (TEXT_ONLY, False),
        ((*TEXT_ONLY, *extra(outcome="STRING")), True),
        ((*TEXT_ONLY, *extra(error="STRING")), True),
    ],
)
def test_a_model_that_may_not_tell_failed_runs_apart(
    make_arthur: Make, attributes: Any, told: bool
) -> None:
    arthur: Arthur = make_arthur(attributes)
    with pytest.raises(ValueError, match="can't answer b"):
        SYNC["invoke"](fail_on("b"), ["a", "b"], arthur.handler)
    texts = [row["input_text"] for row in arthur.data()]
    assert texts == (["Human: a", "Human: b"] if told else ["Human: a"])
    stats = arthur.stats()
    assert stats.captured == 2
    assert stats.dropped == ({} if told else {"skipped": 1})
