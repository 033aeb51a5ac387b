"""An environment that means Arthur Engine, and what is left of its spans."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from arthur_relay.dead_letters import DeadLetter
from arthur_relay.row import RowKind
from tests.destinations.engine.models import answer, chat
from tests.destinations.engine.spans import feedback, row

if TYPE_CHECKING:
    from typing import Any

    import pytest

    from arthur_relay.row import Row
    from arthur_relay.sandbox import ArthurSandbox

SECRET = "the words of a user"


def mean_engine(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, *, key: str | None = None
) -> None:
    """Set the variables of the Engine, and none of Scope."""
    monkeypatch.delenv("ARTHUR_MODEL_ID", raising=False)
    for name, value in sandbox.engine_environment(api_key=key).items():
        monkeypatch.setenv(name, value)


def leave_inferences(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, count: int = 3
) -> None:
    """Leave inferences for Scope in the spool, because Arthur has gone away."""
    mean_scope(sandbox, monkeypatch)
    settings = RelaySettings(flush_interval_seconds=0, shutdown_timeout_seconds=0.5)
    with Relay.from_env(settings=settings) as relay:
        relay.connect(sandbox.model_id)
        sandbox.go_away()
        for number in range(count):
            relay.capture(Inference(input_text="q", output_text="a", inference_id=f"i{number}"))
        assert relay.close().pending == count


def leave_spans(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
    """Leave spans for the Engine in the spool, because it has gone away."""
    mean_engine(sandbox, monkeypatch)
    settings = RelaySettings(flush_interval_seconds=0, shutdown_timeout_seconds=0.5)
    handler = ArthurCallbackHandler.from_env(settings=settings)
    sandbox.go_away()
    for _ in range(count):
        chat(answer("Hello")).invoke("Hi", config={"callbacks": [handler]})
    assert handler.relay.close().pending == count


def mean_scope(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables of Scope, and none of the Engine."""
    for name in ("ARTHUR_BASE_URL", "ARTHUR_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)


def letter(
    sandbox: ArthurSandbox, found: Row, *, reason: str = "http 400", status: int | None = 400
) -> DeadLetter:
    return DeadLetter(
        inference_id=found.id,
        model_id=found.model_id,
        kind=found.kind,
        reason=reason,
        status=status,
        attempts=1,
        rejected_at=datetime(2026, 11, 25, 12, 0, tzinfo=UTC),
        destination=sandbox.url,
        body=found.body,
    )


def span_letter(
    sandbox: ArthurSandbox,
    number: int = 1,
    *,
    reason: str = "http 400",
    status: int | None = 400,
    **options: Any,
) -> DeadLetter:
    options = {"name": "ChatOpenAI", "input__value": SECRET, **options}
    found = row(number, task=sandbox.task_id, **options)
    return letter(sandbox, found, reason=reason, status=status)


def feedback_letter(sandbox: ArthurSandbox, number: int = 1) -> DeadLetter:
    body = b'{"annotation_score":1,"annotation_description":"good"}'
    return letter(sandbox, feedback(number, task=sandbox.task_id, body=body), status=404)


def scope_letter(sandbox: ArthurSandbox) -> DeadLetter:
    return DeadLetter(
        inference_id="i1",
        model_id=sandbox.model_id,
        kind=RowKind.INFERENCE,
        reason="row 400",
        status=400,
        attempts=1,
        rejected_at=datetime(2026, 11, 25, tzinfo=UTC),
        destination=sandbox.url,
        body=b'{"partner_inference_id":"i1","inference_timestamp":"2026-11-25T12:00:00Z",'
        b'"inference_data":{"input_text":"q","output_text":"a"}}',
    )
