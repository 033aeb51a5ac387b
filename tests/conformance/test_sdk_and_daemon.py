"""The unchanged SDK and the old handler take the daemon for Arthur, and their rows get there."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
import trustme
from arthurai import ArthurAI
from arthurai.common.exceptions import (
    ArthurUserError,
    ResponseClientError,
    ResponseServerError,
    UserValueError,
)
from langchain_community.callbacks.arthur_callback import ArthurCallbackHandler
from langchain_core.outputs import Generation, LLMResult
from tests.daemon.process import DaemonProcess, arrived
from tests.waiting import wait_for

from arthur_relay.sandbox import ArthurSandbox

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.conformance

TOKEN = "0123456789abcdef-sdk"


@pytest.fixture
def daemon(sandbox: ArthurSandbox, tmp_path: Path) -> Iterator[DaemonProcess]:
    (tmp_path / "tokens").write_text(f"sdk:{TOKEN}\n")
    variables = {
        "ARTHUR_RELAY_DAEMON_LISTEN": "127.0.0.1:0",
        "ARTHUR_RELAY_DAEMON_TOKENS_FILE": str(tmp_path / "tokens"),
    }
    with ExitStack() as stack:
        started = DaemonProcess(sandbox, tmp_path, variables=variables)
        yield stack.enter_context(started).wait_until_ready()
        assert started.end() == 0, started.log


def connect(daemon: DaemonProcess, **credentials: Any) -> Any:
    url = f"http://{daemon.address('taking rows on')}"
    return ArthurAI(url=url, allow_insecure=True, verify_ssl=True, **credentials)


def row(inference_id: str) -> dict[str, Any]:
    return {"partner_inference_id": inference_id, "input_text": "Hi", "output_text": "Hello"}


@pytest.mark.parametrize("by", ["key", "login"])
def test_the_sdk(by: str, daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    given = {"access_key": TOKEN} if by == "key" else {"login": "sdk", "password": TOKEN}
    model = connect(daemon, **given).get_model(sandbox.model_id)
    answer = model.send_inferences([row("a"), row("b")])
    assert answer["counts"] == {"success": 2, "failure": 0, "total": 2}
    assert answer["results"][1]["partner_inference_id"] == "b"
    answer = model.update_inference_ground_truths([True, False], partner_inference_ids=["a", "b"])
    assert answer["counts"] == {"success": 2, "failure": 0, "total": 2}
    wait_for(
        lambda: (
            [each.get("ground_truth_data") for each in sandbox.inferences]
            == [{"thumbs_up": True}, {"thumbs_up": False}]
        )
    )
    stored = sandbox.inferences[0]
    assert stored["inference_data"] == {"input_text": "Hi", "output_text": "Hello"}


def test_the_sdk_finds_a_model_by_its_partners_id(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    arthur = connect(daemon, access_key=TOKEN)
    found = arthur.get_model("arthur-relay-demo", id_type="partner_model_id")
    assert found.id == sandbox.model_id
    assert {each.name for each in found.get_attributes()} >= {"input_text", "output_text"}


def test_the_sdk_is_told_what_is_wrong(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    with pytest.raises(UserValueError):
        connect(daemon, access_key="wrong")
    with pytest.raises(UserValueError):
        connect(daemon, login="sdk", password="wrong")
    arthur = connect(daemon, access_key=TOKEN)
    with pytest.raises(ResponseClientError, match="404"):
        arthur.get_model("nope")
    model = arthur.get_model(sandbox.model_id)
    with pytest.raises((ArthurUserError, ResponseClientError), match="partner_inference_id"):
        model.send_inferences([row("a"), row("")])
    wait_for(lambda: arrived(sandbox) == ["a"])


def test_the_sdk_does_not_notice_that_arthur_is_away(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    model = connect(daemon, access_key=TOKEN).get_model(sandbox.model_id)
    sandbox.go_away()
    assert model.send_inferences([row("a")])["counts"]["success"] == 1
    assert connect(daemon, access_key=TOKEN).get_model(sandbox.model_id).id == model.id
    with pytest.raises(ResponseServerError, match="503"):
        connect(daemon, access_key=TOKEN).get_model("unknown")
    sandbox.come_back()
    wait_for(lambda: arrived(sandbox) == ["a"])


def test_the_old_handler(
    sandbox: ArthurSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By TLS, because it takes no other address."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "pem")
    authority.cert_pem.write_to_path(tmp_path / "authority")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority"))
    (tmp_path / "tokens").write_text(f"old:{TOKEN}\n")
    variables = {
        "ARTHUR_RELAY_DAEMON_LISTEN": "127.0.0.1:0",
        "ARTHUR_RELAY_DAEMON_TOKENS_FILE": str(tmp_path / "tokens"),
        "ARTHUR_RELAY_DAEMON_TLS_CERTIFICATE": str(tmp_path / "pem"),
        "ARTHUR_RELAY_DAEMON_TLS_KEY": str(tmp_path / "pem"),
    }
    with DaemonProcess(sandbox, tmp_path, variables=variables) as daemon:
        daemon.wait_until_ready()
        port = daemon.address("taking rows on").rpartition(":")[2]
        handler = ArthurCallbackHandler.from_credentials(
            sandbox.model_id,
            arthur_url=f"https://localhost:{port}",
            arthur_login="old",
            arthur_password=TOKEN,
        )
        # Without the key it crashes, and the inference is lost.
        info = {"logprobs": None, "finish_reason": "stop"}
        run_id = uuid4()
        handler.on_llm_start({}, ["Hi"], run_id=run_id)
        result = LLMResult(generations=[[Generation(text="Hello", generation_info=info)]])
        handler.on_llm_end(result, run_id=run_id)
        wait_for(lambda: len(sandbox.inferences) == 1)
    data = sandbox.inferences[0]["inference_data"]
    assert (data["input_text"], data["output_text"]) == ("Hi", "Hello")
    assert data["finish_reason"] == "stop"
