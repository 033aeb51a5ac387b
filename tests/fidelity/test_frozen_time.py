"""With a frozen clock inferences are delivered, with the frozen time; durations stay real."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration

from arthur_relay import Inference
from tests.callback.arthur import Arthur
from tests.callback.fakes import ResultModel
from tests.fidelity.conftest import EVERYTHING

freezegun = pytest.importorskip("freezegun")

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def arthur() -> Iterator[Arthur]:
    """Over real sockets, for these have timers too."""
    with Arthur(EVERYTHING) as running:
        yield running


FROZEN = "2026-06-07T12:00:13+00:00"


def ask(arthur: Arthur) -> None:
    model = ResultModel(generations=[ChatGeneration(message=AIMessage("answer"))])
    model.invoke("hi", {"callbacks": [arthur.handler]})


def test_inferences_have_the_frozen_time(arthur: Arthur) -> None:
    with freezegun.freeze_time(FROZEN):
        ask(arthur)
        (row,) = arthur.rows()  # they are delivered while time stands still
    assert row["inference_timestamp"] == FROZEN
    assert 0.0 <= row["inference_data"]["duration"] < 60.0


def test_a_call_in_whose_middle_time_freezes_has_a_real_duration(arthur: Arthur) -> None:
    frozen = freezegun.freeze_time(FROZEN)

    def answer(_messages: Any) -> list[ChatGeneration]:
        frozen.start()
        return [ChatGeneration(message=AIMessage("answer"))]

    try:
        ResultModel(answer=answer).invoke("hi", {"callbacks": [arthur.handler]})
        assert 0.0 <= arthur.only()["duration"] < 60.0
    finally:
        frozen.stop()


def test_the_worker_goes_on_by_itself_while_time_stands_still(arthur: Arthur) -> None:
    """Nothing is flushed: the row is sent when it has waited long enough for others."""
    from tests.waiting import wait_for

    with freezegun.freeze_time(FROZEN):
        ask(arthur)
    ask(arthur)
    with freezegun.freeze_time(FROZEN):
        wait_for(lambda: len(arthur.sandbox.inferences) == 2)


def test_times_of_a_replaced_class_are_taken(arthur: Arthur) -> None:
    with freezegun.freeze_time(FROZEN):
        moment = dt.datetime.now(dt.UTC)
        model_id = arthur.handler.model_id
        given = Inference(input_text="in", output_text="out", timestamp=moment, model_id=model_id)
        arthur.handler.relay.capture(given)
        (row,) = arthur.rows()
    assert row["inference_timestamp"] == FROZEN
    assert arthur.handler.relay.stats().dropped == {}
