"""Log lines: JSON, for people, and never a flood."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.daemon.logs import (
    BURST,
    EVERY_SECONDS,
    ConsoleLines,
    JsonFormatter,
    RateLimit,
    logging_for,
    products_named,
)
from arthur_relay.daemon.measurements import RecentErrors
from arthur_relay.encoding.product import Product
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


def test_a_line_names_its_product(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("arthur_relay.daemon.intake")
    errors = {product: RecentErrors() for product in Product}
    limit = RateLimit(Clock())
    with ExitStack() as stack:
        stack.enter_context(products_named())
        for product, recent in errors.items():
            recent.product = product
            stack.enter_context(recent.listening())
        with logging_for(Product.ENGINE):
            for _ in range(BURST + 1):
                logger.warning("rows are put off")
        with logging_for(Product.SCOPE):
            logger.warning("rows are put off")
        logger.warning("a client is refused")
    logger.warning("after the end")
    passed = [each for each in caplog.records if limit.filter(each)]
    assert len(passed) == len(caplog.records) - 1, "each product has lines of its own"
    engine, scope, whole, after = (passed[at] for at in (0, -3, -2, -1))
    assert json.loads(JsonFormatter().format(engine))["product"] == "Arthur Engine"
    assert ConsoleLines().format(scope).endswith("WARNING Arthur Scope: rows are put off")
    for each in (whole, after):
        assert "product" not in json.loads(JsonFormatter().format(each))
        assert ConsoleLines().format(each).endswith(f"WARNING {each.getMessage()}")
    times = {
        product: {each.text: each.times for each in recent.latest()}
        for product, recent in errors.items()
    }
    assert times == {
        Product.SCOPE: {"rows are put off": 1, "a client is refused": 1},
        Product.ENGINE: {"rows are put off": BURST + 1, "a client is refused": 1},
    }


def test_mistyped_variables_are_told_at_the_start_its_own_among_them(
    start: Callable[..., DaemonProcess],
) -> None:
    variables = {"ARTHUR_RELAY_DAEMON_MAX_ROW": "canary", "ARTHUR_RELAY_BATCH_SZIE": "canary"}
    daemon = start(**variables).wait_until_ready()
    assert daemon.end() == 0
    assert daemon.log.count("did you mean ARTHUR_RELAY_DAEMON_MAX_ROWS?") == 1
    assert daemon.log.count("did you mean ARTHUR_RELAY_BATCH_SIZE?") == 1
    assert "canary" not in daemon.log
