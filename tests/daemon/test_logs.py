"""Log lines: JSON, for people, and never a flood."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from arthur_relay.daemon.logs import BURST, EVERY_SECONDS, ConsoleLines, JsonFormatter, RateLimit
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.daemon.process import DaemonProcess


def record(message: str, *values: Any, name: str = "arthur_relay", **more: Any) -> Any:
    return logging.LogRecord(name, logging.WARNING, "", 0, message, values, more.get("exc_info"))


def test_a_kind_of_line_does_not_flood_the_others() -> None:
    clock = Clock()
    limit = RateLimit(clock)
    passed = [limit.filter(record("refused: %s", each)) for each in range(100)]
    assert passed == [True] * BURST + [False] * (100 - BURST)
    assert limit.filter(record("something else"))
    assert limit.filter(record("refused: %s", 1, name="another"))
    clock.now += EVERY_SECONDS
    told = record("refused: %s", "again")
    assert limit.filter(told)
    assert told.held_back == 100 - BURST
    assert not limit.filter(record("refused: %s", "again"))
    clock.now += 1000 * EVERY_SECONDS
    assert [limit.filter(record("refused: %s", 1)) for _ in range(BURST + 1)] == (
        [True] * BURST + [False]
    ), "what was not used is not saved up beyond a burst"


def test_kinds_are_forgotten() -> None:
    limit = RateLimit(Clock())
    for number in range(5000):
        assert limit.filter(record(f"line {number}"))
    assert len(limit._kinds) <= 1000


def test_json() -> None:
    told = record("%d rows", 3)
    line = json.loads(JsonFormatter().format(told))
    assert (line["level"], line["logger"], line["message"]) == (
        "warning",
        "arthur_relay",
        "3 rows",
    )
    assert line["time"].endswith("+00:00")
    assert "held_back" not in line
    told.held_back = 7
    try:
        raise ValueError("why")
    except ValueError:
        told.exc_info = sys.exc_info()
    line = json.loads(JsonFormatter().format(told))
    assert line["held_back"] == 7
    assert line["error"].endswith("ValueError: why")


def test_for_people() -> None:
    told = record("%d rows", 3)
    assert ConsoleLines().format(told).endswith("WARNING 3 rows")
    told.held_back = 7
    assert ConsoleLines().format(told).endswith("3 rows (and 7 more like it)")


def test_mistyped_variables_are_told_at_the_start_its_own_among_them(
    start: Callable[..., DaemonProcess],
) -> None:
    variables = {"ARTHUR_RELAY_DAEMON_MAX_ROW": "canary", "ARTHUR_RELAY_BATCH_SZIE": "canary"}
    daemon = start(**variables).wait_until_ready()
    assert daemon.end() == 0
    assert daemon.log.count("did you mean ARTHUR_RELAY_DAEMON_MAX_ROWS?") == 1
    assert daemon.log.count("did you mean ARTHUR_RELAY_BATCH_SIZE?") == 1
    assert "canary" not in daemon.log
