"""What is shown on a terminal: nothing that it would obey, or hide."""

from __future__ import annotations

import json
import logging
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from arthur_relay.cli import dead_letters
from arthur_relay.cli.demo.screen import PlainView
from arthur_relay.cli.report import Report
from arthur_relay.cli.top_view import view
from arthur_relay.daemon.logs import ConsoleLines, JsonFormatter
from arthur_relay.dead_letters import DeadLetter
from arthur_relay.row import RowKind
from arthur_relay.system.terminal import printable, printable_document

NASTY = "a\x1b]0;owned\x07\x9b2J\u202eb\u200b\u2066\ufeff\u2028\x7f\r\n\u00ad\U000e0041"
ESCAPED = (
    r"a\u001b]0;owned\u0007\u009b2J\u202eb\u200b\u2066\ufeff\u2028\u007f\u000d\u000a\u00ad"
    r"\udb40\udc41"
)


def is_harmless(text: str) -> bool:
    return not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in text)


def test_control_characters_can_be_read() -> None:
    assert printable(NASTY) == ESCAPED
    assert printable("Grüße 🙂 日本 é \\ \"x\" 'y'") == "Grüße 🙂 日本 é \\ \"x\" 'y'"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\u001b"
    assert printable("\ud800") == r"\ud800"
    assert printable("\u3164\u115f") == r"\u3164\u115f"


@given(st.text())
def test_json_stays_what_it_was(text: str) -> None:
    shown = printable(json.dumps({text: text}, ensure_ascii=False))
    assert is_harmless(shown)
    assert json.loads(shown) == {text: text}


def test_documents() -> None:
    assert printable_document({NASTY: [NASTY, 1, None]}) == {ESCAPED: [ESCAPED, 1, None]}


def record(message: str, **more: Any) -> logging.LogRecord:
    found = logging.LogRecord("arthur_relay", 30, "x.py", 1, "a %s", (message,), None)
    found.__dict__.update(more)
    return found


def test_log_lines() -> None:
    for formatter in (ConsoleLines(), JsonFormatter()):
        line = formatter.format(record(NASTY))
        assert is_harmless(line)
        assert "owned" in line
    try:
        raise ValueError("\x1b[2J")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    lines = ConsoleLines().format(record("b", exc_info=info)).split("\n")
    assert len(lines) > 3
    assert all(map(is_harmless, lines))


def test_what_a_check_says(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report.wrong("Arthur", NASTY)
    report.show("title")
    out = capsys.readouterr().out
    assert all(map(is_harmless, out.split("\n")))
    assert ESCAPED in out


def test_what_the_demo_says(capsys: pytest.CaptureFixture[str]) -> None:
    PlainView(1).note(NASTY)
    assert capsys.readouterr().out == f"-- {ESCAPED}\n"


def test_what_top_shows() -> None:
    model = dict.fromkeys(("captured", "delivered", "pending", "rejected", "dropped"), 1)
    rates = {"accepted_per_second": 1.0, "delivered_per_second": 1.0}
    status: dict[str, Any] = {
        "version": NASTY,
        "uptime_seconds": 1.0,
        "destination": NASTY,
        "now": "2026-06-07T12:00:13+00:00",
        "state": {"kind": "good", "title": NASTY, "detail": NASTY},
        "rows": {
            **dict.fromkeys(("captured", "rejected", "dropped"), 1),
            "delivered": 1,
            "rejected_by_reason": {NASTY: 1},
            "dropped_by_reason": {NASTY: 1},
        },
        "rates": rates,
        "history": [],
        "queue": {
            **dict.fromkeys(("rows", "bytes", "spool_rows", "spool_bytes", "fullness"), 1),
            "oldest_age_seconds": 1.0,
            "spool_limit_bytes": 2,
        },
        "delivery": {
            **dict.fromkeys(("breaker_opened", "in_flight", "requests", "retries"), 1),
            "breaker": NASTY,
            "in_flight_limit": 4,
            "seconds": {"p50": 0.1, "p95": 0.1},
        },
        "intake": {"connections": {}, "rows": {}, "seconds": {"p50": 0.1, "p95": 0.1}},
        "dead_letters": {"kept": 1},
        "models": [{"id": NASTY, **model}],
        "errors": [{"text": NASTY, "times": 1, "at": "2026-06-07T12:00:13+00:00"}],
    }
    console = Console(width=400, record=True, force_terminal=False)
    with console.capture() as captured:
        for given in (status, None):
            console.print(view(given, problem=NASTY, width=400, height=40, footer=NASTY))
        console.print(view(status, problem="", width=400, height=40, footer=NASTY))
    lines = captured.get().split("\n")
    assert all(map(is_harmless, lines))
    assert sum(ESCAPED in line for line in lines) > 6


class OneLetter:
    def letters(self) -> list[tuple[int, DeadLetter]]:
        row = json.dumps({"text": NASTY}, ensure_ascii=False).encode()
        moment = datetime(2026, 6, 7, tzinfo=UTC)
        letter = DeadLetter(
            inference_id=NASTY,
            model_id=NASTY,
            kind=RowKind.INFERENCE,
            reason=NASTY,
            status=400,
            attempts=1,
            rejected_at=moment,
            destination=NASTY,
            body=row,
        )
        return [(1, letter)]


def test_what_dead_letters_show(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "settings_of_environment", lambda: None)
    monkeypatch.setattr(dead_letters, "_all_stores", lambda _: OneLetter())
    dead_letters.run_list(reasons=(), with_text=True)
    dead_letters.run_show(NASTY)
    out = capsys.readouterr().out
    assert all(map(is_harmless, out.split("\n")))
    assert out.count(ESCAPED) >= 4
    shown = json.loads(out[out.index("{\n") :])
    assert shown["row"] == {"text": NASTY}
    assert shown["inference_id"] == NASTY
