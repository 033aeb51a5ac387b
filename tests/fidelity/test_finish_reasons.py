"""Why the model stopped, by whatever name the provider says it, and what follows from that."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from tests.callback.arthur import TEXT_ONLY
from tests.callback.fakes import ChunkModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fidelity.judged import Judged

    Answered = Callable[..., dict[str, Any]]


class Blocked(str, Enum):  # noqa: UP042 - what google-genai has
    """A reason as Gemini's client hands it over."""

    PROHIBITED = "PROHIBITED_CONTENT"


TOLD: list[tuple[dict[str, Any], str | None]] = [
    ({"finish_reason": "stop"}, "stop"),
    ({"finish_reason": "MAX_TOKENS"}, "MAX_TOKENS"),
    ({"stop_reason": "refusal"}, "refusal"),
    ({"stopReason": "guardrail_intervened"}, "guardrail_intervened"),
    ({"done_reason": "length", "done": True}, "length"),
    ({"completionReason": "FINISH"}, "FINISH"),
    (
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        "max_output_tokens",
    ),
    (
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
        "content_filter",
    ),
    ({"status": "completed", "incomplete_details": None}, "completed"),
    ({"status": "failed"}, "failed"),
    ({"status": "in_progress"}, None),
    ({"status": "queued"}, None),
    ({"prompt_feedback": {"block_reason": Blocked.PROHIBITED}}, "PROHIBITED_CONTENT"),
    ({"prompt_feedback": {"block_reason": 0, "safety_ratings": []}}, None),
    ({"finish_reason": None, "stop_reason": "end_turn"}, "end_turn"),
    ({"finish_reason": ""}, None),
]


@pytest.mark.parametrize(("metadata", "reason"), TOLD)
def test_in_a_whole_answer(answered: Answered, metadata: dict[str, Any], reason: str) -> None:
    row = answered(AIMessage("answer", response_metadata=metadata))
    assert row.get("finish_reason") == reason
    assert row["outcome"] == "ok"


@pytest.mark.parametrize(("metadata", "reason"), TOLD)
def test_a_stream_that_is_left_after_its_last_chunk_is_whole(
    streamed: Answered, metadata: dict[str, Any], reason: str | None
) -> None:
    chunks = [
        AIMessageChunk(content="Hel"),
        AIMessageChunk(content="lo"),
        AIMessageChunk(content="", id="1"),
    ]
    chunks[-1].response_metadata = metadata
    row = streamed(chunks, leaves=True)
    assert row.get("finish_reason") == reason
    assert row["output_text"] == "Hello"
    assert row["outcome"] == ("disconnected" if reason is None else "ok")
    assert ("error" in row) == (reason is None)


def test_a_stream_that_is_left_before_is_not(streamed: Answered) -> None:
    row = streamed([AIMessageChunk(content="Hel")], leaves=True)
    assert (row["outcome"], row["output_text"]) == ("disconnected", "Hel")


@pytest.mark.parametrize("name", ["stopReason", "done_reason"])
def test_a_whole_stream_is_sent_to_a_model_with_texts_only(
    make_arthur: Callable[..., Judged], name: str
) -> None:
    arthur = make_arthur(TEXT_ONLY)
    chunks = [
        AIMessageChunk(content="Hello"),
        AIMessageChunk(content="", response_metadata={name: "stop"}),
    ]
    stream: Any = ChunkModel(chunks=chunks).stream("hi", {"callbacks": [arthur.handler]})
    for _ in chunks:
        next(stream)
    stream.close()
    assert arthur.only() == {"input_text": "Human: hi", "output_text": "Hello"}
    assert arthur.stats().dropped == {}


def test_what_a_completion_model_and_a_hand_made_result_tell(answered: Answered) -> None:
    assert answered(AIMessage("a"), info={"done_reason": "length"})["finish_reason"] == "length"
    output = {"stop_reason": "max_tokens"}
    assert answered(AIMessage("a"), output=output)["finish_reason"] == "max_tokens"
