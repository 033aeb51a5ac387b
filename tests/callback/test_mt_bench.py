"""The 80 conversations of MT-bench, of two turns each: 160 inferences, each arrives once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, HumanMessage, get_buffer_string

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from .arthur import Arthur

QUESTIONS = Path(__file__).parents[3] / "shared" / "data" / "mt_bench" / "question.jsonl"

pytestmark = pytest.mark.skipif(
    not QUESTIONS.exists(), reason="needs MT-bench's question.jsonl beside the repository"
)


def conversations() -> dict[int, list[str]]:
    """The turns, by question id."""
    lines = QUESTIONS.read_text(encoding="utf-8").splitlines()
    return {found["question_id"]: found["turns"] for found in map(json.loads, lines)}


def answer(question: int, turn: int) -> str:
    return f"Answer {turn} to question {question}, in some words.\n"


def test_all_conversations(arthur: Arthur) -> None:
    expected: list[tuple[str, str]] = []
    config: Any = {"callbacks": [arthur.handler]}
    for question, turns in conversations().items():
        history: list[BaseMessage] = []
        for turn, text in enumerate(turns, start=1):
            history.append(HumanMessage(text))
            expected.append((get_buffer_string(history), answer(question, turn)))
            model = FakeListChatModel(responses=[answer(question, turn)])
            found = "".join(chunk.text for chunk in model.stream(history, config))
            history.append(AIMessage(found))
    assert len(expected) == 160
    rows = arthur.rows()
    data = [row["inference_data"] for row in rows]
    # Batches may pass each other: of their order nothing is promised.
    assert sorted((row["input_text"], row["output_text"]) for row in data) == sorted(expected)
    assert len({row["partner_inference_id"] for row in rows}) == 160
    assert {row["outcome"] for row in data} == {"ok"}
    assert all(0 < row["time_to_first_token"] <= row["duration"] for row in data)
    assert arthur.stats().captured == 160
