"""The demo's screen, recording and verdict, without a demo."""

from __future__ import annotations

import io
import logging
import re
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from arthur_relay.cli.demo import run as run_module
from arthur_relay.cli.demo.recording import Recording, judge, pace_table, story
from arthur_relay.cli.demo.screen import PlainView, ScreenView, excerpt, logging_to
from arthur_relay.relay import Relay
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import Stats
from arthur_relay.testing import MemoryDestination
from tests.clock import Clock

pytestmark = pytest.mark.one_python


def stats(**counts: Any) -> Stats:
    with Relay(MemoryDestination(), settings=RelaySettings(disabled=True)) as relay:
        return relay.stats()._replace(**counts)


@pytest.fixture
def clock() -> Clock:
    found = Clock()
    found.now = 100.0
    return found


@pytest.fixture
def recording(clock: Clock) -> Recording:
    """Ten seconds: Arthur is away from the fourth to the eighth, and tokens come all along."""
    found = Recording(clock)
    for tenth in range(100):
        clock.now = 100 + tenth / 10
        if tenth == 40:
            found.gone()
        if tenth == 80:
            found.back()
        if tenth % 2 == 0:
            found.token()
        waiting = min(tenth - 40, 40) // 10 if 40 <= tenth < 85 else 0
        found.sample(stats(captured=tenth // 10, pending=waiting, delivered=tenth // 10 - waiting))
    clock.now = 110
    return found


def drawn(view: ScreenView, console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    console.file.truncate(0)
    console.file.seek(0)
    console.print(view.render())
    return console.file.getvalue().splitlines()


def stage(**more: Any) -> Any:
    given = {"who": "a model", "arthur_url": "http://arthur", "sandbox": object(), **more}
    return SimpleNamespace(**given)


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
def test_the_screen_fits(columns: int, rows: int, recording: Recording) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=columns, height=rows
    )
    view = ScreenView(console, stage(), recording, 12)
    view.asked(1, "Where is [bold]it[/bold]?")
    view.token("It is ")
    view.token("here.")
    lines = drawn(view, console)
    assert len(lines) < rows
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    assert "Where is [bold]it[/bold]?" in text
    assert "It is here.▌" in text
    assert "turn 1 of 12" in text
    assert "http://arthur/" in text
    assert "╌╌" in text
    assert "● there" in text
    view.answered(stats(), 5.0)
    for number in range(2, 30):
        view.asked(number, f"question {number}")
        view.token("word " * 40)
        view.note(f"note {number}")
    lines = drawn(view, console)
    assert len(lines) < rows
    text = "\n".join(lines)
    assert "question 29" in text
    assert "question 2 " not in text
    assert "note 27" in text
    assert "note 26" not in text


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (120, 40)])
def test_the_counts_on_the_screen(columns: int, rows: int, recording: Recording) -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=columns, height=rows
    )
    view = ScreenView(console, stage(), recording, 12)
    counts = {"captured": 31, "pending": 7, "delivered": 24, "retries": 5}
    recording.sample(stats(**counts))
    text = "\n".join(drawn(view, console))
    for name, value in counts.items():
        assert re.search(rf"\b{name} +{value} ", text), name
    assert re.search(r"Arthur there +5\.0 ", text)
    assert re.search(r"Arthur away +5\.0 ", text)
    assert "Arthur's page: http://arthur/ " in text


def test_the_screen_while_arthur_is_away_and_at_the_start(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80)
    found = Recording(clock)
    view = ScreenView(console, stage(sandbox=None), found, 1)
    assert "Arthur is at http://arthur" in "\n".join(drawn(view, console))
    found.gone()
    clock.now += 1.5
    assert "away 1.5 s" in "\n".join(drawn(view, console))


def test_the_screen_is_drawn_inside_of_its_block(recording: Recording) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    with ScreenView(console, stage(), recording, 12):
        pass
    assert isinstance(console.file, io.StringIO)
    assert "over time" in console.file.getvalue()


