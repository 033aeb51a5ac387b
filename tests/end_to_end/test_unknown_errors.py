"""What the HTTP stack raises and nobody knows: a mock library's, in an application's tests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import httpx
import pytest

from tests.end_to_end.conftest import capture, check_invariant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox

TIMES = 4
"""As often as it takes to reject a batch whose answer is not understood, and once more."""


class AllMockedAssertionError(AssertionError):
    """As respx has it."""


class CannotOverwriteExistingCassetteException(Exception):  # noqa: N818 - as VCR.py has it
    """As VCR.py has it."""


class OutcomeException(BaseException):
    """What `pytest.fail()` raises is no `Exception`."""


ERRORS: list[Callable[[], BaseException]] = [
    lambda: AllMockedAssertionError("RESPX: some request is not mocked: secret prompt"),
    lambda: CannotOverwriteExistingCassetteException("no match for the request"),
    lambda: ConnectionError("responses: Connection refused"),
    lambda: RuntimeError("A test tried to use socket.socket."),
    lambda: TypeError("object MagicMock can't be used in 'await' expression"),
    lambda: StopAsyncIteration("no more responses"),
    lambda: ExceptionGroup("several", [ValueError("one"), KeyError("two")]),
    lambda: asyncio.CancelledError("someone else's"),
    lambda: OutcomeException("this request was not expected"),
    KeyboardInterrupt,
    lambda: SystemExit(3),
]

ROUTES = {
    "login": "/login",
    "who we are": "/users/me",
    "model": "/models/",
    "inferences": "/inferences",
}


class Breaking:
    """Stands before the network, and raises in some requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: Callable[[str], bool]) -> None:
        self.raised = 0
        self._fails = fails
        self._send = httpx.AsyncHTTPTransport.handle_async_request
        breaking = self

        async def handle(
            transport: httpx.AsyncHTTPTransport, request: httpx.Request
        ) -> httpx.Response:
            return await breaking.handle(transport, request)

        monkeypatch.setattr(httpx.AsyncHTTPTransport, "handle_async_request", handle)

    async def handle(
        self, transport: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        if self._fails(request.url.path) and self.raised < TIMES:
            self.raised += 1
            return await self.broken(transport, request)
        return await self._send(transport, request)

    async def broken(
        self, transport: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        raise NotImplementedError


def check_that_all_arrives(make_relay: Callable[..., Relay], sandbox: ArthurSandbox) -> None:
    """Assert that what was captured arrives, and that no error was taken for an answer."""
    relay = make_relay(connect="lazy", max_in_flight=1)
    capture(relay, "mine")
    result = relay.flush(30)
    stats = relay.stats()
    assert (result.delivered, result.rejected, result.dropped) == (1, 0, {})
    assert (stats.malformed_answers, stats.worker_restarts) == (0, 0)
    assert [row["partner_inference_id"] for row in sandbox.inferences] == ["mine"]
    check_invariant(relay, sandbox)


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda make: type(make()).__name__)
def test_an_error_that_nobody_knows_is_an_attempt_that_failed(
    path: str,
    error: Callable[[], BaseException],
    sandbox: ArthurSandbox,
    make_relay: Callable[..., Relay],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Raising(Breaking):
        async def broken(self, *_: object) -> httpx.Response:
            raise error()

    breaking = Raising(monkeypatch, lambda asked: asked.startswith("/api/v3") and path in asked)
    check_that_all_arrives(make_relay, sandbox)
    assert breaking.raised == TIMES
    assert "secret prompt" not in caplog.text


class Broken(httpx.AsyncByteStream):
    """An answer that breaks off in the middle."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"counts": '
        raise self._error


@pytest.mark.parametrize("path", ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("error", ERRORS, ids=lambda make: type(make()).__name__)
def test_also_while_the_answer_is_read(
    path: str,
    error: Callable[[], BaseException],
    sandbox: ArthurSandbox,
    make_relay: Callable[..., Relay],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Interrupting(Breaking):
        async def broken(self, *_: object) -> httpx.Response:
            return httpx.Response(200, stream=Broken(error()))

    Interrupting(monkeypatch, lambda asked: path in asked)
    check_that_all_arrives(make_relay, sandbox)


def test_an_answer_that_is_none_is_an_attempt_that_failed(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a test that replaces the client's own method may return: no request is set.
    answers: list[Any] = [MagicMock(), httpx.Response(200, json={}), None, MagicMock(), "answer"]
    send = httpx.AsyncClient.send

    async def answer(client: httpx.AsyncClient, *given: Any, **named: Any) -> Any:
        if answers:
            return answers.pop()
        return await send(client, *given, **named)

    monkeypatch.setattr(httpx.AsyncClient, "send", answer)
    check_that_all_arrives(make_relay, sandbox)
    assert not answers


def test_a_client_that_fails_when_it_is_closed_ends_the_worker_all_the_same(
    make_relay: Callable[..., Relay], monkeypatch: pytest.MonkeyPatch
) -> None:
    close = httpx.AsyncClient.aclose

    async def fail(client: httpx.AsyncClient) -> None:
        await close(client)
        raise AssertionError("some requests were never made")

    monkeypatch.setattr(httpx.AsyncClient, "aclose", fail)
    relay = make_relay(connect="lazy")
    assert not relay.close(30).timed_out
    assert not relay._host.pipeline.runtime.is_alive
    assert relay.stats().worker_restarts == 0
