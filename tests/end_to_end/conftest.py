"""A sandbox and relays to it, over real sockets."""

from __future__ import annotations

import gc
import logging
import threading
import traceback
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.outputs import Generation, LLMResult

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from arthur_relay.destinations import http_logging
from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PASSWORD = "canary-password-9e27"
API_KEY = "canary-key-c03b"

QUICK: dict[str, Any] = {
    "flush_interval_seconds": 0.0,
    "retry_initial_seconds": 0.001,
    "retry_max_seconds": 0.01,
    "breaker_max_seconds": 0.02,
    "connect_timeout_seconds": 20.0,
    "shutdown_timeout_seconds": 20.0,
}


@pytest.fixture(autouse=True)
def _no_arthur_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)


@pytest.fixture
def left_sockets_are_collected() -> Iterator[None]:
    """Have sockets that are left to the collector collected before the next test.

    Cancelled in mid-handshake, httpcore leaves one: its `start_tls` closes it after an Exception
    only. A test that does so ignores the warning, and no other may have to answer for it.
    """
    gc.freeze()  # what was there before is not looked through: that takes longer than such a test
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("arthur-relay"):
            thread.join(60)
    gc.collect()
    gc.unfreeze()


@pytest.fixture
def canary_sandbox() -> Iterator[ArthurSandbox]:
    """A sandbox whose credentials are canaries."""
    with ArthurSandbox(password=PASSWORD, api_key=API_KEY) as running:
        yield running


@pytest.fixture
def settings() -> RelaySettings:
    return RelaySettings(**QUICK)


@pytest.fixture
def make_relay(sandbox: ArthurSandbox) -> Iterator[Callable[..., Relay]]:
    """Return a function that makes relays to the sandbox, all closed at the end."""
    made: list[Relay] = []

    def make(**settings: Any) -> Relay:
        relay = Relay.from_credentials(
            sandbox.model_id,
            arthur_url=sandbox.url,
            arthur_login=sandbox.login,
            arthur_password=sandbox.password,
            settings=RelaySettings(**{**QUICK, **settings}),
        )
        made.append(relay)
        return relay

    yield make
    sandbox.faults.reset()
    for relay in made:
        relay.close()


def capture(relay: Relay, *ids: str, text: str = "prompt") -> None:
    for inference_id in ids:
        relay.capture(Inference(input_text=text, output_text="answer", inference_id=inference_id))


def capture_through(handlers: list[ArthurCallbackHandler]) -> None:
    """Let a run of LangChain pass each handler."""
    for handler in handlers:
        run_id = uuid4()
        handler.on_llm_start({}, ["prompt"], run_id=run_id)
        handler.on_llm_end(LLMResult(generations=[[Generation(text="answer")]]), run_id=run_id)


def posts(sandbox: ArthurSandbox, *, since: int = 0) -> int:
    """Return how many requests carried rows."""
    return sum(
        request.method == "POST" and request.path.endswith("/inferences")
        for request in sandbox.requests[since:]
    )


def logins(sandbox: ArthurSandbox) -> int:
    return sum(request.path.endswith("/login") for request in sandbox.requests)


def check_invariant(relay: Relay, sandbox: ArthurSandbox) -> None:
    """Assert the invariant on both sides: what the relay says and what the server got."""
    stats = relay.stats()
    assert stats.captured == (
        stats.delivered + stats.rejected + sum(stats.dropped.values()) + stats.pending
    )
    assert stats.delivered == len(sandbox.inferences)
    # What is pending is what is left of a sum, so a row that got lost would hide in it.
    assert stats.pending == held(relay)


def held(relay: Relay) -> int:
    """Return how many rows a relay, which has nothing to do, really holds."""
    worker = relay._host.pipeline.worker
    waiting = sum(capture.rows for capture in worker.queue._items)
    return waiting + worker.admission.awaiting.rows + worker.buffer.intake.rows


class Everything(logging.Handler):
    """Keeps all that can be known of each record."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        parts = [record.name, record.getMessage(), repr(record.__dict__)]
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(told_of(record.exc_info[1]))
        self.lines.append("\n".join(parts))


def told_of(error: BaseException) -> str:
    """Return what a tracker of errors stores of one: the whole chain, with variables."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    return "".join(trace.format())


@pytest.fixture
def everything() -> Iterator[Everything]:
    """Put every logger to DEBUG, and collect."""
    collector = Everything()
    names = [None, *logging.root.manager.loggerDict, *http_logging.LOGGERS, "asyncio"]
    loggers = {logging.getLogger(name) for name in names}
    levels = {logger: logger.level for logger in loggers}
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    logging.root.addHandler(collector)
    yield collector
    logging.root.removeHandler(collector)
    for logger, level in levels.items():
        logger.setLevel(level)
