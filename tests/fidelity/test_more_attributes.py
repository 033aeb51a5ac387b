"""What else is told by name: of the request, and of who answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from tests.callback.arthur import TEXT_ONLY, extra
from tests.fidelity.conftest import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fidelity.judged import Judged

    Answered = Callable[..., dict[str, Any]]


def ask(arthur: Judged, message: AIMessage, **start: Any) -> dict[str, Any]:
    """The row of a call whose start event has more."""
    run_id = uuid4()
    arthur.handler.on_chat_model_start({}, [[HumanMessage("hi")]], run_id=run_id, **start)
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    arthur.handler.on_llm_end(result, run_id=run_id)
    return arthur.data()[-1]


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"id": "resp_1"}, {"response_id": "resp_1"}),
        ({"ResponseMetadata": {"RequestId": "r1", "HTTPHeaders": {}}}, {"response_id": "r1"}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"usage": {"service_tier": "priority"}}, {"service_tier": "priority"}),
        ({"serviceTier": {"type": "default"}}, {"service_tier": "default"}),
        ({"system_fingerprint": "fp_1"}, {"system_fingerprint": "fp_1"}),
        ({"cost": 0.25}, {"cost": 0.25}),
        ({"response_cost": 0.25}, {"cost": 0.25}),
        ({"token_usage": {"cost": 0.25}}, {"cost": 0.25}),
        ({"usage": {"cost": {"total_cost": 0.25}}}, {"cost": 0.25}),
        ({"model_provider": "groq"}, {"provider": "groq"}),
    ],
    ids=repr,
)
def test_what_the_provider_tells(
    arthur: Judged, metadata: dict[str, Any], expected: dict[str, Any]
) -> None:
    row = ask(arthur, AIMessage("a", response_metadata=metadata))
    names = ("response_id", "service_tier", "system_fingerprint", "cost", "provider")
    assert {name: row[name] for name in names if name in row} == expected


def test_langchains_own_message_id_is_no_response_id(answered: Answered) -> None:
    for own in ("run-1", "lc_run--1"):
        assert "response_id" not in answered(AIMessage("a", id=own))
    assert answered(AIMessage("a", id="msg_1"))["response_id"] == "msg_1"


PARAMS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"temperature": 0.5, "max_tokens": 5, "top_p": 0.9, "seed": 7, "stop": ["x"]},
        {"temperature": 0.5, "max_tokens": 5, "top_p": 0.9, "seed": 7, "stop": ["x"]},
    ),
    ({"max_completion_tokens": 5}, {"max_tokens": 5}),
    ({"inferenceConfig": {"maxTokens": 5, "topP": 0.9}}, {"max_tokens": 5, "top_p": 0.9}),
    ({"options": {"num_predict": 5, "seed": 7}}, {"max_tokens": 5, "seed": 7}),
    ({"temperature": None, "stop": None}, {}),
]


@pytest.mark.parametrize(("params", "expected"), PARAMS, ids=repr)
def test_settings_of_the_request(
    arthur: Judged, params: dict[str, Any], expected: dict[str, Any]
) -> None:
    row = ask(arthur, AIMessage("a"), invocation_params=params, name="my run")
    names = ("temperature", "max_tokens", "top_p", "seed", "stop")
    assert {name: row[name] for name in names if name in row} == expected
    assert row["run_name"] == "my run"


def test_langchains_metadata_tells_settings_too(arthur: Judged) -> None:
    metadata = {"ls_temperature": 0.5, "ls_max_tokens": 5, "ls_stop": ["x"], "ls_provider": "p"}
    row = ask(arthur, AIMessage("a"), metadata=metadata)
    assert (row["temperature"], row["max_tokens"], row["stop"]) == (0.5, 5, ["x"])
    assert row["provider"] == "p"


@pytest.mark.parametrize(
    "name", ["ls_provider", "ls_model_name", "ls_temperature", "thread_id", "langgraph_node"]
)
def test_langchains_metadata_can_be_registered(
    make_arthur: Callable[..., Judged], name: str
) -> None:
    arthur = make_arthur((*TEXT_ONLY, *extra(**{name: "STRING"})))
    row = ask(arthur, AIMessage("a"), metadata={name: "told", "other": "not"})
    assert row[name] == "told"
    assert "other" not in row


def test_nothing_of_it_is_told_unregistered(make_arthur: Callable[..., Judged]) -> None:
    arthur = make_arthur(TEXT_ONLY)
    message = AIMessage("a", id="msg_1", response_metadata={"cost": 1.0, "finish_reason": "stop"})
    row = ask(arthur, message, invocation_params=PARAMS[0][0])
    assert row == {"input_text": "Human: hi", "output_text": "a"}


@pytest.mark.parametrize("setting", ["hide_outputs", "redact"])
def test_private_ones_are_hidden_and_redacted_like_the_output(
    make_arthur: Callable[..., Judged], setting: str
) -> None:
    mail = "me@example.org"
    value: Any = True if setting == "hide_outputs" else "email"
    arthur = make_arthur(EVERYTHING, **{setting: value})
    extras = {"reasoning_content": f"ask {mail}", "refusal": f"not {mail}"}
    row = ask(arthur, AIMessage("", additional_kwargs=extras))
    assert mail not in str(row)
    assert row["reasoning_text"]
    assert row["refusal"]
