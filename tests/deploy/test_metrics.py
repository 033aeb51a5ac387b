"""The names that alerts and dashboard go by are those that a daemon really serves."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

from .metrics import FAMILIES, OTHERS
from .tools import tool

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def exposition(sandbox: ArthurSandbox, tmp_path: Path) -> str:
    """What /metrics says of a daemon that has delivered a row."""
    with DaemonProcess(sandbox, tmp_path) as daemon:
        client = daemon.wait_until_ready().client()
        client.post(
            f"/api/v3/models/{sandbox.model_id}/inferences",
            headers={"Authorization": "any"},
            json=[row("one")],
        )
        wait_for(lambda: arrived(sandbox) == ["one"])

        def settled() -> str:
            # Arthur has a row a moment before the daemon has read the answer that says so.
            found = client.get("/metrics").text
            return found if "arthur_relay_delivered_total{" in found else ""

        return wait_for(settled)


def types(exposition: str) -> dict[str, str]:
    """Return the type of each family of metrics."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.MULTILINE))


def test_they_are_served_with_their_types(exposition: str) -> None:
    found = types(exposition)
    for family in FAMILIES:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert found.pop(name) == family.type, name
    assert {name for name in found if name.startswith("arthur_relay")} == set()
    for name in OTHERS - {"up"}:
        assert name in found


def test_what_is_asked_for_by_label_has_it(exposition: str) -> None:
    for sample in (
        'captured_total{model="',
        'delivered_total{model="',
        'requests_total{outcome="answered"}',
        'intake_requests_total{method="POST",status="207"}',
        'intake_rows_total{status="accepted"}',
        'build_info{python="',
    ):
        assert f"\narthur_relay_{sample}" in exposition, sample


def test_promtool_has_nothing_to_say(exposition: str) -> None:
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"],
        input=exposition,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
