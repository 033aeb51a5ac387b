"""What rows hold of an answer: generations, tool calls, usage, likelihoods, odd metadata."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration

from .calls import ALL_CALLS, SYNC, call
from .fakes import ChunkModel, ResultModel
from .provider import USAGE, Reply, pieces, said

if TYPE_CHECKING:
    from .arthur import Arthur
    from .provider import Provider

pytestmark = pytest.mark.one_python

CALLS = (
    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
    {"id": "c2", "type": "function", "function": {"name": "ü", "arguments": '{"text": "é\\n"}'}},
)
PARSED = [
    {"name": "add", "args": {"a": 1, "b": 2}, "id": "c1", "type": "tool_call"},
    {"name": "ü", "args": {"text": "é\n"}, "id": "c2", "type": "tool_call"},
]


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["invoke", "generate", "ainvoke", "agenerate"])
async def test_several_generations(arthur: Arthur, chat_openai: Any, how: str) -> None:
    await call(how, chat_openai(n=3), arthur.handler, "hi")
    rows = arthur.rows()
    run_id = rows[0]["partner_inference_id"]
    ids = [row["partner_inference_id"] for row in rows]
    assert ids == [run_id, f"{run_id}-1", f"{run_id}-2"]
    texts = [row["inference_data"]["output_text"] for row in rows]
    assert texts == [said("hi"), f"{said('hi')} (1)", f"{said('hi')} (2)"]
    for row in rows:
        assert row["inference_data"]["run_id"] == run_id
        assert row["inference_data"]["input_text"] == "Human: hi"
    assert arthur.stats().captured == 3


def test_several_generations_of_several_prompts(arthur: Arthur, openai_llm: Any) -> None:
    openai_llm(n=2, best_of=2).generate(["a", "b"], callbacks=[arthur.handler])
    found = {
        row["inference_data"]["output_text"]: row["partner_inference_id"] for row in arthur.rows()
    }
    assert found[f"{said('a')} (1)"] == f"{found[said('a')]}-1"
    assert found[f"{said('b')} (1)"] == f"{found[said('b')]}-1"


@pytest.mark.anyio
@pytest.mark.parametrize("how", ALL_CALLS)
async def test_tool_calls(arthur: Arthur, chat_openai: Any, provider: Provider, how: str) -> None:
    provider.default = Reply(tool_calls=CALLS, finish_reason="tool_calls")
    await call(how, chat_openai(), arthur.handler, "hi")
    row = arthur.only()
    assert row["output_text"] == ""
    assert json.loads(row["tool_calls"]) == PARSED
    assert row["finish_reason"] == "tool_calls"
    if "stream" in how:
        assert row["time_to_first_token"] <= row["duration"]


def test_the_text_is_the_generations(arthur: Arthur) -> None:
    blocks: list[str | dict[Any, Any]] = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": "first "},
        {"type": "text", "text": "second"},
        {"type": "image", "url": "http://127.0.0.1/x.png"},
    ]
    generation = ChatGeneration(message=AIMessage(blocks))
    ResultModel(generations=[generation]).invoke("hi", {"callbacks": [arthur.handler]})
    assert arthur.only()["output_text"] == generation.text == "first second"


OF_THE_MESSAGE = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
NONE = dict.fromkeys(USAGE)


@pytest.mark.parametrize(
    ("usage_metadata", "llm_output", "expected"),
    [
        (OF_THE_MESSAGE, None, (3, 4, 7)),
        (OF_THE_MESSAGE, {"token_usage": USAGE}, (3, 4, 7)),
        (None, {"token_usage": USAGE}, (11, 7, 18)),
        (None, {"token_usage": {"prompt_tokens": 1, "completion_tokens": 2}}, (1, 2, 3)),
        (None, {"token_usage": {"prompt_tokens": "many"}}, (None, None, None)),
        (None, {"token_usage": None}, (None, None, None)),
        (None, None, (None, None, None)),
    ],
)
def test_usage(
    arthur: Arthur, usage_metadata: Any, llm_output: Any, expected: tuple[int | None, ...]
) -> None:
    message = AIMessage("x", usage_metadata=usage_metadata)
    model = ResultModel(generations=[ChatGeneration(message=message)], llm_output=llm_output)
    model.invoke("hi", {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert tuple(row.get(name) for name in USAGE) == expected


@pytest.mark.parametrize("how", SYNC)
def test_usage_of_a_completion_model(arthur: Arthur, openai_llm: Any, how: str) -> None:
    SYNC[how](openai_llm(), ["hi"], arthur.handler)
    row = arthur.only()
    # A completion model does not stream its usage.
    assert {name: row.get(name) for name in USAGE} == (NONE if how == "stream" else USAGE)


def check_likelihoods(row: dict[str, Any], text: str, *, candidates: int) -> None:
    tokens, likelihoods = row["output_tokens"], row["output_likelihoods"]
    assert tokens == pieces(text)
    assert len(likelihoods) == len(tokens)
    for token, top in zip(tokens, likelihoods, strict=True):
        assert len(top) == candidates
        assert top[token] == pytest.approx(math.exp(-0.1))
        assert top[token] == max(top.values())
        assert all(0 <= value <= 1 for value in top.values())


@pytest.mark.anyio
@pytest.mark.parametrize(("asked", "kept"), [(0, 1), (3, 3), (9, 5)])
@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
async def test_likelihoods_in_the_chat_form(
    arthur: Arthur, chat_openai: Any, how: str, asked: int, kept: int
) -> None:
    await call(how, chat_openai(logprobs=True, top_logprobs=asked), arthur.handler, "one two")
    check_likelihoods(arthur.only(), said("one two"), candidates=kept)


@pytest.mark.anyio
@pytest.mark.parametrize(("asked", "kept"), [(1, 1), (5, 5), (9, 5)])
@pytest.mark.parametrize("how", ["invoke", "stream", "ainvoke", "astream"])
async def test_likelihoods_in_the_completion_form(
    arthur: Arthur, openai_llm: Any, how: str, asked: int, kept: int
) -> None:
    await call(how, openai_llm(logprobs=asked), arthur.handler, "one two")
    check_likelihoods(arthur.only(), said("one two"), candidates=kept)


def chat_token(token: Any, logprob: Any, *top: tuple[Any, Any]) -> dict[str, Any]:
    candidates = [{"token": name, "logprob": value} for name, value in top]
    return {"token": token, "logprob": logprob, "top_logprobs": candidates}


@pytest.mark.parametrize(
    ("logprobs", "tokens", "likelihoods"),
    [
        ({"content": [chat_token("a", -0.0, ("a", 0.5))]}, ["a"], [{"a": 1.0}]),
        ({"content": [chat_token("a", -math.inf)]}, ["a"], [{"a": 0.0}]),
        ({"content": [chat_token("a", math.nan, ("a", math.nan))]}, ["a"], [{}]),
        ({"content": [chat_token("a", None, ("a", None), ("b", -1e9))]}, ["a"], [{"b": 0.0}]),
        ({"content": []}, None, None),
        ({"content": None}, None, None),
        ({"content": [None, "x", 3]}, None, None),
        ({}, None, None),
        ("nonsense", None, None),
        (
            {"tokens": ["a", "b"], "top_logprobs": [{"a": -math.inf}, None]},
            ["a", "b"],
            [{"a": 0.0}, {}],
        ),
        ({"tokens": None, "top_logprobs": [{"a": -9.0, "b": 0.0}]}, ["b"], None),
        ({"tokens": ["a"], "top_logprobs": None}, None, None),
        ({"tokens": [None], "top_logprobs": [{None: math.nan}]}, ["None"], [{}]),
    ],
)
@pytest.mark.parametrize("place", ["generation_info", "response_metadata"])
def test_odd_likelihoods(
    arthur: Arthur, place: str, logprobs: Any, tokens: Any, likelihoods: Any
) -> None:
    message = AIMessage("x")
    generation = ChatGeneration(message=message)
    if place == "generation_info":
        generation.generation_info = {"logprobs": logprobs}
    else:
        message.response_metadata = {"logprobs": logprobs}
    ResultModel(generations=[generation]).invoke("hi", {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert row["output_text"] == "x"
    assert row.get("output_tokens") == tokens
    if likelihoods is not None or tokens is None:
        assert row.get("output_likelihoods") == likelihoods
    assert arthur.stats().capture_errors == 0


REPEATED = {"finish_reason": "stop", "model_name": "gpt-4o", "token_usage": {"total_tokens": 5}}
DOUBLED = [
    AIMessageChunk(content="Hel", response_metadata={"model_name": "gpt-4o"}),
    AIMessageChunk(content="lo", response_metadata=REPEATED),
    AIMessageChunk(
        content="",
        response_metadata=REPEATED,
        usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    ),
]


async def check_repeated(arthur: Arthur, how: str, **fields: Any) -> None:
    await call(how, ChunkModel(chunks=DOUBLED, **fields), arthur.handler, "hi")
    row = arthur.only()
    assert row["output_text"] == "Hello"
    assert row["finish_reason"] == "stop"
    assert row["model_name"] == "gpt-4o"
    assert tuple(row[name] for name in USAGE) == (1, 2, 3)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["stream", "astream"])
async def test_repeated_metadata_of_a_stream(arthur: Arthur, how: str) -> None:
    await check_repeated(arthur, how)


@pytest.mark.anyio
@pytest.mark.parametrize("how", [how for how in ALL_CALLS if "stream" not in how])
async def test_repeated_metadata_of_a_streaming_model(arthur: Arthur, how: str) -> None:
    await check_repeated(arthur, how, streaming=True)


def test_an_answer_that_only_looks_doubled(arthur: Arthur) -> None:
    metadata = {"finish_reason": "endend", "model_name": "bertbert"}
    generation = ChatGeneration(message=AIMessage("x", response_metadata=metadata))
    ResultModel(generations=[generation]).invoke("hi", {"callbacks": [arthur.handler]})
    row = arthur.only()
    assert (row["finish_reason"], row["model_name"]) == ("endend", "bertbert")
