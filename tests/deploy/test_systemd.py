"""deploy/systemd: systemd takes the units, finds little to complain about, and makes the rest."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from .tools import DEPLOY, missing, run

SYSTEMD = DEPLOY / "systemd"
UNITS = Path("/usr/lib/systemd/system")
ENVIRONMENT = "/etc/arthur-relay/arthur-relay.env"


def unit(name: str) -> dict[str, dict[str, list[str]]]:
    """Return a unit's sections, each with the values of its settings in their order."""
    sections: dict[str, dict[str, list[str]]] = {}
    for line in (SYSTEMD / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            section.setdefault(key, []).append(value)
    return sections


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files: its own units, ours, and something to start."""
    if not UNITS.is_dir():
        missing("there are no systemd units to verify against (Debian's package systemd)")
    units = tmp_path / "usr" / "lib" / "systemd" / "system"
    shutil.copytree(UNITS, units, symlinks=True)
    for name in ("arthur-relay.service", "arthur-relay.socket"):
        shutil.copy(SYSTEMD / name, units)
    for command in ("opt/arthur-relay/bin/arthur-relay", "bin/kill"):
        path = tmp_path / command
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n", encoding="ascii")
        path.chmod(0o755)
    return tmp_path


def test_systemd_has_nothing_to_say(root: Path) -> None:
    out = run(
        "systemd-analyze",
        "verify",
        f"--root={root}",
        "--man=no",
        "arthur-relay.service",
        "arthur-relay.socket",
    )
    # It also loads the machine's own units; theirs are not our lines.
    assert [line for line in out.splitlines() if "arthur" in line] == []


def test_the_exposure_is_below_2(root: Path) -> None:
    out = run(
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=20",  # in tenths
        "--no-pager",
        root / "usr/lib/systemd/system/arthur-relay.service",
    )
    assert re.search(r"Overall exposure level for arthur-relay.service: [01]\.\d OK", out)


def test_the_users_and_groups_are_those_of_the_units() -> None:
    out = run("systemd-sysusers", "--dry-run", SYSTEMD / "arthur-relay.sysusers")
    service, socket = unit("arthur-relay.service"), unit("arthur-relay.socket")
    (user,) = service["Service"]["User"]
    (group,) = socket["Socket"]["SocketGroup"]
    text = (SYSTEMD / "arthur-relay.sysusers").read_text(encoding="utf-8")
    assert re.search(rf"^u +{user} ", text, re.MULTILINE)
    assert re.search(rf"^g +{group} ", text, re.MULTILINE)
    assert "Failed" not in out


def test_the_directories_are_made(tmp_path: Path) -> None:
    out = run(
        "systemd-tmpfiles", "--create", f"--root={tmp_path}", SYSTEMD / "arthur-relay.tmpfiles"
    )
    assert out == ""
    (listen,) = unit("arthur-relay.socket")["Socket"]["ListenStream"]
    assert (tmp_path / listen.lstrip("/")).parent.is_dir()
    assert (tmp_path / ENVIRONMENT.lstrip("/")).parent.is_dir()


def test_the_key_is_no_variable_and_the_template_is_where_the_unit_looks() -> None:
    service = unit("arthur-relay.service")["Service"]
    assert service["ExecStart"] == [
        f"/opt/arthur-relay/bin/arthur-relay serve --env-file {ENVIRONMENT}"
    ]
    assert service["LoadCredential"] == ["arthur-api-key:/etc/arthur-relay/arthur-api-key"]


def test_stopping_is_given_longer_than_the_drain() -> None:
    service = unit("arthur-relay.service")["Service"]
    (stop,) = service["TimeoutStopSec"]
    template = (DEPLOY / "arthur-relay-daemon.env").read_text(encoding="utf-8")
    drain = re.search(r"^ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS=(\d+)$", template, re.MULTILINE)
    assert drain is not None
    assert int(stop.removesuffix("s")) >= int(drain[1]) + 10
