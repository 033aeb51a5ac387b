"""`arthur-relay dead-letters`, from any machine that reaches the fleet's broker."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from arthur_relay.cli.app import _app
from arthur_relay.encoding.product import Product
from tests.broker.fleet import Broker
from tests.broker.test_letters import keep
from tests.cli.engine import scope_letter, span_letter
from tests.environment import forget_arthur

if TYPE_CHECKING:
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.sandbox import ArthurSandbox

pytestmark = pytest.mark.one_python


@pytest.fixture(autouse=True)
def _of_another_machine(
    sandbox: ArthurSandbox, broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No directory, no file: the broker's address, and Arthur's."""
    forget_arthur(monkeypatch)
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", str(broker.url))
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_STREAM", broker.stream)


def run(*arguments: str, status: int = 0) -> str:
    result = CliRunner().invoke(_app, ["dead-letters", *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == status, result.output
    return result.output


def arrived(sandbox: ArthurSandbox) -> list[str]:
    return sorted(row["partner_inference_id"] for row in sandbox.inferences)


def test_letters_are_listed_shown_sent_again_and_removed(
    sandbox: ArthurSandbox, broker: BrokerSettings
) -> None:
    given = scope_letter(sandbox)
    row = json.loads(given.body)
    letters = [
        replace(
            given,
            inference_id=name,
            reason=reason,
            body=json.dumps({**row, "partner_inference_id": name}).encode(),
        )
        for name, reason in {"i1": "row 400", "i2": "row 400", "i3": "row 422"}.items()
    ]
    with Broker(broker) as there:
        keep(there, *letters)
    assert run("list").splitlines()[-1] == "3 dead letters, 2 row 400, 1 row 422"
    assert run("list", "--reason", "row 422").splitlines()[-1] == "1 dead letters, 1 row 422"
    assert json.loads(run("show", "i2"))["row"]["partner_inference_id"] == "i2"
    run("show", "i9", status=1)
    assert run("replay", "--dry-run") == "3 dead letters would be sent\n"
    sandbox.faults.fail_rows(containing="i2", status=400)
    output = run("replay", "--reason", "row 400", status=1)
    assert "1 of 2 dead letters were delivered, 1 are kept" in output
    assert arrived(sandbox) == ["i1"]
    assert run("list").splitlines()[-1] == "2 dead letters, 1 row 400, 1 row 422"
    assert run("purge", "--yes", "--reason", "row 422") == "1 dead letters were removed\n"
    sandbox.faults.reset()
    assert "1 of 1 dead letters were delivered, 0 are kept" in run("replay")
    assert arrived(sandbox) == ["i1", "i2"]
    assert run("replay") == "nothing to send\n"
    assert run("list") == "0 dead letters\n"


def test_letters_of_both_products_are_sent_to_the_product_that_each_is_for(
    sandbox: ArthurSandbox, broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Broker(broker) as there:
        keep(there, scope_letter(sandbox))
        keep(there, span_letter(sandbox), product=Product.ENGINE)
    assert "1 are left alone: they are for Arthur Engine" in run("replay", "--dry-run")
    monkeypatch.setenv("ARTHUR_BASE_URL", sandbox.url)
    monkeypatch.setenv("ARTHUR_ENGINE_API_KEY", sandbox.api_key)
    output = run("replay", "--adopt")
    assert output.count("1 of 1 dead letters were delivered, 0 are kept") == 2
    assert len(sandbox.inferences) == 1
    assert len(sandbox.spans) == 1
    assert run("list") == "0 dead letters\n"


def test_what_is_wrong_with_the_broker_is_one_sentence(
    broker: BrokerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = (
        "The dead letters can't be used: the broker can't be asked: it has no stream"
        f" {broker.stream}_DEAD."
    )
    for command in ("list", "purge", "replay"):
        assert missing in run(command, status=1)
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", "nats://127.0.0.1:1")
    monkeypatch.setattr("arthur_relay.broker.nats.connection.OPEN_SECONDS", 0.2)
    assert "the broker can't be asked: " in run("list", status=1)
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", "nats://example.com:4222")
    assert "without TLS the network sees prompts" in run("show", "i1", status=2)
    monkeypatch.setenv("ARTHUR_RELAY_BROKER_URL", "http://x")
    assert "ARTHUR_RELAY_BROKER_URL" in run("list", status=2)
