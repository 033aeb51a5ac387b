"""A relay that has nothing to do costs no thread and no connection, and comes back with work."""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

import pytest
from langchain_core.outputs import Generation, LLMResult

from arthur_relay import (
    ArthurCallbackHandler,
    ConfigurationError,
    HealthStatus,
    Relay,
    RelaySettings,
)
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Verdict
from arthur_relay.runtime.process_registry import registry
from arthur_relay.testing import LLM_ATTRIBUTES, MemoryDestination, arthur_sandbox
from tests import needs
from tests.relay.relays import inference
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from arthur_relay.worker.relay_host import RelayHost

__all__ = ["arthur_sandbox"]  # the fixture, as users import it


class Watched(MemoryDestination):
    """Knows whether it is connected, so to speak."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = self.left = 0

    async def __aenter__(self) -> Self:
        self.entered += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left += 1


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arthur_relay.worker.relay_host.IDLE_SECONDS", 0.02)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arthur_relay.worker.relay_host.IDLE_SECONDS", 0.0)


def make_relay(**settings: Any) -> tuple[Relay, Watched]:
    destination = Watched()
    given = {"flush_interval_seconds": 0.001, **settings}
    return Relay(destination, model_id="m", settings=RelaySettings(**given)), destination


def is_without_threads(relay: Relay) -> bool:
    runtime = relay._host.pipeline.runtime
    return relay._host.is_at_rest and not (
        runtime._thread.is_alive() or runtime._resolver._thread.is_alive()
    )


def wait_until_at_rest(relay: Relay) -> None:
    wait_for(lambda: is_without_threads(relay))


def wait_until_another_rests() -> None:
    """Wait as long as a relay that is made now, and used once, takes to go to rest."""
    other, _ = make_relay()
    with other:
        other.capture(inference())
        assert other.flush(30).delivered == 1
        wait_until_at_rest(other)


@pytest.fixture
def rested(_soon: None) -> Iterator[tuple[Relay, Watched]]:
    relay, destination = make_relay()
    with relay:
        relay.capture(inference(inference_id="before"))
        assert relay.flush(30).delivered == 1
        wait_until_at_rest(relay)
        # Where the worker was done before the flush woke it, that has brought it back once more.
        assert destination.entered == destination.left <= 2
        destination.entered = destination.left = 1
        yield relay, destination


Rested = tuple[Relay, Watched]


def test_without_work_there_is_no_thread_and_no_connection(rested: Rested) -> None:
    relay, destination = rested
    assert (destination.entered, destination.left) == (1, 1)
    assert relay._host not in registry().running()
    assert relay.health().status is HealthStatus.OK
    stats = relay.stats()
    assert (stats.captured, stats.delivered, stats.pending, stats.worker_restarts) == (1, 1, 0, 0)
    # A flush has nothing to wait for, and needs no thread.
    result = relay.flush(30)
    assert (result.delivered, result.timed_out) == (1, False)
    assert is_without_threads(relay)


def test_it_comes_back_with_the_next_capture_and_counts_on(rested: Rested) -> None:
    relay, destination = rested
    for number in range(2, 5):
        relay.capture(inference(inference_id=f"after {number}"))
        assert relay.flush(30).delivered == number
        assert destination.entered == number
        wait_until_at_rest(relay)
    stats = relay.stats()
    assert (stats.captured, stats.delivered, stats.worker_restarts) == (4, 4, 0)


def test_nobody_has_to_flush_for_it(rested: Rested) -> None:
    relay, destination = rested
    relay.capture(inference())
    wait_for(lambda: len(destination.inferences) == 2)


def test_it_comes_back_with_a_run_of_langchain(
    rested: Rested, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looks for open runs so often, and goes to rest once it finds none.
    monkeypatch.setattr("arthur_relay.worker.worker.SWEEP_SECONDS", 0.05)
    relay, destination = rested
    handler = ArthurCallbackHandler(relay=relay)
    wait_until_at_rest(relay)  # it was asked for the model
    run_id = uuid4()
    handler.on_llm_start({}, ["prompt"], run_id=run_id)
    # It has a thread to give the run up, should it never end.
    wait_for(lambda: relay._host.pipeline.runtime.is_alive)
    wait_until_another_rests()
    assert not relay._host.is_at_rest  # while the run is open
    handler.on_llm_end(LLMResult(generations=[[Generation(text="answer")]]), run_id=run_id)
    assert relay.flush(30).delivered == 2
    wait_until_at_rest(relay)
    assert len(destination.inferences) == 2


def test_it_comes_back_with_a_model_and_with_ground_truth(rested: Rested) -> None:
    relay, destination = rested
    relay._host.register(ModelSchema("given", LLM_ATTRIBUTES))
    wait_for(
        lambda: "given" in [model.model_id for model in relay._host.pipeline.worker.schemas.known()]
    )
    wait_until_at_rest(relay)
    relay.connect("asked")
    wait_until_at_rest(relay)
    relay.log_ground_truth("before", {"unregistered": 1})
    assert relay.flush(30).rejected == 1
    assert destination.entered == 4


def test_closing_at_rest_starts_nothing_and_what_comes_later_is_counted(rested: Rested) -> None:
    relay, destination = rested
    result = relay.close()
    assert (result.delivered, result.timed_out, destination.entered) == (1, False, 1)
    relay.capture(inference())
    assert relay.flush(30).dropped == {"closed": 1}
    assert relay.health().status is HealthStatus.CLOSED
    assert not relay._host.pipeline.runtime.is_alive


def test_an_exit_closes_also_what_is_at_rest(rested: Rested) -> None:
    relay, destination = rested
    registry().close_all()
    relay.capture(inference())
    assert relay.stats().dropped == {"closed": 1}
    assert destination.entered == 1


@pytest.mark.usefixtures("_at_once")
def test_nothing_is_lost_however_the_ends_and_the_captures_meet() -> None:
    # It rests whenever it has nothing to do, as often as it can.
    relay, destination = make_relay(flush_interval_seconds=0.0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    each, most, count = 100, 10_000, 3
    captured: list[str] = []

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for number in range(most):
            if number >= each and destination.entered > 10:  # it did rest meanwhile
                break
            captured.append(f"{seed}-{number}")
            relay.capture(inference(inference_id=f"{seed}-{number}"))
            # Captures have to meet the worker at every stage of its going to rest.
            time.sleep(chance.choice((0.0, 0.002, 0.008, 0.02)))

    try:
        with relay:
            threads = [threading.Thread(target=work, args=(seed,)) for seed in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            # Without a flush, which would wake it: each capture has to.
            wait_for(lambda: len(destination.inferences) == len(captured))
            wait_for(lambda: relay.stats().pending == 0)
            stats = relay.stats()
    finally:
        sys.setswitchinterval(interval)
    assert (stats.captured, stats.delivered) == (len(captured), len(captured))
    assert destination.entered > 10
    assert destination.entered == destination.left


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.usefixtures("_soon")
def test_a_capture_at_the_very_moment_is_delivered(when: str) -> None:
    relay, destination = make_relay()
    let_go = registry().let_go
    captured: list[int] = []

    def capture() -> None:
        if not captured:
            captured.append(1)
            thread = threading.Thread(target=relay.capture, args=(inference(),))
            thread.start()
            thread.join()

    def at_the_moment(_registry: object, found: RelayHost, *, keep: bool) -> bool:
        if when == "before":
            capture()
        result = let_go(found, keep=keep)
        if when == "after":
            capture()
        return result

    with pytest.MonkeyPatch.context() as patch, relay:
        patch.setattr(type(registry()), "let_go", at_the_moment)
        wait_for(lambda: len(destination.inferences) == 1)
        wait_for(lambda: relay.stats().pending == 0)
        wait_until_at_rest(relay)
        assert captured


def test_a_capture_waits_for_no_lock_while_it_wakes_it(rested: Rested) -> None:
    # A finaliser may run where its thread has one of `threading`'s locks, or one of ours.
    relay, destination = rested
    limbo: Any = threading._active_limbo_lock  # type: ignore[attr-defined] # not for everybody
    turnover, of_relay = relay._host.pipeline.runtime._turnover, relay._host._lock.mine()
    with limbo, registry()._lock.mine(), turnover, of_relay:
        relay.capture(inference())
    assert relay.flush(30).delivered == 2
    assert len(destination.inferences) == 2


@needs.signals
def test_a_signal_handler_wakes_it(rested: Rested) -> None:
    relay, _ = rested
    before = signal.signal(signal.SIGUSR1, lambda *_: relay.capture(inference()))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert relay.flush(30).delivered == 2


def refuse(*_: object) -> int:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_had_what_is_captured_waits_for_one(
    rested: Rested, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay, destination = rested
    with monkeypatch.context() as patch:
        patch.setattr("arthur_relay.system.native.start_new_thread", refuse)
        relay.capture(inference())
        result = relay.flush(0.1)
        assert (result.pending, result.timed_out) == (1, True)
        # Nobody may forget it, and an exit has to know it.
        assert relay._host in registry().running()
    relay.capture(inference())
    assert relay.flush(30).delivered == 3
    assert len(destination.inferences) == 3


def test_where_no_other_thread_can_be_had_the_one_that_starts_them_is_the_worker(
    rested: Rested, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at the end of the main thread with Python 3.12."""
    relay, destination = rested
    with monkeypatch.context() as patch:
        patch.setattr("arthur_relay.system.native.BackgroundThread.start", refuse)
        relay.capture(inference())
        assert relay.flush(30).delivered == 2
    relay.capture(inference())
    assert relay.close(30).delivered == 3
    assert len(destination.inferences) == 3
    assert destination.entered == destination.left


