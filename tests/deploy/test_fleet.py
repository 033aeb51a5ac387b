"""deploy/ for a fleet: compose.fleet.yaml and what it mounts fit together and are valid."""

from __future__ import annotations

import os
import re
import subprocess
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from arthur_relay.broker.packets import HEADER_BYTES
from arthur_relay.cli.app import _app
from arthur_relay.daemon.auth import read_tokens
from arthur_relay.daemon.configuration import Configuration, load, unknown_variables
from arthur_relay.daemon.settings import DaemonSettings, RoleName
from tests.broker.servers import needed_binary

from .test_compose import composed, seconds
from .tools import DEPLOY, run

FILE = "compose.fleet.yaml"
FLEET = DEPLOY / "fleet"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = composed(FILE)["services"]
    return found


def loaded(service: dict[str, Any]) -> Configuration:
    """Return what a gateway or a worker makes of its environment and its command."""
    role = service["command"][service["command"].index("--role") + 1]
    environment = {
        **service["environment"],
        "ARTHUR_API_KEY_FILE": str(DEPLOY / "example" / "sandbox-api-key"),
    }
    with mock.patch.dict(os.environ, environment, clear=True):
        assert not list(unknown_variables(environment))
        return load(given={"ARTHUR_RELAY_DAEMON_ROLE": role})


def test_the_schema_takes_it() -> None:
    run("check-jsonschema", "--builtin-schema=vendor.compose-spec", DEPLOY / FILE)


def test_nothing_has_more_rights_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
        assert re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", service["image"]), name
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name


def test_there_are_two_of_each_role(services: dict[str, Any]) -> None:
    for name, role in (("gateway", RoleName.GATEWAY), ("worker", RoleName.WORKER)):
        service = services[name]
        assert service["deploy"]["replicas"] == 2
        found = loaded(service)
        assert found.daemon.role is role
        assert found.relay.spool_dir is None
        assert found.broker is not None
        servers = [server for server in services if server.startswith("nats-")]
        for urls in (found.broker.servers, found.broker.monitoring_urls):
            assert [urlsplit(each).hostname for each in urls] == servers
        stop = seconds(service["stop_grace_period"])
        assert stop >= found.relay.shutdown_timeout_seconds + 10


def test_the_broker_takes_its_configuration(services: dict[str, Any]) -> None:
    servers = [name for name in services if name.startswith("nats-")]
    text = (FLEET / "nats.conf").read_text(encoding="utf-8")
    broker = loaded(services["worker"]).broker
    assert broker is not None
    for key, urls in (("listen", broker.servers), ("http", broker.monitoring_urls)):
        port = re.search(rf"^{key}: 0\.0\.0\.0:(\d+)$", text, re.MULTILINE)
        assert port is not None
        assert {urlsplit(each).port for each in urls} == {int(port[1])}
    assert re.findall(r"nats://(\S+):6222", text) == servers
    for name in servers:
        environment = services[name]["environment"]
        assert environment["NATS_NAME"] == name
        subprocess.run(
            [needed_binary(), "-t", "-c", FLEET / "nats.conf"], env=environment, check=True
        )


def test_the_broker_keeps_what_it_acknowledges_and_takes_any_row() -> None:
    text = (FLEET / "nats.conf").read_text(encoding="utf-8")
    assert re.search(r"^  sync_interval: always$", text, re.MULTILINE)
    payload = re.search(r"^max_payload: (\d+)MB$", text, re.MULTILINE)
    assert payload is not None
    assert int(payload[1]) << 20 > DaemonSettings().max_row_bytes + HEADER_BYTES


def test_the_proxy_takes_its_configuration_and_finds_the_gateways(services: dict[str, Any]) -> None:
    run("haproxy", "-c", "-f", FLEET / "haproxy.cfg")
    text = (FLEET / "haproxy.cfg").read_text(encoding="utf-8")
    listen = services["gateway"]["environment"]["ARTHUR_RELAY_DAEMON_LISTEN"]
    assert f" gateway:{listen.rpartition(':')[2]} check" in text
    (port,) = services["proxy"]["ports"]
    assert f"bind :{port['target']}\n" in text


def test_an_application_has_a_token(services: dict[str, Any]) -> None:
    (token,) = read_tokens(FLEET / "tokens")
    comment = (DEPLOY / FILE).read_text(encoding="utf-8")
    assert f"ARTHUR_API_KEY={token.secret}\n" in comment
    options = services["arthur"]["command"]
    assert f"ARTHUR_MODEL_ID={options[options.index('--model-id') + 1]}\n" in comment
    (port,) = services["proxy"]["ports"]
    assert f"ARTHUR_ENDPOINT_URL=http://127.0.0.1:{port['published']} " in comment


def test_prometheus_scrapes_every_gateway_and_worker(services: dict[str, Any]) -> None:
    run("promtool", "check", "config", "--syntax-only", FLEET / "prometheus.yml")
    text = (FLEET / "prometheus.yml").read_text(encoding="utf-8")
    assert "names: [gateway, worker]" in text
    for name in ("gateway", "worker"):
        listen = services[name]["environment"]["ARTHUR_RELAY_DAEMON_METRICS_LISTEN"]
        assert f"port: {listen.rpartition(':')[2]}\n" in text


class Alive(BaseHTTPRequestHandler):
    """Says that it is alive, but not that it is ready."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)
        self.end_headers()
        self.wfile.write(b'{"detail": "It is alive."}')


@pytest.mark.parametrize("name", ["gateway", "worker"])
def test_the_health_check_asks_whether_a_daemon_lives(services: dict[str, Any], name: str) -> None:
    """Not whether it is ready: while the broker is away, a restart of all of them helps nobody."""
    check = services[name]["healthcheck"]
    listen = services[name]["environment"]["ARTHUR_RELAY_DAEMON_METRICS_LISTEN"]
    *command, url = check["test"]
    assert command == ["CMD", "arthur-relay", "healthcheck", "--url"]
    assert url == f"http://127.0.0.1:{listen.rpartition(':')[2]}"
    with HTTPServer(("127.0.0.1", 0), Alive) as server:
        server.timeout = 10
        thread = Thread(target=server.handle_request)
        thread.start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        found = CliRunner().invoke(_app, [*command[2:], here])
        thread.join()
    assert (found.exit_code, found.stdout) == (0, "It is alive.\n")
    # It gives up by itself before it is given up.
    assert seconds(check["timeout"]) > 3