def test_which_view(monkeypatch: pytest.MonkeyPatch, recording: Recording) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert isinstance(run_module._view(terminal, stage(), recording, 1), ScreenView)
    monkeypatch.setattr("sys.stdout.isatty", lambda: False)
    assert isinstance(run_module._view(terminal, stage(), recording, 1), PlainView)


def test_the_pace_with_and_without_arthur(recording: Recording) -> None:
    assert recording.there.per_second == pytest.approx(5)
    assert recording.away.per_second == pytest.approx(5)
    assert recording.away.tokens == 20
    assert recording.away.longest_pause_seconds == pytest.approx(0.2)
    assert recording.outage_seconds == pytest.approx(4)
    assert recording.most_pending == 4
    assert recording.recovery_seconds() == pytest.approx(0.5)
    told = story(recording, stats(retries=3))
    assert told is not None
    assert "up to 4 inferences did" in told.plain
    assert "0.5 s after it was back" in told.plain


def test_a_recording_without_an_end(clock: Clock) -> None:
    found = Recording(clock)
    assert story(found, stats()) is None
    assert found.recovery_seconds() is None
    found.gone()
    clock.now += 2
    assert found.outage_seconds == 2
    found.back()
    assert found.recovery_seconds() is None
    found.sample(stats(captured=2, pending=1))
    assert found.recovery_seconds() is None
    told = story(found, stats())
    assert told is not None
    assert "up to 1 inference did" in told.plain
    assert "after it was back" not in told.plain
    console = Console(file=io.StringIO(), width=80)
    console.print(pace_table(found))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().splitlines()[-1].split() == ["Arthur", "away", "0", "-", "-"]


@pytest.mark.parametrize(("columns", "width"), [(100, 1), (40, 1), (39, 2), (10, 4)])
def test_the_timeline_fits(recording: Recording, columns: int, width: int) -> None:
    slices, seconds = recording.timeline(columns)
    assert seconds == width * 0.25
    assert len(slices) == 40 // width <= columns
    assert max(each.pending for each in slices) == 4
    assert any(each.away for each in slices)
    tokens = sum(each.tokens_per_second for each in slices) * seconds
    assert tokens == pytest.approx(50)


@pytest.mark.parametrize(
    ("counts", "answers", "stored", "line"),
    [
        ({"captured": 2, "delivered": 2}, 2, 2, "captured 2 = delivered 2: nothing is missing."),
        ({"captured": 1, "delivered": 1}, 1, 1, "captured 1 = delivered 1, but the model failed."),
        ({"captured": 2, "delivered": 2}, 2, None, "captured 2 = delivered 2: nothing is missing."),
        (
            {"captured": 3, "delivered": 1, "pending": 1, "dropped": {"overflow": 1}},
            4,
            1,
            "asked 4, captured 3, delivered 1: 3 missing (1 not captured, 1 pending, 1 dropped).",
        ),
        (
            {"captured": 2, "delivered": 2},
            2,
            1,
            "asked 2, captured 2, delivered 2: 1 missing (1 not stored).",
        ),
    ],
)
def test_verdicts(counts: dict[str, Any], answers: int, stored: int | None, line: str) -> None:
    verdict = judge(stats(**counts), answers=answers, turns=max(2, answers), stored=stored)
    assert verdict == (line, line.endswith("nothing is missing."))


def test_excerpts_are_one_line() -> None:
    assert excerpt("a\nb") == "a b"
    assert excerpt("x" * 1000, 10) == "x" * 9 + "…"


def test_what_the_relay_logs_becomes_notes(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("arthur_relay")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with logging_to(PlainView(1)):
        logging.getLogger("arthur_relay.delivery").info("something %s", "happened")
    assert (logger.level, logger.propagate, logger.handlers) == before
    assert capsys.readouterr().out == "-- log: something happened\n"
