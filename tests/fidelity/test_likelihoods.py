"""Log probabilities in every form that a client hands over; what can't be read is counted."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage

from arthur_relay.encoding.logprobs import token_likelihoods

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fidelity.judged import Judged

    Answered = Callable[..., dict[str, Any]]

LOW, HIGH = math.log(0.25), math.log(0.5)


def thing(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**fields)


FORMS: dict[str, Any] = {
    "a flat list of dicts": [
        {"token": "a", "logprob": HIGH, "top_logprobs": [{"token": "b", "logprob": LOW}]}
    ],
    "a flat list of objects": [
        thing(token="a", logprob=HIGH, top_logprobs=[thing(token="b", logprob=LOW)])
    ],
    "an object of objects": thing(
        content=[thing(token="a", logprob=HIGH, top_logprobs=[thing(token="b", logprob=LOW)])]
    ),
    "a dict of objects": {
        "content": [thing(token="a", logprob=HIGH, top_logprobs=[thing(token="b", logprob=LOW)])]
    },
    "side by side": {
        "tokens": ["a"],
        "token_logprobs": [HIGH],
        "top_logprobs": [{"b": LOW}],
    },
    "beside a None": {
        "content": None,
        "tokens": ["a"],
        "token_logprobs": [HIGH],
        "top_logprobs": [{"b": LOW}],
    },
    "gemini": {
        "chosen_candidates": [{"token": "a", "log_probability": HIGH}],
        "top_candidates": [{"candidates": [{"token": "b", "log_probability": LOW}]}],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_the_forms(answered: Answered, form: str) -> None:
    row = answered(AIMessage("a", response_metadata={"logprobs": FORMS[form]}))
    assert row["output_tokens"] == ["a"]
    assert row["output_likelihoods"] == [{"a": pytest.approx(0.5), "b": pytest.approx(0.25)}]


def test_tokens_without_candidates(answered: Answered) -> None:
    told = {"tokens": ["a", "b"], "token_logprobs": [HIGH, None]}
    row = answered(AIMessage("ab", response_metadata={"logprobs": told}))
    assert row["output_tokens"] == ["a", "b"]
    assert row["output_likelihoods"] == [{"a": pytest.approx(0.5)}, {}]


def test_the_chosen_token_is_always_among_the_candidates() -> None:
    others = [{"token": f"t{n}", "logprob": -0.1 * n} for n in range(8)]
    found = token_likelihoods([{"token": "chosen", "logprob": -9.0, "top_logprobs": others}])
    assert found is not None
    (candidates,) = found.likelihoods
    assert len(candidates) == 5
    assert candidates["chosen"] == pytest.approx(math.exp(-9.0))
    assert {"t0", "t1", "t2", "t3"} < set(candidates)


@pytest.mark.parametrize("form", [5, "text", {"x": [1]}, {"content": ["x"]}, [1, 2], thing(x=1)])
def test_a_form_that_can_not_be_read_is_counted(
    answered: Answered, arthur: Judged, form: Any
) -> None:
    row = answered(AIMessage("a", response_metadata={"logprobs": form}))
    assert row["output_text"] == "a"
    assert "output_tokens" not in row
    assert "output_likelihoods" not in row
    assert arthur.stats().attributes_omitted == 2


@pytest.mark.parametrize(
    "form", [None, {}, {"content": None}, {"content": [], "refusal": None}, []]
)
def test_nothing_told_is_not_counted(answered: Answered, arthur: Judged, form: Any) -> None:
    assert "output_tokens" not in answered(AIMessage("a", response_metadata={"logprobs": form}))
    assert arthur.stats().attributes_omitted == 0
