"""A handler of the application that blocks holds up no worker, no flush and no close."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from arthur_relay import Relay, RelaySettings
from arthur_relay.errors import UnreachableError
from arthur_relay.system import worker_logs
from arthur_relay.testing import MemoryDestination
from tests.relay.relays import inference
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.destinations.scope.schema import ModelSchema


class Blocking(logging.Handler):
    """Writes into a pipe that is full, as a standard error that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(self.writer, b"x" * 4096)
        os.set_blocking(self.writer, True)
        self.entered = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.entered.set()
        os.write(self.writer, record.getMessage().encode() + b"\n")

    def read(self) -> bytes:
        """Read what is there."""
        os.set_blocking(self.reader, False)
        with suppress(BlockingIOError):
            return os.read(self.reader, 1 << 20).lstrip(b"x")
        return b""


@pytest.fixture
def handler() -> Iterator[Blocking]:
    found = Blocking()
    log = logging.getLogger("arthur_relay")
    log.addHandler(found)
    before = log.level
    log.setLevel(logging.INFO)
    yield found
    log.setLevel(before)
    log.removeHandler(found)
    # Whoever is still writing goes on, and ends.
    wait_for(lambda: found.read() is not None and not logs_wait())
    os.close(found.reader)
    os.close(found.writer)


def logs_wait() -> bool:
    return any(thread.name == "arthur-relay-log" for thread in threading.enumerate())


class Late(MemoryDestination):
    """Does not tell of its models at first, which is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.is_back = False

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        if not self.is_back:
            raise UnreachableError("Arthur can't be reached at nowhere: refused")
        return await super().fetch_schema(model_id)


def test_the_worker_goes_on(handler: Blocking) -> None:
    late = Late()
    settings = RelaySettings(retry_max_seconds=0.01, flush_interval_seconds=0.0)
    with Relay(late, model_id="m", settings=settings) as relay:
        for number in range(100):
            relay.capture(inference(inference_id=f"r{number}"))
        assert handler.entered.wait(SECONDS)
        late.is_back = True
        assert not relay.flush(SECONDS).timed_out
        assert relay.stats().delivered == 100
        assert logs_wait(), "the line has not been written"
        text = b""

        def has_read() -> bool:
            nonlocal text
            text += handler.read()
            return b"Arthur answers again" in text

        wait_for(has_read)
        assert text.count(b"\n") == 2, "in their order, each once"
        assert text.index(b"is not known yet") < text.index(b"answers again")


def test_lines_that_give_way_are_counted_and_told(handler: Blocking) -> None:
    log = worker_logs.WorkerLogger("arthur_relay.worker", everywhere=True)
    log.warning("arthur-relay: first")
    assert handler.entered.wait(SECONDS)
    for number in range(worker_logs.MAX_LINES + 7):
        log.warning("arthur-relay: %d", number)
    written = b""

    def is_written() -> bool:
        nonlocal written
        # Looked at before the pipe is read: what the thread writes after a read and before its end
        # would be left in the pipe.
        has_ended = not logs_wait()
        written += handler.read()
        return has_ended

    wait_for(is_written)
    lines = written.decode().splitlines()
    assert lines[0] == "arthur-relay: first"
    assert lines[1].startswith("arthur-relay: 7 log lines are missing here")
    assert lines[2:] == [
        f"arthur-relay: {number}" for number in range(7, worker_logs.MAX_LINES + 7)
    ]


def test_a_close_in_vain_ends_in_time(handler: Blocking) -> None:
    relay = Relay(Late(), model_id="m", settings=RelaySettings())
    relay.capture(inference())
    assert handler.entered.wait(SECONDS)
    began_at = time.monotonic()
    assert relay.flush(0.1).timed_out
    result = relay.close(0.2)
    assert result.timed_out
    assert result.dropped == {"shutdown": 1}
    assert time.monotonic() - began_at < 5.0


def test_a_line_is_where_it_belongs_when_nothing_blocks(caplog: pytest.LogCaptureFixture) -> None:
    with Relay(MemoryDestination()) as relay:
        relay.capture(inference())
        relay.flush(SECONDS)
        (record,) = caplog.records
        assert record.pathname.endswith("encode_stage.py")
        assert record.threadName != "arthur-relay-log"
    assert not logs_wait()


PROGRAM = """
import os, sys
from arthur_relay import Inference, Relay, RelaySettings
from arthur_relay.testing import MemoryDestination

reader, writer = os.pipe()
os.set_blocking(writer, False)
try:
    while True:
        os.write(writer, b"x" * 4096)
except BlockingIOError:
    os.set_blocking(writer, True)
os.dup2(writer, 2)
relay = Relay(MemoryDestination())
relay.capture(Inference(input_text="a", output_text="b"))
relay.capture(Inference(input_text="a", output_text="b", model_id="m"))
print(relay.flush(10).delivered, relay.close(10).timed_out, flush=True)
os._exit(0)
"""


def test_without_any_handler_and_a_standard_error_that_nobody_reads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        timeout=SECONDS,
        check=True,
        text=True,
    )
    assert done.stdout == "1 False\n"
