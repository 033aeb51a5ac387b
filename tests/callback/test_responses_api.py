"""ChatOpenAI over the Responses API: content is a list of blocks, and all of them are the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from .calls import ASYNC, SYNC
from .provider import MODEL, USAGE, Reply, said

if TYPE_CHECKING:
    from .arthur import Arthur
    from .provider import Provider


def check(arthur: Arthur, prompt: str = "one two three", *, streamed: bool) -> None:
    row = arthur.only()
    assert row["input_text"] == f"Human: {prompt}"
    assert row["output_text"] == said(prompt)
    assert row["outcome"] == "ok"
    assert row["model_name"] == MODEL
    assert {name: row[name] for name in USAGE} == USAGE
    if streamed:
        assert 0 < row["time_to_first_token"] <= row["duration"]
    stats = arthur.stats()
    assert stats.unmatched_events == stats.capture_errors == stats.attributes_omitted == 0


@pytest.mark.parametrize("how", SYNC)
def test_calls(arthur: Arthur, chat_openai: Any, how: str) -> None:
    model = chat_openai(use_responses_api=True)
    SYNC[how](model, ["one two three"], arthur.handler)
    check(arthur, streamed=how == "stream")


@pytest.mark.anyio
@pytest.mark.parametrize("how", ASYNC)
async def test_async_calls(arthur: Arthur, chat_openai: Any, how: str) -> None:
    model = chat_openai(use_responses_api=True)
    await ASYNC[how](model, ["one two three"], arthur.handler)
    check(arthur, streamed=how == "astream")


def test_the_guides_way(arthur: Arthur, chat_openai: Any) -> None:
    model = chat_openai(use_responses_api=True, streaming=True, callbacks=[arthur.handler])
    model.invoke("one two three")
    check(arthur, streamed=True)


# What is tested here is in beta, and says so whenever it is called.
@pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")
def test_events(arthur: Arthur, chat_openai: Any) -> None:
    model = chat_openai(use_responses_api=True)
    for _ in model.stream_events("one two three", {"callbacks": [arthur.handler]}, version="v3"):
        pass
    check(arthur, streamed=True)


def test_a_failure(arthur: Arthur, chat_openai: Any, provider: Provider) -> None:
    provider.default = Reply(status=500)
    with pytest.raises(Exception, match="told to fail"):
        chat_openai(use_responses_api=True).invoke("hi", {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert row["outcome"] == "error"
    assert "told to fail with 500" in row["error"]


def test_a_conversation(arthur: Arthur, chat_openai: Any) -> None:
    """What was answered goes in again, in blocks, and is text in the next input."""
    model = chat_openai(use_responses_api=True, callbacks=[arthur.handler])
    first = model.invoke("hi")
    assert isinstance(first.content, list)
    model.invoke([("human", "hi"), first, ("human", "and you?")])
    rows = sorted(arthur.data(), key=lambda row: len(row["input_text"]))
    assert rows[1]["output_text"] == said("and you?")
    assert rows[1]["input_text"].endswith("Human: and you?")
    assert f"AI: {said('hi')}" in rows[1]["input_text"]
