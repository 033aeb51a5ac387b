"""The table of faults for Arthur Engine: a trace of three spans, by a handler, over real sockets.

Each fault is played twice, as in `test_faults.py`. `ENGINE_TABLE` says what happens then.
"""

from __future__ import annotations

import pytest

from tests.end_to_end.engine_stage import EngineStage
from tests.end_to_end.engine_table import ENGINE_TABLE
from tests.end_to_end.stage import (
    LONG_SECONDS,
    SPEED,
    stage_of,
)

FAULTS = {
    f"{title}, {name}": fault
    for title, faults in ENGINE_TABLE.items()
    for name, fault in faults.items()
}

every_fault = pytest.mark.parametrize("name", FAULTS)

pytestmark = [
    # The client and the pipeline are those of `test_faults.py`, which every Python runs.
    pytest.mark.one_python,
    # httpcore leaves the socket of a handshake that is cancelled; the fixture has it collected.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.usefixtures("left_sockets_are_collected"),
]


@every_fault
def test_with_all_the_time_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault = FAULTS[name]
    speed = SPEED if fault.minutes else 1.0
    with stage_of(EngineStage, monkeypatch, speed=speed) as place:
        fault.play(place, shutdown_timeout_seconds=0.0 if fault.says else LONG_SECONDS)
        relay = place.relay
        if fault.says:
            place.wait_for(lambda: relay.flush(0.05).timed_out and place.is_failing(fault.attempts))
            health = relay.health()
            assert health.status == "failing"
            assert fault.says in health.detail
            assert relay.stats().pending == 3
            assert (place.requests > 0) is (fault.requests is None)
            if fault.asks_again:
                place.wait_for(lambda: place.questions > 0)
            else:
                assert place.questions == 0
        else:
            assert not relay.flush(LONG_SECONDS).timed_out
            requests = fault.attempts if fault.requests is None else fault.requests
            found = (relay.stats().requests, place.requests, place.questions)
            assert found == (fault.attempts, requests, fault.questions)
            assert place.watched.times[-1] - place.watched.times[0] >= 60 * fault.minutes
            assert relay.health().status in fault.health
        place.check(unheard=fault.unheard)
        result = relay.close()
        lost = {"shutdown": 3} if fault.says else {}
        assert (result.delivered, result.dropped) == (fault.delivered, lost)
        assert place.letters == relay.stats().rejected_reasons == fault.rejected
        assert place.sandbox.duplicates == fault.doubled
        assert len(place.told.lines) == fault.lines, place.told.lines
        place.check(unheard=fault.unheard)


@every_fault
def test_with_an_exit_in_the_middle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with stage_of(EngineStage, monkeypatch) as place:
        FAULTS[name].play_with_an_exit(place)
