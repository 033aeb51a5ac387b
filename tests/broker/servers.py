"""Runs real NATS servers: one, or three that keep everything thrice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

NEEDED = "TESTS_NEED_NATS"
"""When this is set, a server that is missing fails the test instead of skipping it."""


def binary() -> str:
    """Return the path of the server; without it skip the test, or fail it where it is needed."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        if os.environ.get(NEEDED):
            pytest.fail(f"{NEEDED} is set, and there is no nats-server")
        pytest.skip("there is no nats-server for this platform")
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now; a server whose port is taken does not start."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass(slots=True, eq=False)
class NatsServer:
    """A server with JetStream, which syncs each write. It keeps its ports over restarts.

    Attributes:
        name: Its name.
        directory: Where its files are.
        port: For clients.
        monitoring: For HTTP.
        more: More lines of its configuration.
        sync: When it syncs.
        max_payload: The most bytes of a message.
    """

    name: str
    directory: Path
    port: int
    monitoring: int
    more: str = ""
    sync: str = "always"
    max_payload: str = "8MB"
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        """Its address for clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """Its address for HTTP."""
        return f"http://127.0.0.1:{self.monitoring}"

    @property
    def log(self) -> str:
        """What it wrote."""
        return (self.directory / f"{self.name}.log").read_text(encoding="utf-8")

    def start(self) -> None:
        """Start it; see `wait_until_healthy`."""
        path = self.directory / f"{self.name}.conf"
        path.write_text(
            f"server_name: {self.name}\n"
            f"listen: 127.0.0.1:{self.port}\n"
            f"http: 127.0.0.1:{self.monitoring}\n"
            f"max_payload: {self.max_payload}\n"
            "jetstream {\n"
            f'  store_dir: "{self.directory / self.name}"\n'
            f"  sync_interval: {self.sync}\n"
            "}\n"
            f"{self.more}\n",
            encoding="utf-8",
        )
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [binary(), "-c", str(path)], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def ask(self, path: str) -> dict[str, Any]:
        """Return what it says by HTTP."""
        found: dict[str, Any] = httpx.get(f"{self.monitoring_url}/{path}", timeout=2).json()
        return found

    def is_healthy(self) -> bool:
        """Return whether it says so."""
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"{self.name} has ended:\n{self.log}")
        try:
            return bool(self.ask("healthz").get("status") == "ok")
        except (httpx.HTTPError, json.JSONDecodeError):
            return False

    def wait_until_healthy(self) -> None:
        """Wait until it says that it is."""
        wait_for(self.is_healthy, SECONDS)

    def kill(self) -> None:
        """End it at once, as a power cut would, but for what the kernel still writes."""
        self._signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait()

    def pause(self) -> None:
        """Have it hang."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever it does."""
        if self.process is not None and self.process.poll() is None:
            self.resume()
            self.kill()

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def __enter__(self) -> Self:
        self.start()
        self.wait_until_healthy()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def single(directory: Path, **options: str) -> NatsServer:
    """Return a server that has not been started."""
    port, monitoring = free_ports(2)
    return NatsServer("alone", directory, port, monitoring, **options)


@dataclass(slots=True, eq=False)
class NatsCluster:
    """Three servers that keep everything thrice."""

    servers: Sequence[NatsServer]

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Return three servers that have not been started."""
        ports = free_ports(9)
        names = ("one", "two", "three")
        routes = [f"nats://127.0.0.1:{port}" for port in ports[:3]]
        servers = [
            NatsServer(
                name,
                directory,
                ports[3 + index],
                ports[6 + index],
                more=(
                    "cluster {\n  name: tests\n"
                    f"  listen: 127.0.0.1:{ports[index]}\n"
                    f"  routes: [{', '.join(routes)}]\n}}"
                ),
            )
            for index, name in enumerate(names)
        ]
        return cls(servers)

    @property
    def url(self) -> str:
        """The addresses for clients."""
        return ",".join(each.url for each in self.servers)

    def wait_until_healthy(self) -> None:
        """Wait until all are, and have a leader."""
        for each in self.servers:
            each.wait_until_healthy()
        wait_for(lambda: self.servers[0].ask("jsz").get("meta_cluster", {}).get("leader"), SECONDS)

    def leader_of(self, stream: str) -> NatsServer:
        """Return the server that leads a stream; waits until there is one."""

        def look() -> NatsServer | None:
            for server in self.servers:
                if server.process is None or server.process.poll() is not None:
                    continue
                for account in server.ask("jsz?streams=true").get("account_details", ()):
                    for found in account.get("stream_detail", ()):
                        leader = found.get("cluster", {}).get("leader")
                        if found["name"] == stream and leader:
                            return next(each for each in self.servers if each.name == leader)
            return None

        return wait_for(look, SECONDS)

    def __enter__(self) -> Self:
        for each in self.servers:
            each.start()
        self.wait_until_healthy()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self.servers:
            each.stop()
