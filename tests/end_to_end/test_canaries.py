"""No text and no credential is in any log line, count, sentence or exception, whatever happens.

Texts and credentials are canaries here, every logger is at DEBUG, and a handler keeps whatever an
error tracker could: the line, the arguments, tracebacks with the variables of their frames.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from arthur_relay import ArthurCallbackHandler, ConfigurationError, Inference, Relay, RelaySettings
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.encoding.privacy import HIDDEN, WITHHELD
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.end_to_end.canaries import (
    SECRETS,
    TEXT,
    assert_untold,
    capture_everything,
    handler_to,
    tokens_of,
)
from tests.end_to_end.conftest import API_KEY, PASSWORD, QUICK, Everything, check_invariant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay.sandbox import Faults

FAULTS: dict[str, Callable[[Faults], object]] = {
    "all is well": lambda faults: None,
    "4xx": lambda faults: faults.status(400, times=None),
    "5xx": lambda faults: faults.status(500, times=2),
    "429": lambda faults: faults.status(429, retry_after="0", times=1),
    "413": lambda faults: faults.status(413, times=None),
    "401 for ever": lambda faults: faults.status(401, times=None),
    "an expired token": lambda faults: faults.expire_tokens(),
    "rows refused": lambda faults: faults.fail_rows(every=2, status=400),
    "rows that fail once": lambda faults: faults.fail_rows(every=2, status=503, times=1),
    "not JSON": lambda faults: faults.not_json(times=None),
    "another length": lambda faults: faults.wrong_length(-1, times=1),
    "a redirect": lambda faults: faults.redirect("http://127.0.0.1:9/", times=2),
    "cut": lambda faults: faults.cut(times=2),
    "cut in mid-body": lambda faults: faults.cut_midbody(times=1),
}


@pytest.mark.parametrize("key", [False, True], ids=["login", "key"])
@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_told_whatever_arthur_does(
    fault: str,
    key: bool,
    canary_sandbox: ArthurSandbox,
    everything: Everything,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # asyncio's debug mode logs what its callbacks are given.
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    handler = handler_to(canary_sandbox, monkeypatch, key=key)
    FAULTS[fault](canary_sandbox.faults)
    capture_everything(handler)
    waits = fault == "401 for ever"
    result = handler.flush(2 if waits else 30)
    assert result.timed_out is waits
    relay = handler.relay
    stats, health = relay.stats(), relay.health()
    canary_sandbox.faults.reset()
    closed = relay.close()
    assert stats.captured == 5
    assert stats.capture_errors == stats.dropped["unreadable"] == stats.dropped["unencodable"] == 1
    secrets = (*SECRETS, *tokens_of(canary_sandbox))
    assert_untold(
        everything, secrets, stats, health, result, closed, relay, handler, relay.settings
    )
    assert_untold(everything, secrets, relay._host._destination, vars(relay._host._destination))
    assert any("could not be encoded" in line for line in everything.lines)


def test_nothing_is_told_when_the_worker_dies(
    canary_sandbox: ArthurSandbox, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_to(canary_sandbox, monkeypatch)
    host: Any = handler.relay._host
    sweep = host.sweep

    def dies() -> bool:
        prompt = TEXT
        host.sweep = sweep
        try:
            raise KeyError(prompt)
        except KeyError as error:
            raise ExceptionGroup(prompt, [ValueError(prompt), OSError(prompt)]) from error

    host.sweep = dies
    capture_everything(handler)
    assert handler.flush(30).pending == 0
    assert handler.relay.stats().worker_restarts == 1
    assert_untold(everything, SECRETS, handler.relay.stats(), handler.relay.health())
    (line,) = [line for line in everything.lines if "the worker died" in line]
    for kind in ("KeyError", "ValueError", "OSError", "in dies"):
        assert kind in line
    check_invariant(handler.relay, canary_sandbox)
    handler.relay.close()


def fails(text: str) -> str:
    raise ValueError(f"can't redact {text}")


@pytest.mark.parametrize(
    ("settings", "marker"),
    [
        ({"redact": fails}, WITHHELD),
        ({"redact": ["email", lambda _text: 5]}, WITHHELD),
        ({"redact": lambda text: text.replace(TEXT, "[mine]")}, "[mine]"),
    ],
)
def test_what_is_redacted_or_withheld_never_reaches_arthur(
    settings: dict[str, Any],
    marker: str,
    canary_sandbox: ArthurSandbox,
    everything: Everything,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = handler_to(canary_sandbox, monkeypatch, **settings)
    canary_sandbox.faults.status(500, times=1)
    capture_everything(handler)
    assert handler.flush(30).delivered == 3
    stats = handler.relay.stats()
    assert (stats.redaction_failures > 0) is (marker == WITHHELD)
    assert_untold(everything, SECRETS, stats, handler.relay.health())
    handler.relay.close()
    bodies = b"".join(request.body for request in canary_sandbox.requests)
    assert TEXT.encode() not in bodies
    assert TEXT not in json.dumps(canary_sandbox.inferences)
    assert marker in json.dumps(canary_sandbox.inferences)


def test_what_is_hidden_never_reaches_arthur(
    canary_sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_to(canary_sandbox, monkeypatch, hide_inputs=True, hide_outputs=True)
    run_id = uuid4()
    handler.on_chat_model_start(
        {}, [[HumanMessage(TEXT)]], run_id=run_id, metadata={"user_id": "u"}
    )
    handler.on_llm_error(ValueError(TEXT), run_id=run_id)
    answer = LLMResult(
        generations=[[ChatGeneration(message=AIMessage(TEXT), generation_info={"logprobs": None})]]
    )
    for text in (TEXT, HumanMessage(TEXT)):
        run_id = uuid4()
        if isinstance(text, str):
            handler.on_llm_start({}, [text], run_id=run_id)
        else:
            handler.on_chat_model_start({}, [[text]], run_id=run_id)
        handler.on_llm_end(answer, run_id=run_id)
    assert handler.flush(30).delivered == 3
    handler.relay.close()
    assert TEXT.encode() not in b"".join(request.body for request in canary_sandbox.requests)
    rows = [row["inference_data"] for row in canary_sandbox.inferences]
    assert {row["input_text"] for row in rows} == {row["output_text"] for row in rows} == {HIDDEN}
    (failed,) = [row for row in rows if row["outcome"] == "error"]
    assert (failed["error"], failed["user_id"]) == ("ValueError", "u")


# --- Credentials ------------------------------------------------------------------------------


def test_refused_credentials_are_not_told(
    everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[BaseException] = []
    with ArthurSandbox() as sandbox:
        settings = RelaySettings(**QUICK)
        arguments: list[tuple[Any, ...]] = [
            (sandbox.model_id, sandbox.url, "admin", PASSWORD),
            (sandbox.model_id, sandbox.url),
            (sandbox.model_id, f"http://admin:{PASSWORD}@127.0.0.1"),
            (sandbox.model_id, f"http://127.0.0.1?key={API_KEY}"),
            ("no-such-model", sandbox.url, "admin", "sandbox"),
        ]
        for each in arguments:
            monkeypatch.setenv("ARTHUR_API_KEY", API_KEY)
            with pytest.raises(ConfigurationError) as raised:
                ArthurCallbackHandler.from_credentials(*each, settings=settings)
            errors.append(raised.value)
            errors += filter(None, [raised.value.__cause__, raised.value.__context__])
        secrets = (PASSWORD, API_KEY, *tokens_of(sandbox))
    for error in errors:
        for text in (str(error), repr(error), *everything.lines):
            for secret in secrets:
                assert secret not in text


ECHOES = {
    "in the reason": "HTTP/1.1 400 {token}\r\nContent-Length: 0\r\n\r\n",
    "in a header": "HTTP/1.1 500 no\r\nX-Echo: {token}\r\nContent-Length: 0\r\n\r\n",
    "in a cookie": "HTTP/1.1 500 no\r\nSet-Cookie: a={token}\r\nContent-Length: 0\r\n\r\n",
    "in a broken header": "HTTP/1.1 500 no\r\n{token}\r\n\r\n",
    "in a broken status": "{token} {text}\r\n\r\n",
    "in the body": 'HTTP/1.1 207 x\r\nContent-Length: 99\r\n\r\n{{"results": "{text}{token}"}}',
    "in Retry-After": "HTTP/1.1 429 no\r\nRetry-After: {token}\r\nContent-Length: 0\r\n\r\n",
    "in Location": "HTTP/1.1 307 no\r\nLocation: http://{token}/\r\nContent-Length: 0\r\n\r\n",
}


@contextmanager
def echo_server(answer: str) -> Iterator[str]:
    """Run a server that answers with what it was sent; yields its address."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.recv(1 << 20)
                connection.sendall(answer.format(token=API_KEY, text=TEXT).encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("echo", ECHOES)
def test_what_a_server_echoes_is_not_told(
    echo: str, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", API_KEY)
    monkeypatch.setenv("ARTHUR_ORGANIZATION_ID", "org")
    with echo_server(ECHOES[echo]) as url:
        settings = RelaySettings(**QUICK, retry_max_elapsed_seconds=0.0)
        relay = Relay.from_credentials("m", url, settings=settings)
        relay._host.register(ModelSchema("m", LLM_ATTRIBUTES))
        relay.capture(Inference(input_text=TEXT, output_text=TEXT))
        result = relay.flush(30)
        stats, health = relay.stats(), relay.health()
        relay.close()
    assert result.delivered == result.pending == 0
    assert stats.requests == 1
    assert_untold(everything, SECRETS, result, stats, health)
    assert everything.lines


# --- The HTTP library's own log ---------------------------------------------------------------


def test_requests_of_the_application_are_logged_as_ever(
    canary_sandbox: ArthurSandbox, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = handler_to(canary_sandbox, monkeypatch)
    own: list[int] = []

    def asks(text: str) -> str:  # a redactor on the worker's thread, with requests of its own
        own.append(httpx.get(f"{canary_sandbox.url}/redactor").status_code)
        return text

    redacting = handler_to(canary_sandbox, monkeypatch, redact=asks)
    for each in (handler, redacting):
        capture_everything(each)
        each.flush(30)
    assert own
    httpx.get(f"{canary_sandbox.url}/own")

    async def ask() -> None:
        async with httpx.AsyncClient() as client:
            await client.get(f"{canary_sandbox.url}/async")

    asyncio.run(ask())
    logged = "\n".join(everything.lines)
    for path in ("/redactor", "/own", "/async"):
        assert f'{path} "HTTP/1.1 404' in logged
    assert "receive_response_headers.complete" in logged
    assert "/inferences" not in "".join(
        line for line in everything.lines if line.startswith(("httpx", "httpcore"))
    )
    for each in (handler, redacting):
        each.relay.close()
