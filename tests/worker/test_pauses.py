"""A pause stops new requests at once, also while no worker runs that could be asked to pause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import pytest

from arthur_relay.inference import CapturedInference, Inference
from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import monotonic
from arthur_relay.testing import MemoryDestination
from arthur_relay.worker.host import StandingHost
from arthur_relay.worker.pipeline import Pipeline
from tests.relay.relays import Gated
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSING_SECONDS = 0.3


class DiesOnce(MemoryDestination):
    """Lets the worker die when it enters for the first time."""

    entered = 0

    async def __aenter__(self) -> Self:
        self.entered += 1
        if self.entered == 1:
            raise RuntimeError
        return self


class RestingHost(StandingHost):
    """Lets the thread end as soon as there is nothing to do."""

    idle_seconds: float | None = 0.0

    def may_idle(self) -> bool:
        return True

    def let_go(self, *, keeps_letters: bool) -> bool:
        return True

    def has_work(self) -> bool:
        return False


def pipeline(
    destination: MemoryDestination | None = None, host: StandingHost | None = None
) -> Pipeline:
    settings = RelaySettings(flush_interval_seconds=0.0)
    return Pipeline.build(settings, destination or MemoryDestination(), host=host or StandingHost())


def capture(pipeline: Pipeline) -> None:
    inference = Inference(input_text="in", output_text="out")
    pipeline.queue.put(
        CapturedInference(inference, inference_id="a", model_id="m", captured_at=0.0)
    )


def not_started() -> Pipeline:
    return pipeline()


def dead() -> Pipeline:
    it = pipeline(DiesOnce())
    it.start()
    wait_for(lambda: it.restarts)
    return it


def at_rest() -> Pipeline:
    it = pipeline(host=RestingHost())
    it.start()
    wait_for(lambda: it.is_at_rest)
    return it


@pytest.mark.parametrize("state", [not_started, dead, at_rest])
def test_a_worker_that_starts_after_the_pause_sends_nothing(
    state: Callable[[], Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.runtime.thread.FIRST_RESTART_SECONDS", 60.0)
    it = state()
    assert it.begin_pause().done(), "nothing is on its way"
    capture(it)
    if it.started_pid is None:
        it.start()
    it.begin_shutdown()
    assert not it.finish_shutdown(monotonic() + CLOSING_SECONDS)
    totals = it.ledger.totals()
    assert (totals.captured, totals.delivered) == (1, 0)
    assert totals.dropped == {"shutdown": 1}


def test_a_pause_ends_when_nothing_is_on_its_way_any_more() -> None:
    destination = Gated()
    it = pipeline(destination)
    it.start()
    capture(it)
    assert destination.asked.wait(30)
    paused = it.begin_pause()
    capture(it)
    wait_for(lambda: it.worker.buffer.intake.rows == 2)
    assert not paused.done()
    destination.open()
    paused.result(30)
    it.begin_shutdown()
    assert not it.finish_shutdown(monotonic() + CLOSING_SECONDS)
    assert it.ledger.totals().delivered == 1