@pytest.mark.usefixtures("_soon")
def test_without_a_thread_a_relay_can_not_be_made_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = set(threading.enumerate())
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ConfigurationError, match=r"gets no thread: the limit on threads"):
            make_relay()
        with pytest.raises(ConfigurationError, match="gets no thread"):
            ArthurCallbackHandler.from_credentials("m", "http://127.0.0.1:9", "login", "password")
    assert set(threading.enumerate()) <= before


def test_a_flush_never_raises_for_want_of_a_thread(
    rested: Rested, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    relay, destination = rested
    pipeline = relay._host.pipeline
    pipeline.created_pid = pipeline.started_pid = -5  # as in a child that no hook has seen
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert relay.flush(0.1).pending == 0
        relay.capture(inference())
        result = relay.flush(0.1)
        assert (result.pending, result.timed_out) == (1, True)
        result = asyncio.run(relay.aflush(0.1))
        assert (result.pending, result.timed_out) == (1, True)
        with pytest.raises(ConfigurationError, match="gets no thread"):
            relay.connect("m")
    assert relay.flush(30).delivered == 1
    assert len(destination.inferences) == 2


def forgotten(make: Callable[[], Relay]) -> list[weakref.ref[Relay]]:
    return [weakref.ref(make()) for _ in range(8)]


@pytest.mark.usefixtures("_soon")
def test_what_nobody_refers_to_is_forgotten(arthur_sandbox: ArthurSandbox) -> None:
    def make() -> Relay:
        handler = ArthurCallbackHandler.from_credentials(
            arthur_sandbox.model_id,
            arthur_sandbox.url,
            arthur_sandbox.login,
            arthur_sandbox.password,
            settings=RelaySettings(
                flush_interval_seconds=0.001, redact=lambda text: text.replace("in", "out")
            ),
        )
        run_id = uuid4()
        handler.on_llm_start({}, ["prompt"], run_id=run_id)
        handler.on_llm_end(LLMResult(generations=[[Generation(text="answer")]]), run_id=run_id)
        return handler.relay

    relays = forgotten(make)

    def are_gone() -> bool:
        gc.collect()
        return not any(relay() for relay in relays)

    wait_for(are_gone)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("arthur-relay")]
    assert not [thread for thread in ours if thread.is_alive()]
    assert len(arthur_sandbox.inferences) == len(relays)
    assert not registry()._shared


