"""SECURITY.md says what is so: its bounds are the code's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from arthur_relay import accounting
from arthur_relay.daemon import api, clients, connection_slots, logs, measurements
from arthur_relay.daemon.json_rows import MAX_DEPTH
from arthur_relay.encoding.model import MAX_MODEL_CHARACTERS
from arthur_relay.http_server import framing
from arthur_relay.worker import model_inquiries

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| (.+?) \| (.+) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize(
    ("what", "numbers"),
    [
        ("a request's line, its headers", [framing.HEADER_BYTES, framing.HEAD_BYTES // 1024]),
        ("requests that wait behind", [framing.MOST_PIPELINED]),
        ("a body on its way", [framing.BODY_PIECE_BYTES // 1024]),
        ("the body of a login", [api.LOGIN_BYTES // 1024]),
        ("a model's id", [MAX_MODEL_CHARACTERS]),
        ("connections of each listener on which a view", [connection_slots.VIEWS_AT_ONCE]),
        ("the time of an idle connection", [clients.KEEP_ALIVE_SECONDS]),
        ("a client that goes on sending", [int(framing.LINGER_SECONDS)]),
        ("answers about models", [model_inquiries.ANSWERS_KEPT]),
        ("models that are counted by name", [accounting.MODELS]),
        ("kinds of log lines", [logs.KINDS_KEPT, measurements.ERRORS_KEPT]),
    ],
)
def test_the_bounds_are_those_of_the_code(what: str, numbers: list[int]) -> None:
    ((name, bound),) = [row for row in ROWS.items() if row[0].startswith(what)]
    found = re.findall(r"[0-9][0-9,]*", f"{name} {bound}")
    assert [int(each.rstrip(",").replace(",", "")) for each in found] == numbers


def test_the_depth_is_that_of_the_code() -> None:
    assert f"{MAX_DEPTH} levels at most" in PAGE


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", PAGE)
    assert len(named) > 3
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert set(named) <= there
