"""deploy/systemd on a systemd that runs: installed by the README's commands, used, ill-treated."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import ssl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trustme

from arthur_relay.sandbox import ArthurSandbox
from tests.broker.servers import ReservedPort, needed_binary
from tests.daemon.process import arrived, row
from tests.waiting import wait_for

from .machine import Machine
from .readme import README, command

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = "/etc/arthur-relay/arthur-relay.env"
SOCKET = "/run/arthur-relay/relay.sock"
SEND = """
import os, sys, httpx
transport = httpx.HTTPTransport(uds="/run/arthur-relay/relay.sock")
with httpx.Client(transport=transport, base_url="http://relay", timeout=30) as client:
    answer = client.post(
        f"/api/v3/models/{os.environ['MODEL']}/inferences",
        headers={"Authorization": "any"},
        content=os.environ["ROWS"],
    )
sys.exit(f"{answer.status_code} {answer.text}")
"""


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox() as running:
        yield running


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, sandbox: ArthurSandbox) -> Iterator[Machine]:
    """A machine on which someone has followed the README, line by line."""
    folder = tmp_path_factory.mktemp("machine") / "folder"
    folder.mkdir()
    with Machine(folder) as machine:
        machine.run(command("units"))
        machine.run(
            f"""
            echo {sandbox.api_key} > /etc/arthur-relay/arthur-api-key
            sed -i s,^ARTHUR_ENDPOINT_URL=.*,ARTHUR_ENDPOINT_URL={sandbox.url}, {SETTINGS}
            # Not the network's port, which is the tests' own as well; and quicker than by default.
            sed -i s,^ARTHUR_RELAY_DAEMON_METRICS_LISTEN=,#, {SETTINGS}
            echo ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS=0.01 >> {SETTINGS}
            echo ARTHUR_RELAY_RETRY_MAX_SECONDS=0.1 >> {SETTINGS}
            echo ARTHUR_RELAY_BREAKER_MAX_SECONDS=0.1 >> {SETTINGS}
            useradd --create-home application
            usermod --append --groups arthur-relay-clients application
            useradd --create-home stranger
            """
        )
        machine.run(command("start"))
        yield machine


@pytest.fixture
def client(machine: Machine) -> Iterator[httpx.Client]:
    with connected(machine) as client:
        yield client


def connected(machine: Machine) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(machine.path(SOCKET)))
    return httpx.Client(transport=transport, base_url="http://relay", timeout=60)


def post(client: httpx.Client, sandbox: ArthurSandbox, *names: str, token: str = "any") -> int:
    answer = client.post(
        f"/api/v3/models/{sandbox.model_id}/inferences",
        headers={"Authorization": token},
        json=[row(name) for name in names],
    )
    return answer.status_code


def send_as(machine: Machine, sandbox: ArthurSandbox, user: str, name: str) -> str:
    """Send a row as a user of the machine; returns the status and the answer, or the error."""
    return machine.run(
        f"{as_user(user)} /opt/arthur-relay/bin/python -c {shlex.quote(SEND)}",
        check=False,
        MODEL=sandbox.model_id,
        ROWS=json.dumps([row(name)]),
    )


def as_user(user: str) -> str:
    return f"setpriv --reuid={user} --regid={user} --init-groups"


def wait_until_arrived(sandbox: ArthurSandbox, *names: str) -> None:
    wait_for(lambda: set(names) <= set(arrived(sandbox)))


@contextmanager
def setting(machine: Machine, line: str, *, restart: bool = False) -> Iterator[None]:
    """Have a line in the settings for a while, if wanted with a restart at both ends."""
    again = "; systemctl restart arthur-relay" if restart else ""
    machine.run(f"cp {SETTINGS} /run/settings; echo '{line}' >> {SETTINGS}{again}")
    try:
        yield
    finally:
        machine.run(f"cat /run/settings > {SETTINGS}{again}")


@contextmanager
def drop_in(machine: Machine, text: str) -> Iterator[None]:
    """Have lines in the unit for a while, and the daemon started with them and then without."""
    folder = "/run/systemd/system/arthur-relay.service.d"
    machine.run(f"mkdir -p {folder}; printf '[Service]\\n{text}\\n' > {folder}/test.conf")
    machine.run("systemctl daemon-reload; systemctl restart arthur-relay")
    try:
        yield
    finally:
        machine.run(f"rm -r {folder}; systemctl daemon-reload; systemctl reset-failed")
        machine.run("systemctl restart arthur-relay")


def test_the_readmes_commands_bring_it_up(machine: Machine, client: httpx.Client) -> None:
    assert machine.property("ActiveState") == "active"
    assert machine.property("UnitFileState") == "enabled"
    assert machine.property("UnitFileState", "arthur-relay.socket") == "enabled"
    assert re.fullmatch(r"\d+ rows wait, \d+ are delivered\.", machine.property("StatusText"))
    assert client.get("/readyz").status_code == 200
    shown = machine.run(f"stat --format='%A %U %G' {SOCKET} /var/lib/arthur-relay")
    assert shown.splitlines() == [
        "srw-rw---- root arthur-relay-clients",
        "drwx------ arthur-relay arthur-relay",
    ]


def test_the_process_has_no_rights(machine: Machine) -> None:
    status = Path(machine.path(f"/proc/{machine.property('MainPID')}/status"))
    found = dict(re.findall(r"^(\w+):\s+(.*)$", status.read_text(encoding="ascii"), re.MULTILINE))
    assert found["Uid"].split()[0] == machine.run("id -u arthur-relay").strip()
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"


def test_the_key_is_in_no_environment(machine: Machine, sandbox: ArthurSandbox) -> None:
    pid = machine.property("MainPID")
    variables = machine.run(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    assert "CREDENTIALS_DIRECTORY=" in variables
    assert sandbox.api_key not in variables
    assert sandbox.api_key not in machine.journal()


def test_the_group_may_send_and_nobody_else(machine: Machine, sandbox: ArthurSandbox) -> None:
    assert send_as(machine, sandbox, "application", "by-application").startswith("207 ")
    assert "Permission denied" in send_as(machine, sandbox, "stranger", "by-stranger")
    wait_until_arrived(sandbox, "by-application")
    assert "by-stranger" not in arrived(sandbox)


def test_the_example_application_sends_through_it(machine: Machine, sandbox: ArthurSandbox) -> None:
    before = len(arrived(sandbox))
    out = machine.run(
        f"{as_user('application')} /opt/arthur-relay/bin/python deploy/example/application.py",
        ARTHUR_ENDPOINT_URL=f"unix://{SOCKET}",
        ARTHUR_API_KEY="relay",
        ARTHUR_MODEL_ID=sandbox.model_id,
        EXAMPLE_PAUSE_SECONDS="0.01",
        EXAMPLE_QUESTIONS="5",
    )
    assert "delivered=5" in out
    wait_for(lambda: len(arrived(sandbox)) == before + 5)


def test_user_ids_are_the_senders_own(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    """What PrivateUsers= would make of them is one id for all."""
    application = machine.run("id -u application").strip()
    with setting(machine, f"ARTHUR_RELAY_DAEMON_ALLOWED_UIDS={application}"):
        machine.run("systemctl reload arthur-relay")
        wait_for(lambda: post(client, sandbox, "by-root") == 403)
        assert send_as(machine, sandbox, "application", "allowed").startswith("207 ")
    machine.run("systemctl reload arthur-relay")
    wait_for(lambda: post(client, sandbox, "by-root-again") == 207)


def test_a_reload_of_nonsense_changes_nothing(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    pid = machine.property("MainPID")
    with setting(machine, "ARTHUR_RELAY_DAEMON_MAX_ROWS=many"):
        machine.run("systemctl reload arthur-relay")
        wait_for(lambda: "nothing is reloaded" in machine.journal())
        assert post(client, sandbox, "after-nonsense") == 207
    assert machine.property("MainPID") == pid
    assert machine.property("ActiveState") == "active"


def test_no_request_is_refused_while_it_restarts(machine: Machine, sandbox: ArthurSandbox) -> None:
    pid = machine.property("MainPID")
    machine.run("systemctl restart --no-block arthur-relay")
    names: list[str] = []

    def restarted_after_a_request() -> bool:
        names.append(f"while-it-restarts-{len(names)}")
        # A connection of its own each time: none is refused, one that waits is served afterwards.
        with connected(machine) as client:
            assert post(client, sandbox, names[-1]) == 207
        return machine.property("MainPID") not in (pid, "0")

    wait_for(restarted_after_a_request)
    wait_until_arrived(sandbox, *names)


def test_what_it_acknowledged_survives_kill_9(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    names = [f"before-the-kill-{number}" for number in range(20)]
    sandbox.faults.status(503, times=None)
    try:
        assert post(client, sandbox, *names) == 207
        pid = machine.property("MainPID")
        machine.run("systemctl kill --signal=KILL --kill-who=main arthur-relay")
        wait_for(lambda: machine.property("MainPID") not in (pid, "0"))
        assert not set(names) & set(arrived(sandbox))
    finally:
        sandbox.faults.reset()
    wait_until_arrived(sandbox, *names)
    assert sandbox.duplicates == 0


def test_dead_letters_are_listed_and_sent_again_as_the_readme_says(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    listed = command("letters")
    letters = listed.removesuffix("$letters list")
    assert letters != listed
    sandbox.faults.fail_rows(containing="rejected-once")
    try:
        assert post(client, sandbox, "rejected-once") == 207
        wait_for(lambda: "rejected-once" in machine.run(listed))
    finally:
        sandbox.faults.reset()
    named = dict.fromkeys(re.findall(r"`(\$letters [^`]+)`", README))
    assert (
        "$letters replay --reason 'http 401' --reason 'http 403' --reason 'login refused'" in named
    )
    for each in named:
        machine.run(letters + each.replace("ID", "rejected-once"), check="purge" not in each)
    wait_until_arrived(sandbox, "rejected-once")
    assert "rejected-once" not in machine.run(listed)


def test_what_waits_in_the_spool_is_listed_as_the_readme_says(machine: Machine) -> None:
    assert re.search(r"\d+ inferences wait in \d+ files", machine.run(command("spool")))


def test_the_check_before_a_start_says_what_would_be(
    machine: Machine, sandbox: ArthurSandbox
) -> None:
    machine.run("systemctl stop arthur-relay.service arthur-relay.socket", check=False)
    try:
        assert "the daemon would start, and rows will reach Arthur" in machine.run(command("check"))
        with setting(machine, "ARTHUR_RELAY_BATCH_SIZE=none"):
            found = machine.run(command("check"), check=False)
            assert "ARTHUR_RELAY_BATCH_SIZE" in found
            assert "The daemon would not start" in found
        assert sandbox.api_key not in found
    finally:
        machine.run("systemctl reset-failed; systemctl start arthur-relay.socket arthur-relay")
    shown = machine.run(f"/opt/arthur-relay/bin/arthur-relay top --once --socket {SOCKET}")
    assert shown.startswith("arthur-relay ")


def test_it_starts_while_arthur_is_away(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    sandbox.faults.status(503, times=None)
    try:
        machine.run("systemctl restart arthur-relay")  # ends when it is ready
        assert post(client, sandbox, "while-away") == 207
        assert client.get("/readyz").status_code == 200
    finally:
        sandbox.faults.reset()
    wait_until_arrived(sandbox, "while-away")


def test_a_stop_keeps_the_rows_and_the_socket_starts_it_again(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    sandbox.faults.status(503, times=None)
    with setting(machine, "ARTHUR_RELAY_SHUTDOWN_TIMEOUT_SECONDS=1", restart=True):
        try:
            assert post(client, sandbox, "kept") == 207
            machine.run("systemctl stop arthur-relay", check=False)
            assert machine.property("ActiveState") == "inactive"
            assert machine.property("ExecMainStatus") == "0"
        finally:
            sandbox.faults.reset()
        assert post(client, sandbox, "started-by-this") == 207
        assert machine.property("ActiveState") == "active"
        wait_until_arrived(sandbox, "kept", "started-by-this")


def test_a_loop_that_hangs_is_ended_by_the_watchdog(
    machine: Machine, sandbox: ArthurSandbox, client: httpx.Client
) -> None:
    with drop_in(machine, "WatchdogSec=5s"):
        pid = machine.property("MainPID")
        machine.run(f"kill -{signal.SIGSTOP.name.removeprefix('SIG')} {pid}")
        wait_for(lambda: machine.property("MainPID") not in (pid, "0"))
        assert "Watchdog timeout" in machine.journal()
        assert post(client, sandbox, "after-the-watchdog") == 207


def test_a_wrong_setting_is_said_once_and_not_tried_again(machine: Machine) -> None:
    with setting(machine, "ARTHUR_RELAY_BATCH_SIZE=none"):
        machine.run("systemctl restart arthur-relay", check=False)
        wait_for(lambda: machine.property("ActiveState") == "failed")
        assert machine.property("ExecMainStatus") == "2"
        assert machine.property("NRestarts") == "0"
        assert "ARTHUR_RELAY_BATCH_SIZE" in machine.journal()
    machine.run("systemctl reset-failed; systemctl restart arthur-relay.socket arthur-relay")
    assert machine.property("ActiveState") == "active"


FLEET = "nats-server arthur-relay-fleet@gateway arthur-relay-fleet@worker"
FLEET_PORTS = (4222, 8222, 8443, 9464, 9465)
TOKEN = "the-token-of-the-application"


@pytest.fixture
def ports() -> Iterator[dict[int, int]]:
    """Ports of the test's own in the places of the fleet's: the network is this machine's."""
    found = {each: ReservedPort() for each in FLEET_PORTS}
    yield {each: port.number for each, port in found.items()}
    for port in found.values():
        port.close()


