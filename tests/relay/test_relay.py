"""The relay and the handler over a destination in memory: what users see of them."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

from arthur_relay import (
    ArthurCallbackHandler,
    ConfigurationError,
    HealthStatus,
    ModelError,
    Relay,
    RelaySettings,
)
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.row import Attempt, Batch
from arthur_relay.testing import (
    LLM_ATTRIBUTES,
    MemoryDestination,
    arthur_memory,
    arthur_sandbox,
    memory_relay,
)
from tests import needs
from tests.relay.relays import Gated, Memory, inference

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

__all__ = ["arthur_memory", "arthur_sandbox"]  # the fixtures, as users import them


def test_what_is_captured_is_delivered(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory
    capture: Any = relay.capture
    assert capture(inference(inference_id="mine")) is None
    relay.capture(inference(model_id="another"))
    result = relay.flush(30)
    assert (result.delivered, result.rejected, result.dropped) == (2, 0, {})
    assert (result.pending, result.timed_out) == (0, False)
    first, second = sorted(destination.inferences, key=lambda row: row["model_id"], reverse=True)
    assert first["partner_inference_id"] == "mine"
    assert (first["model_id"], second["model_id"]) == ("test-model", "another")
    assert len(second["partner_inference_id"]) > 20
    stats = relay.stats()
    assert (stats.captured, stats.delivered, stats.pending, stats.pending_bytes) == (2, 2, 0, 0)


def test_what_is_known_of_a_relay_can_be_written_as_json(arthur_memory: Memory) -> None:
    relay, _ = arthur_memory
    relay.capture(inference())
    flushed = relay.flush(30)
    for told in (flushed, relay.stats(), relay.health()):
        found = json.loads(json.dumps(told.as_dict()))
        assert found == told._asdict()
        assert [*found] == [*told._fields]
    assert relay.health().as_dict() == {"status": "ok", "detail": relay.health().detail}


def test_made_up_ids_are_unique(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory

    def work() -> None:
        for _ in range(200):
            relay.capture(inference())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    relay.flush(30)
    assert len({row["partner_inference_id"] for row in destination.inferences}) == 1600


def test_capture_never_raises(arthur_memory: Memory) -> None:
    relay, destination = arthur_memory
    odds: tuple[Any, ...] = (None, 5, "text", object())
    for odd in odds:
        relay.capture(odd)
    relay.capture(inference(attributes=5))
    relay.capture(inference(attributes={"user_id": object(), 5: 6}))
    relay.capture(inference(input_text=None, output_text=b"bytes"))
    relay.capture(inference(timestamp="yesterday", duration="long"))
    relay.capture(inference())
    relay.flush(30)
    stats = relay.stats()
    assert stats.capture_errors == 5
    assert stats.pending == 0
    assert (stats.captured, stats.dropped) == (9, {"unreadable": 5})
    assert stats.delivered == 4
    assert any(row["inference_data"]["output_text"] == "out" for row in destination.inferences)
    assert relay.health().status is HealthStatus.DEGRADED


@needs.signals
def test_capture_works_in_a_signal_handler_and_in_a_finaliser(arthur_memory: Memory) -> None:
    relay, _destination = arthur_memory
    previous = signal.signal(signal.SIGUSR1, lambda *_: relay.capture(inference()))
    try:
        for _ in range(100):
            relay.capture(inference())
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, previous)

    class Cyclic:
        def __init__(self) -> None:
            self.me = self

        def __del__(self) -> None:
            relay.capture(inference())

    for _ in range(100):
        Cyclic()
    gc.collect()
    assert relay.flush(30).delivered == 300


def test_a_worker_that_dies_comes_back_and_is_counted(
    arthur_memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    relay, _destination = arthur_memory
    host: Any = relay._host
    sweep = host.sweep

    def killed() -> bool:
        host.sweep = sweep
        raise RuntimeError("killed")

    class Hostile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError("a log handler of the application's")

    hostile = Hostile()
    logging.getLogger("arthur_relay.runtime").addHandler(hostile)
    try:
        host.sweep = killed
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
    finally:
        logging.getLogger("arthur_relay.runtime").removeHandler(hostile)
    assert relay.stats().worker_restarts == 1
    assert relay.health().status is HealthStatus.OK


def test_a_relay_that_can_not_start_says_so_at_once() -> None:
    class Broken(MemoryDestination):
        async def __aenter__(self) -> Self:
            raise ValueError("no such proxy")

    before = set(threading.enumerate())
    with pytest.raises(ConfigurationError, match=r"can't start \(ValueError: no such proxy\)"):
        Relay(Broken(), model_id="m")
    new = set(threading.enumerate()) - before
    assert not [thread for thread in new if thread.name == "arthur-relay"]


def test_health_tells_of_a_refused_model_without_crying_failure() -> None:
    class Choosy(MemoryDestination):
        async def fetch_schema(self, model_id: str) -> ModelSchema:
            if model_id == "wrong":
                raise ModelError("no such model")
            return await super().fetch_schema(model_id)

    settings = RelaySettings(flush_interval_seconds=0)
    with Relay(Choosy(), model_id="right", settings=settings) as relay:
        with pytest.raises(ModelError):
            ArthurCallbackHandler(relay=relay, model_id="wrong")
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
        health = relay.health()
        assert health.status is HealthStatus.DEGRADED
        assert "unknown model" in health.detail


def test_a_fork_that_no_hook_has_seen_is_found_out_by_the_next_capture(
    arthur_memory: Memory,
) -> None:
    relay, destination = arthur_memory
    relay.capture(inference(inference_id="parent"))
    parent = relay._host.pipeline
    relay.flush(30)
    parent.created_pid = (
        parent.started_pid
    ) = -5  # as if this were a child of the process that started the worker
    try:
        relay.capture(inference(inference_id="child"))
        assert relay.flush(30).delivered == 1
        assert relay._host.pipeline is not parent
        assert relay.stats().captured == 1
        assert [row["partner_inference_id"] for row in destination.inferences] == [
            "parent",
            "child",
        ]
    finally:
        parent.runtime.cancel()
        assert parent.runtime.join(30)


def test_health_and_stats_of_a_quiet_relay(arthur_memory: Memory) -> None:
    relay, _destination = arthur_memory
    health = relay.health()
    assert health.status is HealthStatus.OK
    assert str(health.status) == "ok"
    assert health.detail.endswith(".")
    assert relay.stats().captured == 0


def test_a_registered_model_needs_no_question() -> None:
    class Unasked(MemoryDestination):
        async def fetch_schema(self, model_id: str) -> ModelSchema:
            raise AssertionError("asked")

    destination = Unasked()
    settings = RelaySettings(flush_interval_seconds=0)
    with Relay(destination, model_id="m", settings=settings) as relay:
        relay._host.register(ModelSchema("m", MemoryDestination()._attributes))
        relay.connect("m")
        relay.capture(inference())
        assert relay.flush(30).delivered == 1


def test_a_disabled_relay_does_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="arthur_relay")
    before = set(threading.enumerate())
    settings = RelaySettings(disabled=True)
    with Relay(MemoryDestination(), settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        assert handler.ignore_llm
        assert handler.ignore_chat_model
        relay.capture(inference())
        relay.connect("m")
        assert relay.flush() == (0, 0, {}, 0, False)
        assert relay.health().status is HealthStatus.DISABLED
        assert relay.stats().captured == 0
    assert set(threading.enumerate()) <= before  # those of earlier tests may end meanwhile


def test_a_handler_survives_copies(arthur_memory: Memory) -> None:
    handler = ArthurCallbackHandler(relay=arthur_memory[0])
    assert copy.deepcopy({"callbacks": [handler]})["callbacks"][0] is handler
    assert copy.copy(handler) is handler


def test_memory_relay_takes_settings() -> None:
    settings = RelaySettings(flush_interval_seconds=5)
    relay, _destination = memory_relay(model_id="x", settings=settings)
    assert relay.settings is settings
    assert relay.model_id == "x"
    relay.close()


def test_the_sandbox_fixture_and_names(arthur_sandbox: ArthurSandbox) -> None:
    from arthur_relay import sandbox, testing

    assert testing.ArthurSandbox is sandbox.ArthurSandbox
    assert arthur_sandbox.url.startswith("http://127.0.0.1:")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = testing.nothing


def test_a_cancellation_from_within_is_not_the_end_of_the_worker() -> None:
    # The worker's task group takes it for its own, and would end as after a close.
    class Cancelling(MemoryDestination):
        asked = 0

        async def deliver(self, batch: Batch) -> Attempt:
            self.asked += 1
            if self.asked == 1:
                raise asyncio.CancelledError
            return await super().deliver(batch)

    destination = Cancelling()
    settings = RelaySettings(flush_interval_seconds=0.01)
    with Relay(destination, model_id="m", settings=settings) as relay:
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
        assert relay.stats().worker_restarts == 1


def test_before_anything_was_answered_health_does_not_say_that_delivery_goes_well() -> None:
    gated = Gated()
    with Relay(gated, model_id="m") as relay:
        assert relay.health().status is HealthStatus.OK
        assert "has not been asked for anything so far" in relay.health().detail
        relay._host.register(ModelSchema("m", LLM_ATTRIBUTES))
        relay.capture(inference())
        gated.open()
        relay.flush(30)
        assert "Delivery goes well" in relay.health().detail


def test_inferences_without_a_model_are_told_once_and_health_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Relay(MemoryDestination()) as relay:
        for _ in range(3):
            relay.capture(inference())
        relay.flush(30)
        assert relay.stats().rejected_reasons == {"no model id": 3}
        health = relay.health()
        assert health.status is HealthStatus.DEGRADED
        assert "3 inferences were rejected because they name no model" in health.detail
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == (
        "arthur-relay: an inference names no model and is rejected: set ARTHUR_MODEL_ID, or give"
        " model_id"
    )


@pytest.mark.parametrize("value", ["", "  "])
def test_a_relay_of_an_environment_without_a_model_says_so_at_once(
    value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", "http://localhost:1")
    monkeypatch.setenv("ARTHUR_MODEL_ID", value)
    with Relay.from_env() as relay:
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.startswith("arthur-relay: ARTHUR_MODEL_ID is not set")
        assert "ARTHUR_MODEL_ID is not set" in relay.health().detail
    caplog.clear()
    monkeypatch.setenv("ARTHUR_MODEL_ID", "m")
    with Relay.from_env() as relay:
        assert not caplog.records
        assert "ARTHUR_MODEL_ID" not in relay.health().detail
