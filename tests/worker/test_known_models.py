"""Asking for a model: one question, however many ask, and nobody waits for it twice."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from arthur_relay import Inference, ModelError, Relay, RelaySettings
from arthur_relay.testing import MemoryDestination
from arthur_relay.worker import known_models

if TYPE_CHECKING:
    from arthur_relay.destinations.scope.schema import ModelSchema


class Slow(MemoryDestination):
    """A destination that tells of models when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.answer: Future[None] = Future()
        self.questions = 0

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        self.questions += 1
        self.asked.set()
        await asyncio.shield(asyncio.wrap_future(self.answer))
        return await super().fetch_schema(model_id)


def relay_to(destination: Slow, **settings: float) -> Relay:
    chosen = RelaySettings(flush_interval_seconds=0, **settings)
    return Relay(destination, model_id="m", settings=chosen)


def test_who_comes_after_a_time_out_does_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    destination = Slow()
    with relay_to(destination, connect_timeout_seconds=0.01) as relay:
        with caplog.at_level(logging.WARNING):
            for _ in range(5):
                relay.connect("m")
        assert len(caplog.records) == 1
        assert "will keep asking" in caplog.text
        relay.capture(Inference(input_text="a", output_text="b"))
        destination.answer.set_result(None)
        assert relay.flush(30).delivered == 1
        relay.connect("m")
    assert destination.questions == 1


def test_all_who_ask_for_a_wrong_model_at_once_are_told() -> None:
    destination = Slow()
    with relay_to(destination, connect_timeout_seconds=30) as relay, ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(relay.connect, "m") for _ in range(4)]
        assert destination.asked.wait(30)
        destination.answer.set_exception(ModelError("no such model"))
        assert [type(each.exception(30)) for each in asking] == [ModelError] * 4


def test_models_that_are_asked_for_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_models, "MODELS_KEPT", 5)
    destination = Slow()
    with relay_to(destination, connect_timeout_seconds=0.01) as relay:
        for number in range(30):
            relay.connect(f"m{number}")
        models = relay._host.models
        assert len(models._answers) == 5, "those that have no answer"
        assert len(models._asked) == 5
        assert len(relay._host.pipeline.worker.schemas._waiting) <= 5
        destination.answer.set_result(None)
        relay.capture(Inference(input_text="a", output_text="b", model_id="m29"))
        assert relay.flush(30).delivered == 1, "the worker asks for it itself"
    with relay_to(destination, connect_timeout_seconds=30) as relay:
        for number in range(30):
            relay.connect(f"m{number}")
        assert relay._host.models._answers == {}
        assert list(relay._host.models._asked) == [f"m{number}" for number in range(25, 30)]
        questions = destination.questions
        relay.connect("m29")
        assert destination.questions == questions, "what is remembered is not asked again"
        relay.connect("m0")
