"""A standard error that nobody reads, or that is closed, holds up nothing and ends nothing."""

from __future__ import annotations

import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.daemon import log_writer
from arthur_relay.daemon.log_writer import LogWriter
from tests.daemon.process import DaemonProcess, arrived, row
from tests.daemon.test_metrics import scrape
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from arthur_relay.sandbox import ArthurSandbox

FULL_PIPE = """
import fcntl, os
pipe = os.open({path!r}, os.O_RDWR)  # itself a reader, who never reads
os.set_blocking(pipe, False)
try:
    while True:
        os.write(pipe, b"x" * 4095 + b"\\n")
except BlockingIOError:
    os.set_blocking(pipe, True)
os.dup2(pipe, 2)
import sys
sys.stderr = open(2, "w", closefd=False)  # the former one remembers a file
"""

NO_READER = """
import os
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 2)
import sys
sys.stderr = open(2, "w", closefd=False)
"""


def works(daemon: DaemonProcess, sandbox: ArthurSandbox) -> httpx.Client:
    """Have it take and deliver a row, and say no to others so that it logs."""
    wait_for(daemon.socket.exists)  # it gets its name when it listens
    client = daemon.client()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    assert client.post(path, json=[row("a")]).status_code == 207
    wait_for(lambda: arrived(sandbox) == ["a"])
    return client


def test_a_pipe_that_nobody_reads_freezes_nothing(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    os.mkfifo(path)
    with DaemonProcess(sandbox, tmp_path, before=FULL_PIPE.format(path=str(path))) as daemon:
        client = works(daemon, sandbox)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            text = b""

            def has_read(what: bytes) -> bool:
                nonlocal text
                with suppress(BlockingIOError):
                    text += os.read(reader, 1 << 20)
                return what in text

            wait_for(lambda: has_read(b'"message": "ready: '))
        finally:
            os.close(reader)
        assert scrape(client)["log_lines_dropped_total"] == {(): 0}, "they have waited"
        assert daemon.end() == 0


def test_it_ends_in_time_though_the_last_lines_can_not_be_written(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    path = tmp_path / "stderr"
    os.mkfifo(path)
    with DaemonProcess(sandbox, tmp_path, before=FULL_PIPE.format(path=str(path))) as daemon:
        works(daemon, sandbox)
        assert daemon.end() == 0


def test_a_reader_that_has_gone_is_no_end(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    with DaemonProcess(sandbox, tmp_path, before=NO_READER) as daemon:
        client = works(daemon, sandbox)
        wait_for(lambda: scrape(client)["log_lines_dropped_total"][()] > 0)
        assert daemon.end() == 0


def test_a_standard_error_that_was_closed_before_the_start(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    prefix = ("sh", "-c", 'exec "$@" 2>&- >&- <&-', "sh")
    with DaemonProcess(sandbox, tmp_path, prefix=prefix) as daemon:
        works(daemon, sandbox)
        descriptors = Path(f"/proc/{daemon.process.pid}/fd")
        for number in range(3):  # else a file of the spool would be taken for standard error
            assert str((descriptors / str(number)).readlink()) == os.devnull
        assert daemon.end() == 0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            continue


def record(message: str, *values: Any) -> logging.LogRecord:
    return logging.LogRecord("arthur_relay", logging.INFO, "", 0, message, values, None)


def test_what_is_dropped_is_counted_and_told_when_it_goes_on(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    monkeypatch.setattr(log_writer, "LAST_SECONDS", 30.0)
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):  # full from the start, so that no line goes meanwhile
        while True:
            os.write(writer, b"\n" * 4096)
    os.set_blocking(writer, True)
    lines = LogWriter(writer)
    for number in range(3000):
        lines.emit(record(f"%d {'x' * 1000}", number))
    taken = lines.dropped
    assert taken > 1000
    text = b""
    os.set_blocking(reader, False)

    def has_read() -> bool:
        nonlocal text
        with suppress(BlockingIOError):
            text += os.read(reader, 1 << 20)
        return b"log lines were dropped" in text

    wait_for(has_read)
    found = re.findall(rb"^(\d+) x", text, re.MULTILINE)
    assert [int(each) for each in found] == list(range(3000 - taken)), "in order, the oldest"
    assert f"{taken} log lines were dropped".encode() in text
    lines.emit(record("again"))
    lines.flush()
    lines.close()
    assert lines.dropped == taken


def test_a_line_that_can_not_be_made_costs_no_other(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LogWriter(writer)
    lines.emit(record("%d", "no number"))
    lines.emit(record("good \ud800"))
    lines.close()
    assert os.read(reader, 1000) == b"arthur-relay: a log line could not be made\ngood \\ud800\n"


def test_an_exception_that_nobody_catches_is_logged(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    code = """
import threading
from arthur_relay.daemon import logs
log_uncaught = logs.log_uncaught
def fails():
    raise ValueError("canary")
def log_uncaught_and_fail(log):
    log_uncaught(log)
    threading.Thread(target=fails, name="mine", daemon=True).start()
logs.log_uncaught = log_uncaught_and_fail
"""
    with DaemonProcess(sandbox, tmp_path, before=code) as daemon:
        daemon.wait_for_log("mine raised ValueError")
        daemon.wait_until_ready()
        assert "canary" not in daemon.log
        for line in daemon.log.splitlines():
            json.loads(line)