@pytest.mark.usefixtures("_soon")
def test_what_somebody_refers_to_is_still_shared(arthur_sandbox: ArthurSandbox) -> None:
    settings = RelaySettings(flush_interval_seconds=0.001)

    def make() -> ArthurCallbackHandler:
        return ArthurCallbackHandler.from_credentials(
            arthur_sandbox.model_id,
            arthur_sandbox.url,
            arthur_sandbox.login,
            arthur_sandbox.password,
            settings=settings,
        )

    first = make()
    wait_until_at_rest(first.relay)
    gc.collect()
    second = make()
    assert second.relay is first.relay
    second.relay.capture(inference(model_id=arthur_sandbox.model_id))
    assert first.flush(30).delivered == 1


@pytest.mark.usefixtures("_soon")
def test_rejected_rows_that_are_in_memory_are_kept_with_their_relay() -> None:
    class Refusing(Watched):
        async def deliver(self, batch: Batch) -> Attempt:
            outcome = Outcome(Verdict.REJECTED, "http 400", 400)
            return Attempt((outcome,) * len(batch.rows), Failure.REFUSED, "http 400")

    relay = Relay(Refusing(), model_id="m", settings=RelaySettings(flush_interval_seconds=0.001))
    relay.capture(inference())
    assert relay.flush(30).rejected == 1
    wait_until_at_rest(relay)
    known = weakref.ref(relay)
    del relay
    gc.collect()
    found = known()
    assert found is not None
    assert len(found.dead_letters()) == 1
    found.close()
    del found

    def is_gone() -> bool:
        gc.collect()
        return known() is None

    wait_for(is_gone)


@pytest.mark.usefixtures("_soon")
def test_one_relay_of_each_spool_stays_to_take_over_what_others_leave(tmp_path: Path) -> None:
    first, destination = make_relay(spool_dir=tmp_path)
    second, _ = make_relay(spool_dir=tmp_path)
    with first, second:
        for relay in (first, second):
            relay.capture(inference())
            assert relay.flush(30).delivered == 1
        wait_for(lambda: first._host.is_at_rest or second._host.is_at_rest)
        wait_until_another_rests()
        assert sorted([first._host.is_at_rest, second._host.is_at_rest]) == [False, True]
        resting = first if first._host.is_at_rest else second
        wait_until_at_rest(resting)
        assert resting.stats().spooled == 0
        resting.capture(inference())
        assert resting.flush(30).delivered == 2
    assert destination.entered == destination.left


@pytest.mark.usefixtures("_soon")
@needs.forks
def test_a_forked_child_of_a_process_whose_relay_is_at_rest() -> None:
    relay, _ = make_relay()
    with relay:
        wait_until_at_rest(relay)
        pid = os.fork()
        if pid == 0:
            relay.capture(inference())
            os._exit(relay.flush(30).delivered)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        relay.capture(inference())
        assert relay.flush(30).delivered == 1
