"""Canaries: texts and credentials that must not be found where they do not belong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from tests.end_to_end.conftest import API_KEY, PASSWORD, QUICK, Everything

if TYPE_CHECKING:
    import pytest

    from arthur_relay.sandbox import ArthurSandbox

TEXT = "canary-text-5d1c"
SECRETS = (TEXT, PASSWORD, API_KEY)


class Unprintable:
    """A text that is none, and says so with the text."""

    def __str__(self) -> str:
        raise ValueError(TEXT)

    __repr__ = __str__


def capture_everything(handler: ArthurCallbackHandler) -> None:
    """Capture runs and inferences whose every text is a canary; one can't be encoded."""
    common: dict[str, Any] = {"tags": [TEXT], "metadata": {"user_id": TEXT, "note": [TEXT]}}
    for answer in (None, TEXT):
        run_id = uuid4()
        handler.on_chat_model_start({}, [[HumanMessage(TEXT)]], run_id=run_id, **common)
        if answer is None:
            handler.on_llm_error(ValueError(TEXT), run_id=run_id)
            continue
        message = AIMessage(
            answer,
            tool_calls=[{"name": "f", "args": {"x": TEXT}, "id": "1", "type": "tool_call"}],
            response_metadata={"logprobs": {"content": [{"token": TEXT, "logprob": -0.1}]}},
        )
        handler.on_llm_end(
            LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id
        )
    no_messages: Any = [TEXT]
    handler.on_chat_model_start({}, no_messages, run_id=uuid4())
    relay = handler.relay
    attributes = {"user_id": TEXT, "error": TEXT}
    relay.capture(
        Inference(
            input_text=TEXT, output_text=TEXT, attributes=attributes, model_id=handler.model_id
        )
    )
    unprintable: Any = Unprintable()
    relay.capture(Inference(input_text=unprintable, output_text=TEXT, model_id=handler.model_id))


def assert_untold(everything: Everything, secrets: tuple[str, ...], *objects: object) -> None:
    """Assert that no secret is in what was logged, nor in what these objects print."""
    printed = [f"{thing!r} {thing!s}" for thing in objects]
    for text in everything.lines + printed:
        for secret in secrets:
            assert secret not in text


def tokens_of(sandbox: ArthurSandbox) -> tuple[str, ...]:
    """Return the credentials that went over the wire: the key, or each login's JWT."""
    found = {request.headers.get("authorization", API_KEY) for request in sandbox.requests}
    return (*found, *[part for token in found for part in token.split(".") if len(part) > 20])


def handler_to(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, *, key: bool = False, **settings: Any
) -> ArthurCallbackHandler:
    """Return a handler with a relay of its own, that authenticates by key or by login."""
    if key:
        monkeypatch.setenv("ARTHUR_API_KEY", API_KEY)
    relay = Relay.from_credentials(
        sandbox.model_id,
        sandbox.url,
        None if key else sandbox.login,
        None if key else sandbox.password,
        settings=RelaySettings(**{**QUICK, **settings}),
    )
    return ArthurCallbackHandler(relay=relay)