@pytest.fixture
def fleet(machine: Machine, sandbox: ArthurSandbox, ports: dict[int, int]) -> Iterator[trustme.CA]:
    """The units of one of the three hosts; as it is the only one, its server has no cluster."""
    shutil.copy(needed_binary(), machine.path("/usr/local/bin/nats-server"))
    machine.run(command("broker"))
    machine.run(command("fleet"))
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    files = {
        "/etc/nats/tls": (issued.cert_chain_pems[0], issued.private_key_pem),
        "/etc/arthur-relay/broker": (issued.cert_chain_pems[0], issued.private_key_pem),
        "/etc/arthur-relay/gateway": (issued.cert_chain_pems[0], issued.private_key_pem),
    }
    for name, (certificate, key) in files.items():
        certificate.write_to_path(machine.path(f"{name}.crt"))
        key.write_to_path(machine.path(f"{name}.key"))
    authority.cert_pem.write_to_path(machine.path("/etc/nats/ca.crt"))
    authority.cert_pem.write_to_path(machine.path("/etc/arthur-relay/broker-ca.crt"))
    numbers = "; ".join(f"s/:{each}/:{number}/g" for each, number in ports.items())
    machine.run(
        f"""
        echo {sandbox.api_key} > /etc/arthur-relay/arthur-api-key
        cd /etc/arthur-relay
        echo application:{TOKEN} > tokens
        chmod 0600 /etc/nats/tls.key
        chown root:arthur-relay tokens broker.key gateway.key
        chmod 0640 tokens broker.key gateway.key
        sed -i '/^cluster/,$ d; s/grace_period: 5s/grace_period: 1s/; {numbers}' /etc/nats/nats.conf
        sed -i -E 's#((tls|http)://)nats-1.example(:[0-9]+)[^ ]*#\\1localhost\\3#; {numbers}' *.env
        sed -i s,^ARTHUR_ENDPOINT_URL=.*,ARTHUR_ENDPOINT_URL={sandbox.url}, worker.env gateway.env
        for role in gateway worker; do
          echo ARTHUR_RELAY_BROKER_REPLICAS=1 >> $role.env
          echo ARTHUR_RELAY_BROKER_ALLOW_UNREPLICATED=true >> $role.env
          echo ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS=0.01 >> $role.env
        done
        """
    )
    try:
        yield authority
    finally:
        machine.run(f"systemctl kill --signal=KILL {FLEET}", check=False)
        machine.run(f"systemctl disable --quiet --now {FLEET}", check=False)


