"""The fuzz targets in their short form, and that they see what they are for."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.daemon import span_splitter, splitter
from arthur_relay.destinations.engine.rows import UnframedError
from arthur_relay.http_server import framing
from tests.fuzz.__main__ import main
from tests.fuzz.edge import fuzz_edge
from tests.fuzz.intake import fuzz_intake
from tests.fuzz.outcome import Broken, Outcome
from tests.fuzz.traces import fuzz_traces

if TYPE_CHECKING:
    from arthur_relay.http_server.framing import FramedProtocol

pytestmark = pytest.mark.one_python

SEED = 20260607


def test_bodies_of_rows() -> None:
    fuzz_intake(Random(SEED), 1500, outcome := Outcome())
    assert outcome.counts["bodies"] == 1500
    for what in ("bodies that are no rows", "rows taken", "rows refused"):
        assert outcome.counts[what] > 100


def test_bodies_of_spans() -> None:
    fuzz_traces(Random(SEED), 1500, outcome := Outcome())
    assert outcome.counts["bodies of spans"] == 1500
    for what in ("bodies that are no spans", "spans taken", "spans refused"):
        assert outcome.counts[what] > 100


def test_a_row_that_is_no_request_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_splitter, "row_body", lambda resource, scope, span: span)
    with pytest.raises((Broken, UnframedError)):
        fuzz_traces(Random(SEED), 500, Outcome())


def test_connections() -> None:
    fuzz_edge(Random(SEED), 300, outcome := Outcome())
    assert outcome.counts["connections"] == 300
    assert outcome.counts["rows"] > 100


def test_a_row_that_can_not_be_read_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitter, "_lacks", lambda document, _: "" if document else "nothing")
    with pytest.raises((Broken, TypeError, KeyError)):
        fuzz_intake(Random(SEED), 500, Outcome())


def test_a_body_that_is_taken_for_a_request_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_before(self: FramedProtocol) -> None:
        self._is_arriving = False
        self.cycle.more_body = False
        self.cycle.message_event.set()

    monkeypatch.setattr(framing.FramedProtocol, "_ignore_upgrade", as_before)
    with pytest.raises(Broken):
        fuzz_edge(Random(SEED), 300, Outcome())


def test_an_answer_that_is_lost_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framing.FramedProtocol, "eof_received", lambda self: None)
    with pytest.raises(Broken):
        fuzz_edge(Random(SEED), 300, Outcome())


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seconds", "0.5", "--seed", "7"]) == 0
    told = capsys.readouterr().out
    assert "seed 7" in told
    assert "bodies" in told
    assert "connections" in told


def test_the_command_tells_what_broke(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_it(*given: Any) -> None:
        raise Broken("all is well", b"\x00input")

    monkeypatch.setattr("tests.fuzz.__main__.fuzz_intake", break_it)
    assert main(["--seconds", "0.5", "--seed", "7"]) == 1
    told = capsys.readouterr().out
    assert "all is well" in told
    assert "b'\\x00input'" in told
    assert "--seed 7" in told
