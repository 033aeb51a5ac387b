"""What v3 event streams tell and what they don't: likelihoods, repeats, and streams cut short."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import openai
import pytest

from .fakes import ChunkModel
from .provider import USAGE, Reply, said
from .test_answers import DOUBLED, check_likelihoods

if TYPE_CHECKING:
    from .arthur import Arthur
    from .provider import Provider

pytestmark = [
    # What is tested here is in beta, and says so whenever it is called.
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
]


def drain(model: Any, arthur: Arthur, prompt: str) -> None:
    for _ in model.stream_events(prompt, {"callbacks": [arthur.handler]}, version="v3"):
        pass


async def adrain(model: Any, arthur: Arthur, prompt: str) -> None:
    stream = await model.astream_events(prompt, {"callbacks": [arthur.handler]}, version="v3")
    try:
        async for _ in stream:
            pass
    finally:
        await stream.aclose()  # its events end before its run does


def check_no_likelihoods(arthur: Arthur) -> None:
    """LangChain keeps those of the last token alone, which would be wrong for the whole text."""
    row = arthur.only()
    assert row["output_text"] == said("one two")
    assert "output_tokens" not in row
    assert "output_likelihoods" not in row
    assert arthur.stats().attributes_omitted == 2


def test_likelihoods(arthur: Arthur, chat_openai: Any) -> None:
    drain(chat_openai(logprobs=True, top_logprobs=3), arthur, "one two")
    check_no_likelihoods(arthur)


@pytest.mark.anyio
async def test_likelihoods_of_an_async_stream(arthur: Arthur, chat_openai: Any) -> None:
    await adrain(chat_openai(logprobs=True, top_logprobs=3), arthur, "one two")
    check_no_likelihoods(arthur)


def test_likelihoods_of_a_single_token(
    arthur: Arthur, chat_openai: Any, provider: Provider
) -> None:
    provider.default = Reply(text="Yes.")
    drain(chat_openai(logprobs=True, top_logprobs=3), arthur, "one two")
    check_likelihoods(arthur.only(), "Yes.", candidates=3)
    assert arthur.stats().attributes_omitted == 0


def check_repeated(arthur: Arthur) -> None:
    row = arthur.only()
    assert row["output_text"] == "Hello"
    assert row["finish_reason"] == "stop"
    assert row["model_name"] == "gpt-4o"
    assert tuple(row[name] for name in USAGE) == (1, 2, 3)


def test_repeated_metadata(arthur: Arthur) -> None:
    drain(ChunkModel(chunks=DOUBLED), arthur, "hi")
    check_repeated(arthur)


@pytest.mark.anyio
async def test_repeated_metadata_of_an_async_stream(arthur: Arthur) -> None:
    await adrain(ChunkModel(chunks=DOUBLED), arthur, "hi")
    check_repeated(arthur)


def check_cut(arthur: Arthur, raised: BaseException) -> None:
    row = arthur.only()
    assert row["outcome"] == "error"
    assert row["error"] == f"{type(raised).__name__}: {raised}"
    assert row["output_text"] == ""  # LangChain does not tell what had come
    assert row["time_to_first_token"] <= row["duration"]


def test_a_cut_in_mid_stream(arthur: Arthur, chat_openai: Any, provider: Provider) -> None:
    provider.default = Reply(cut_after=2)
    with pytest.raises(openai.APIConnectionError) as raised:
        drain(chat_openai(), arthur, "hi")
    check_cut(arthur, raised.value)


@pytest.mark.anyio
async def test_a_cut_in_an_async_stream(
    arthur: Arthur, chat_openai: Any, provider: Provider
) -> None:
    provider.default = Reply(cut_after=2)
    with pytest.raises(openai.APIConnectionError) as raised:
        await adrain(chat_openai(), arthur, "hi")
    check_cut(arthur, raised.value)


# The collector closes the forgotten stream's socket, the provider client's own, and may say so.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["kept", "forgotten"])
def test_a_stream_that_is_left(
    arthur: Arthur, chat_openai: Any, provider: Provider, how: str
) -> None:
    provider.default = Reply(hold_after=2)
    stream = chat_openai().stream_events("hi", {"callbacks": [arthur.handler]}, version="v3")
    for event in stream:
        if event["event"] == "content-block-delta":
            break
    if how == "forgotten":
        del stream
        gc.collect()
    # Nobody tells that its reader is gone, so it ends with the relay, or by its age.
    assert arthur.handler.relay.stats().open_runs == 1
    arthur.handler.relay.close()
    assert arthur.only()["outcome"] == "abandoned"
    assert arthur.stats().abandoned == 1
