"""Model ids that are steps in a path: refused where they are given, and never sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from arthur_relay.credentials import Credentials
from arthur_relay.destinations.http import HttpOptions
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.model import is_path_segment
from arthur_relay.errors import ConfigurationError, ModelError
from arthur_relay.row import Batch, Row, Verdict
from arthur_relay.testing import MemoryDestination

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

STEPS = [
    *[".", "..", "%2e", "%2E%2e", ".%2e", "%252e%252e", "%25252e%25252e", "..;x", " .. ", "..%3b"],
    *["a/../b", "../b", "a%2f..", "a%252f%252e%252e", "a\\..", "a%5c..", "/", "a//b", "a\nb"],
    *["a%0d%0ab", "a\x00", "%" + "25" * 20 + "2e"],
]
FINE = ["9c7f0b4e-7b6c-4d1a-8a0e-3c5d2f1e0a9b", "a.b", "...", "a..b", "team/model", "100%", "Ä 1"]


@pytest.mark.parametrize("model_id", STEPS)
def test_steps_are_seen(model_id: str) -> None:
    assert not is_path_segment(model_id)


@pytest.mark.parametrize("model_id", FINE)
def test_ids_are_not_taken_for_steps(model_id: str) -> None:
    assert is_path_segment(model_id)


@pytest.mark.parametrize("model_id", ["..", "%2e%2e"])
def test_they_are_refused_where_they_are_given(
    model_id: str, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="step in a path"):
        Relay(MemoryDestination(), model_id=model_id)
    for name, value in (sandbox.environment() | {"ARTHUR_MODEL_ID": model_id}).items():
        monkeypatch.setenv(name, value)
    for make in (Relay.from_env, ArthurCallbackHandler.from_env):
        with pytest.raises(ConfigurationError, match="step in a path"):
            make()
    with pytest.raises(ConfigurationError, match="step in a path"):
        ArthurCallbackHandler.from_credentials(model_id, arthur_url=sandbox.url)
    assert sandbox.requests == []


@pytest.mark.anyio
@pytest.mark.parametrize("model_id", ["..", "%2e%2e", "../../x"])
async def test_they_are_no_part_of_a_request(model_id: str, sandbox: ArthurSandbox) -> None:
    destination = ScopeDestination(
        Credentials(sandbox.url, api_key=sandbox.api_key, organization_id="sandbox-org"),
        options=HttpOptions(
            connections=1,
            timeout_seconds=30.0,
            max_age_seconds=300.0,
            retry_after_max_seconds=1.0,
        ),
    )
    async with destination:
        for by_partner_id in (True, False):
            with pytest.raises(ModelError, match="no model"):
                await destination.fetch_model(model_id, by_partner_id=by_partner_id)
        attempt = await destination.deliver(Batch(model_id, (Row("a", model_id, b"{}"),)))
    assert [outcome.verdict for outcome in attempt.outcomes] == [Verdict.REJECTED]
    assert sandbox.requests == []


def test_an_inference_that_names_one_costs_itself(
    sandbox: ArthurSandbox, settings: RelaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    with Relay.from_env(settings=settings) as relay:
        relay.capture(Inference(input_text="x", output_text="y", model_id=".."))
        relay.capture(Inference(input_text="x", output_text="y"))
        result = relay.flush(30)
    assert (result.delivered, result.rejected) == (1, 1)
    assert not any("/.." in request.path for request in sandbox.requests)
