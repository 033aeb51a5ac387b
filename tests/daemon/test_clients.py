"""Clients of the daemon that change nothing but their address: this package's own handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import FakeListChatModel

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from arthur_relay.errors import CredentialsError, ModelError
from tests.daemon.process import DaemonProcess, arrived
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

TOKEN = "0123456789abcdef-0123"


@pytest.fixture(autouse=True)
def _no_arthur_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "LOGIN", "PASSWORD", "ENDPOINT_URL", "ORGANIZATION_ID", "MODEL_ID"):
        monkeypatch.delenv(f"ARTHUR_{name}", raising=False)


SETTINGS: dict[str, Any] = {
    "flush_interval_seconds": 0.0,
    "connect_timeout_seconds": 20.0,
    "shutdown_timeout_seconds": 20.0,
}


def talk(handler: ArthurCallbackHandler) -> str:
    """Have a conversation under a handler, and return the id of its inference."""
    answer = FakeListChatModel(responses=["Hello"]).invoke("Hi", {"callbacks": [handler]})
    assert answer.id is not None
    handler.close()
    assert handler.relay.close().pending == 0
    return answer.id.removeprefix("lc_run--").rsplit("-", 1)[0]


def test_the_handler_by_the_socket(
    daemon: DaemonProcess, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", f"unix://{daemon.socket}")
    monkeypatch.setenv("ARTHUR_MODEL_ID", sandbox.model_id)
    inference_id = talk(ArthurCallbackHandler.from_env(settings=RelaySettings(**SETTINGS)))
    wait_for(lambda: arrived(sandbox))
    (stored,) = sandbox.inferences
    assert stored["inference_data"]["input_text"] == "Human: Hi"
    assert stored["inference_data"]["output_text"] == "Hello"
    assert stored["partner_inference_id"] == inference_id


@pytest.mark.parametrize("by", ["key", "login"])
def test_the_handler_by_tcp(
    by: str,
    start: Callable[..., DaemonProcess],
    sandbox: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "tokens").write_text(f"# who may\nbilling:{TOKEN}\n")
    daemon = start(
        ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0",
        ARTHUR_RELAY_DAEMON_TOKENS_FILE=str(tmp_path / "tokens"),
    ).wait_until_ready()
    url = f"http://{daemon.address('taking rows on')}"
    settings = RelaySettings(**SETTINGS)
    if by == "key":
        monkeypatch.setenv("ARTHUR_API_KEY", TOKEN)
        handler = ArthurCallbackHandler.from_credentials(
            sandbox.model_id, arthur_url=url, settings=settings
        )
    else:
        handler = ArthurCallbackHandler.from_credentials(
            sandbox.model_id,
            arthur_url=url,
            arthur_login="billing",
            arthur_password=TOKEN,
            settings=settings,
        )
    inference_id = talk(handler)
    wait_for(lambda: arrived(sandbox) == [inference_id])
    assert TOKEN not in daemon.log
    assert "(http) from whoever has a token" in daemon.log
    with pytest.raises(CredentialsError):
        ArthurCallbackHandler.from_credentials(
            sandbox.model_id,
            arthur_url=url,
            arthur_login="billing",
            arthur_password="wrong",
            settings=settings,
        )


def test_by_tcp_without_tokens_anyone_on_the_machine_may_send_and_the_log_says_so(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start(ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0").wait_until_ready()
    monkeypatch.setenv("ARTHUR_API_KEY", "any")
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id,
        arthur_url=f"http://{daemon.address('taking rows on')}",
        settings=RelaySettings(**SETTINGS),
    )
    inference_id = talk(handler)
    wait_for(lambda: arrived(sandbox) == [inference_id])
    assert "(http) from anyone on this machine" in daemon.log


def test_a_wrong_model_is_told_by_arthur_through_the_daemon(
    daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="no model with id nope"):
        ArthurCallbackHandler.from_credentials(
            "nope",
            arthur_url=f"unix://{daemon.socket}",
            settings=RelaySettings(**SETTINGS),
        )


def test_ground_truth_and_code_without_langchain(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    with Relay.from_credentials(
        sandbox.model_id,
        f"unix://{daemon.socket}",
        settings=RelaySettings(**SETTINGS),
    ) as relay:
        relay.capture(Inference(input_text="a", output_text="b", inference_id="x"))
        relay.log_ground_truth("x", {"thumbs_up": True})
    wait_for(
        lambda: (
            [each.get("ground_truth_data") for each in sandbox.inferences] == [{"thumbs_up": True}]
        )
    )


def test_the_model_is_kept_for_a_start_while_arthur_is_away(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    path = f"/api/v3/models/{sandbox.model_id}?id_type=id&expand=attributes"
    first = start().wait_until_ready()
    told = first.client().get(path).json()
    assert told == first.client().get(path).json()
    by_partner = f"/api/v3/models/{told['partner_model_id']}?id_type=partner_model_id"
    assert first.client().get(by_partner).json() == told
    assert first.end() == 0
    sandbox.go_away()
    second = start().wait_until_ready()
    wait_for(lambda: second.client().get(path).status_code == 200)
    assert second.client().get(path).json() == told, "with all that the SDK wants to know"
    assert second.client().get(by_partner).json() == told
    unknown = second.client().get("/api/v3/models/other")
    assert unknown.status_code == 503
    assert unknown.headers["retry-after"] == "5"
