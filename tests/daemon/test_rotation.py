"""A key that is replaced while the daemon runs: acknowledged rows wait, and none is rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

NEW = "another-key-5d1f"


def test_a_key_in_a_file_is_read_again(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text(sandbox.api_key)
    daemon = start(ARTHUR_API_KEY="", ARTHUR_API_KEY_FILE=str(file)).wait_until_ready()
    client = daemon.client()
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    assert client.post(path, json=[row("before")]).status_code == 207
    wait_for(lambda: arrived(sandbox) == ["before"])
    sandbox._core.auth._api_key = NEW
    for name in ("a", "b", "c"):
        answer = client.post(path, json=[row(name)])
        assert answer.json()["counts"] == {"success": 1, "failure": 0, "total": 1}
    wait_for(lambda: "arthur_relay_credentials_refused 1.0" in client.get("/metrics").text)
    assert "Arthur lets us in again" in daemon.log
    assert daemon.log.count("Arthur lets us in again") == 1
    assert arrived(sandbox) == ["before"]
    metrics = client.get("/metrics").text
    assert "arthur_relay_pending_rows 3.0" in metrics
    assert "arthur_relay_rejected_total{" not in metrics
    file.write_text(NEW)
    wait_for(lambda: arrived(sandbox) == ["a", "b", "before", "c"])
    wait_for(lambda: "arthur_relay_credentials_refused 0.0" in client.get("/metrics").text)
    assert NEW not in daemon.log