def test_a_fleets_units_come_up_as_the_readme_says_and_outlive_the_brokers_restart(
    machine: Machine, sandbox: ArthurSandbox, fleet: trustme.CA, ports: dict[int, int]
) -> None:
    # The broker's server may not answer yet when it is asked first.
    ready = "Ready: the daemon would start, and rows will reach Arthur"
    wait_for(lambda: machine.run(command("check-fleet"), check=False).count(ready) == 2)
    told = machine.run(command("start-fleet"), check=False)
    for name in FLEET.split():
        unit = f"{name}.service"
        assert machine.property("ActiveState", unit) == "active", told + machine.journal(unit)
        assert machine.property("UnitFileState", f"{name}.service") == "enabled"
    context = ssl.create_default_context()
    fleet.configure_trust(context)
    with httpx.Client(
        verify=context,
        base_url=f"https://localhost:{ports[8443]}",
        timeout=60,
    ) as client:
        assert post(client, sandbox, "by-the-fleet", token=TOKEN) == 207
        wait_until_arrived(sandbox, "by-the-fleet")
        sandbox.faults.fail_rows(containing="rejected-in-the-fleet")
        try:
            assert post(client, sandbox, "rejected-in-the-fleet", token=TOKEN) == 207
            listed = command("fleet-letters")
            wait_for(lambda: "rejected-in-the-fleet" in machine.run(listed))
        finally:
            sandbox.faults.reset()
        machine.run(listed.replace("$letters list", "$letters replay --reason 'row 400'"))
        wait_until_arrived(sandbox, "rejected-in-the-fleet")
        assert machine.run(listed).endswith("0 dead letters\n")
        machine.run("systemctl stop nats-server")
        assert machine.property("Result", "nats-server.service") == "success"
        assert "Entering lame duck mode" in machine.journal("nats-server.service")
        wait_for(lambda: client.get("/readyz").status_code == 503)
        machine.run("systemctl start nats-server")
        # systemd does not know when the server answers; a gateway that waits for it too long puts
        # its clients off.
        wait_for(lambda: client.get("/readyz").status_code == 200)
        assert post(client, sandbox, "after-the-broker", token=TOKEN) == 207
        wait_until_arrived(sandbox, "after-the-broker")
    for role in ("gateway", "worker"):
        unit = f"arthur-relay-fleet@{role}.service"
        machine.run(f"systemctl stop {unit}")
        assert machine.property("ExecMainStatus", unit) == "0"
    assert machine.run("stat --format='%A %U %G' /var/lib/nats") == "drwx------ nats nats\n"
