"""How far the draining is: a live line on a terminal, log lines elsewhere."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from arthur_relay.daemon import draining
from arthur_relay.daemon.draining import report_draining, sentence
from arthur_relay.daemon.log_writer import CLEAR, LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_python


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The two ends of a terminal: the user's, and the program's."""
    user, program = os.openpty()
    yield user, program
    os.close(user)
    os.close(program)


def test_it_says_what_is_left_and_how_much_time() -> None:
    found = sentence(1234, passed_seconds=12.4, limit_seconds=30.0)
    assert found == "draining: 1,234 rows left, 12 s of 30 s"


async def report(log: LogWriter | None, *, looks: int) -> None:
    """Report until so many looks were taken at the rows."""
    left = [3] * looks
    over = asyncio.Event()

    def rows_left() -> int:
        if len(left) == 1:
            over.set()
        return left.pop() if left else 0

    deadline = time.monotonic() + 30.0
    task = asyncio.create_task(
        report_draining(rows_left, deadline=deadline, limit_seconds=30.0, log=log)
    )
    await over.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="this system has no terminals")
def test_on_a_terminal_a_line_is_renewed_and_taken_away(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "LOOK_SECONDS", 0.0)
    user, program = terminal
    log = LogWriter(program)
    assert log.is_terminal
    asyncio.run(report(log, looks=1))
    log.flush()
    log.show("draining")
    log.flush()
    log.emit(logging.LogRecord("arthur_relay", logging.INFO, "", 0, "stopped", (), None))
    log.close()
    text = b""
    while not text.endswith(b"stopped\r\n"):  # a terminal hands on what it has by now
        text += os.read(user, 4096)
    assert text.startswith(b"draining: 3 rows left, 0 s of 30 s")
    assert text.endswith(b"draining" + CLEAR + b"stopped\r\n"), "no line is written into another"


def test_elsewhere_it_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "LOG_SECONDS", 0.0)
    reader, writer = os.pipe()
    log = LogWriter(writer)
    with caplog.at_level(logging.INFO, logger="arthur_relay.daemon"):
        asyncio.run(report(log, looks=2))
        asyncio.run(report(None, looks=1))
    log.close()
    os.close(writer)
    assert os.read(reader, 100) == b"", "nothing is shown"
    os.close(reader)
    texts = [record.getMessage() for record in caplog.records]
    assert texts[:3] == ["draining: 3 rows left, 0 s of 30 s"] * 3
