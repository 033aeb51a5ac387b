"""The filter on the HTTP library's loggers: for our requests only, once, and not by an import."""

from __future__ import annotations

import importlib.util
import logging
import re
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from arthur_relay.destinations import http_logging
from arthur_relay.destinations.http import Answer
from arthur_relay.errors import safe_traceback
from arthur_relay.row import Batch, Row


def sources_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return "".join(
        path.read_text(encoding="utf-8") for path in Path(spec.origin).parent.rglob("*.py")
    )


def test_every_logger_of_the_http_library_is_known() -> None:
    for package in ("httpcore", "httpx"):
        found = set(re.findall(r'getLogger\("([^"]+)"\)', sources_of(package)))
        assert found
        assert found <= set(http_logging.LOGGERS)
    # What they are built on has none that could tell.
    assert "getLogger" not in sources_of("h11")


def test_an_import_changes_no_logger() -> None:
    code = (
        "import logging, arthur_relay.relay, arthur_relay.callback, arthur_relay.destinations.http;"
        "names = list(logging.root.manager.loggerDict);"
        "assert not any(logging.getLogger(name).filters for name in names), names"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_installing_it_twice_is_harmless() -> None:
    for _ in range(3):
        http_logging.install()
    for name in http_logging.LOGGERS:
        assert logging.getLogger(name).filters.count(http_logging._NOT_OURS) == 1


def test_a_logger_that_a_later_version_adds_is_covered() -> None:
    later = logging.getLogger("httpcore.quic")
    http_logging.install()
    assert http_logging._NOT_OURS in later.filters


def test_only_what_happens_within_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    http_logging.install()
    caplog.set_level(logging.DEBUG, logger="httpcore.http11")
    log = logging.getLogger("httpcore.http11").debug

    async def ours(started: anyio.Event, go_on: anyio.Event) -> None:
        with http_logging.unlogged():
            log("ours")
            async with anyio.create_task_group() as group:
                group.start_soon(child)
                started.set()
                await go_on.wait()
            log("ours")

    async def child() -> None:
        log("ours")

    async def test() -> None:
        started, go_on = anyio.Event(), anyio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(ours, started, go_on)
            await started.wait()
            log("another task")
            go_on.set()
        log("afterwards")

    anyio.run(test)
    assert [record.getMessage() for record in caplog.records] == ["another task", "afterwards"]


def test_what_carries_texts_does_not_print_them() -> None:
    row = Row("id", "m", b"canary")
    answer = Answer(200, {"set-cookie": "canary"}, b"canary", {"Authorization": "canary"})
    assert "canary" not in repr([row, Batch("m", (row,)), answer])


def test_an_error_is_told_without_its_texts() -> None:
    def raises() -> None:
        try:
            raise KeyError("canary")
        except KeyError as error:
            raise ExceptionGroup("canary", [ValueError("canary"), OSError("canary")]) from error

    with pytest.raises(ExceptionGroup) as raised:
        raises()
    error = raised.value
    error.exceptions[0].__cause__ = error  # a circle
    told = safe_traceback(error)
    for kind in ("ExceptionGroup", "ValueError", "OSError", "KeyError"):
        assert told.count(f"{kind}, from:") == 1
    assert "in raises" in told
    # The line of the source is told, the text that it made is not.
    assert "canary" not in told.replace('("canary"', "")
