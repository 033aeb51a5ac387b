"""Connections are kept and few, whatever the number of requests."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay import Inference, Relay, RelaySettings
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.end_to_end.conftest import QUICK

if TYPE_CHECKING:
    from collections.abc import Iterator


class CountingServer(ThreadingHTTPServer):
    """Stores nothing, says that all is well, and counts connections and requests."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.connections = 0
        self.posts = 0
        self.agents: set[str] = set()
        self.organizations: set[str] = set()
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is one packet: two would wait for the client's acknowledgement
    server: CountingServer

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections += 1

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.posts += 1
            self.server.agents.add(self.headers["User-Agent"])
            self.server.organizations.add(self.headers["Arthur-Organization-ID"])
        count = len(rows)
        body = json.dumps(
            {
                "counts": {"success": count, "failure": 0, "total": count},
                "results": [{"message": "success", "status": 200}] * count,
            }
        ).encode()
        self.send_response(207)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        return None


@pytest.fixture
def server() -> Iterator[CountingServer]:
    with CountingServer() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_connections_are_kept_and_bounded(
    server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    monkeypatch.setenv("ARTHUR_ORGANIZATION_ID", "org")
    settings = RelaySettings(**{**QUICK, "batch_size": 1, "max_in_flight": 2})
    url = f"http://127.0.0.1:{server.server_address[1]}/"
    with Relay.from_credentials("m", url, settings=settings) as relay:
        relay._host.register(ModelSchema("m", LLM_ATTRIBUTES))
        for number in range(100):
            relay.capture(Inference(input_text="p", output_text="a", inference_id=f"r{number}"))
        assert relay.flush(30).delivered == 100
    assert server.posts == 100
    assert 1 <= server.connections <= 2
    assert server.organizations == {"org"}
    (agent,) = server.agents
    assert agent.startswith("arthur-relay/")
    assert "(system=" in agent


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(
    server: CountingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing is there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("ARTHUR_API_KEY", "key")
    monkeypatch.setenv("ARTHUR_ORGANIZATION_ID", "org")
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with Relay.from_credentials("m", url, settings=RelaySettings(**QUICK)) as relay:
        relay._host.register(ModelSchema("m", LLM_ATTRIBUTES))
        relay.capture(Inference(input_text="p", output_text="a"))
        assert relay.flush(30).delivered == 1
