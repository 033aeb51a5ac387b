"""deploy/systemd: systemd takes the units, finds little to complain about, and makes the rest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import pytest
import trustme

from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.broker.topology import SHARED_BYTES
from arthur_relay.daemon.configuration import load, unknown_variables
from arthur_relay.daemon.settings import RoleName
from arthur_relay.settings import RelaySettings
from tests.broker.servers import needed_binary

from .tools import DEPLOY, missing, run

SYSTEMD = DEPLOY / "systemd"
HOST = ["arthur-relay.service", "arthur-relay.socket"]
FLEET = ["arthur-relay-fleet@gateway.service", "arthur-relay-fleet@worker.service"]
NATS = "nats-server.service"
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
    for name in (*HOST, "arthur-relay-fleet@.service", NATS):
        shutil.copy(SYSTEMD / name, units)
    commands = ("opt/arthur-relay/bin/arthur-relay", "bin/kill", "usr/local/bin/nats-server")
    for command in commands:
        path = tmp_path / command
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("#!/bin/sh\n", encoding="ascii")
        path.chmod(0o755)
    return tmp_path


def test_systemd_has_nothing_to_say(root: Path) -> None:
    names = [*HOST, *FLEET, NATS]
    out = run("systemd-analyze", "verify", f"--root={root}", "--man=no", *names)
    # It also loads the machine's own units; theirs are not our lines.
    assert [line for line in out.splitlines() if "arthur" in line or "nats" in line] == []


@pytest.mark.parametrize("name", [HOST[0], *FLEET, NATS])
def test_the_exposure_is_below_2(root: Path, name: str) -> None:
    path = root / "usr/lib/systemd/system" / name
    if name in FLEET:
        path.symlink_to(f"{name.partition('@')[0]}@.service")
    limit = "--threshold=20"  # in tenths
    out = run("systemd-analyze", "security", "--offline=true", limit, "--no-pager", path)
    assert re.search(rf"Overall exposure level for {name}: [01]\.\d OK", out)


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


def test_a_fleets_unit_is_the_hosts_without_its_disk_and_its_socket() -> None:
    """What hardens the one hardens the other."""
    host, fleet = (unit(name)["Service"] for name in (HOST[0], "arthur-relay-fleet@.service"))
    differing = {name for name in host | fleet if host.get(name) != fleet.get(name)}
    assert differing == {
        "Environment",
        "ExecStart",
        "PrivateUsers",  # nobody's user id matters by TCP
        "StateDirectory",
        "StateDirectoryMode",
    }
    assert fleet["Environment"] == ["PYTHONDONTWRITEBYTECODE=1"]
    assert fleet["PrivateUsers"] == ["yes"]
    assert not any("StateDirectory" in name for name in fleet)
    assert fleet["ExecStart"] == [
        "/opt/arthur-relay/bin/arthur-relay serve --role %i --env-file /etc/arthur-relay/%i.env"
    ]


@pytest.mark.parametrize("role", ["gateway", "worker"])
def test_a_role_takes_its_settings(role: str, tmp_path: Path) -> None:
    text = (SYSTEMD / f"{role}.env").read_text(encoding="utf-8")
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "arthur-api-key").write_text("key\n", encoding="ascii")
    with mock.patch.dict(os.environ, {"CREDENTIALS_DIRECTORY": str(credentials)}, clear=True):
        variables = dict(
            line.split("=", 1) for line in text.splitlines() if re.match("[A-Z]", line)
        )
        assert not list(unknown_variables(variables))
        found = load(SYSTEMD / f"{role}.env", given={"ARTHUR_RELAY_DAEMON_ROLE": role})
    assert found.daemon.role is RoleName(role)
    assert found.products[0].credentials.api_key == "key"
    assert found.relay.spool_dir is None
    assert (found.daemon.listen is None) == (role == "worker")
    (stop,) = unit("arthur-relay-fleet@.service")["Service"]["TimeoutStopSec"]
    assert int(stop.removesuffix("s")) >= found.relay.shutdown_timeout_seconds + 10
    assert found.broker is not None
    hosts = [urlsplit(each).hostname for each in found.broker.servers]
    assert hosts == [urlsplit(each).hostname for each in found.broker.monitoring_urls]
    assert found.broker.uses_tls
    assert found.broker.has_credentials
    routes = re.findall(r"tls://(\S+):6222", (SYSTEMD / "nats.conf").read_text(encoding="utf-8"))
    assert hosts == routes


def test_a_gateway_and_a_worker_can_share_a_host() -> None:
    gateway, worker = (
        set(re.findall(r"LISTEN=\S+:(\d+)$", (SYSTEMD / f"{role}.env").read_text("utf-8"), re.M))
        for role in ("gateway", "worker")
    )
    assert (len(gateway), len(worker)) == (2, 1)
    assert not gateway & worker


def test_the_broker_takes_its_configuration(tmp_path: Path) -> None:
    """With files that are there, in the places of the host's own."""
    authority = trustme.CA()
    certificate = authority.issue_cert("nats-1.example")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    certificate.private_key_pem.write_to_path(tmp_path / "tls.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    text = (SYSTEMD / "nats.conf").read_text(encoding="utf-8")
    found = set(re.findall(r"_(?:file|dir): (\S+)", text))
    credentials = f"/run/credentials/{NATS}"
    service = unit(NATS)["Service"]
    assert found == {
        "/etc/nats/ca.crt",
        f"/var/lib/{service['StateDirectory'][0]}",
        *(f"{credentials}/{each.partition(':')[0]}" for each in service["LoadCredential"]),
    }
    for folder in (credentials, "/etc/nats", "/var/lib/nats"):
        text = text.replace(folder, str(tmp_path))
    path = tmp_path / "nats.conf"
    path.write_text(text, encoding="utf-8")
    (name,) = service["Environment"]
    subprocess.run([needed_binary(), "-t", "-c", path], env=dict([name.split("=", 1)]), check=True)
    assert service["ExecStart"] == ["/usr/local/bin/nats-server --config /etc/nats/nats.conf"]


def test_the_broker_keeps_what_it_acknowledges_and_has_time_to_hand_over() -> None:
    text = (SYSTEMD / "nats.conf").read_text(encoding="utf-8")
    fleets = (DEPLOY / "fleet" / "nats.conf").read_text(encoding="utf-8")
    for setting in ("sync_interval: always", "max_payload: 8MB", "max_file_store: 16GB"):
        assert re.search(rf"^ *{setting}$", text, re.MULTILINE)
        assert re.search(rf"^ *{setting}$", fleets, re.MULTILINE)
    assert BrokerSettings().bytes + RelaySettings().dead_letter_bytes + SHARED_BYTES < 16 << 30
    duck = [int(each) for each in re.findall(r"^lame_duck_\w+: (\d+)s$", text, re.MULTILINE)]
    (stop,) = unit(NATS)["Service"]["TimeoutStopSec"]
    assert len(duck) == 2
    assert int(stop.removesuffix("s")) >= sum(duck) + 30
