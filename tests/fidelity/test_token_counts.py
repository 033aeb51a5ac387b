"""Token counts and their details, wherever they are told; told once for a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration

from arthur_relay.encoding.token_counts import _cache_hits_are_told
from tests.callback.fakes import ResultModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fidelity.judged import Judged

    Answered = Callable[..., dict[str, Any]]

BASE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}


def usage(**details: Any) -> Any:
    return {**BASE, **details}


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"input_token_details": {"cache_read": 4}}, {"cached_tokens": 4}),
        ({"input_token_details": {"flex_cache_read": 4, "flex": 7}}, {"cached_tokens": 4}),
        ({"input_token_details": {"cache_creation": 3}}, {"cache_creation_tokens": 3}),
        (
            {
                "input_token_details": {
                    "cache_creation": 0,
                    "ephemeral_5m_input_tokens": 2,
                    "ephemeral_1h_input_tokens": 1,
                }
            },
            {"cache_creation_tokens": 3},
        ),
        ({"output_token_details": {"reasoning": 5}}, {"reasoning_tokens": 5}),
        ({"output_token_details": {"priority_reasoning": 5}}, {"reasoning_tokens": 5}),
        (
            {"input_token_details": {"audio": 2}, "output_token_details": {"audio": 3}},
            {"input_audio_tokens": 2, "output_audio_tokens": 3, "audio_tokens": 5},
        ),
        ({"input_token_details": {"cache_read": 4.0}}, {"cached_tokens": 4}),
    ],
)
def test_details(answered: Answered, details: dict[str, Any], expected: dict[str, int]) -> None:
    row = answered(AIMessage("a", usage_metadata=usage(**details)))
    names = {name for name in row if name.endswith("_tokens")} - {*_named(), "max_tokens"}
    names -= {"output_tokens"}
    assert {name: row[name] for name in names} == expected
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (11, 7, 18)


@pytest.mark.parametrize(
    ("info", "output"),
    [
        ({"prompt_eval_count": 11, "eval_count": 7}, None),
        ({"usage_metadata": BASE}, None),
        ({"token_usage": {"prompt_tokens": 11, "completion_tokens": 7}}, None),
        (None, {"usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}),
        (None, {"token_usage": {"prompt_tokens": 11.0, "completion_tokens": 7.0}}),
        (
            {
                "amazon-bedrock-invocationMetrics": {
                    "inputTokenCount": 11,
                    "outputTokenCount": 7,
                }
            },
            None,
        ),
    ],
)
@pytest.mark.parametrize("answer", ["a completion", AIMessage("a chat's")], ids=["llm", "chat"])
def test_counts_in_other_places(
    answered: Answered, answer: Any, info: dict[str, Any] | None, output: dict[str, Any] | None
) -> None:
    row = answered(answer, info=info, output=output)
    assert (row["prompt_tokens"], row["completion_tokens"], row["total_tokens"]) == (11, 7, 18)


def test_counts_go_with_the_first_row_of_a_request(arthur: Judged) -> None:
    generations = [
        ChatGeneration(message=AIMessage(text, usage_metadata=usage())) for text in "abc"
    ]
    ResultModel(generations=generations).invoke("hi", {"callbacks": [arthur.handler]})
    rows = arthur.data()
    assert [row["output_text"] for row in rows] == ["a", "b", "c"]
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert sum(row.get(name, 0) for row in rows) == {**BASE, **_named()}[name]
    assert "prompt_tokens" in rows[0]


def _named() -> dict[str, int]:
    return {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


# langchain-core 0.3.0 writes a model down for its cache in a way that a later pydantic warns of.
@pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute:DeprecationWarning")
def test_an_answer_of_langchains_cache(arthur: Judged) -> None:
    generation = ChatGeneration(message=AIMessage("a", usage_metadata=usage()))
    model = ResultModel(generations=[generation], cache=InMemoryCache())
    for _ in range(2):
        model.invoke("hi", {"callbacks": [arthur.handler]})
    told = [row.get("cache_hit") for row in arthur.data()]
    assert told == ([False, True] if _cache_hits_are_told() else [None, None])
