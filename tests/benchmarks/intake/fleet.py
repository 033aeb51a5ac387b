"""A fleet in processes of its own, for a measurement: three servers, gateways and workers."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from tests.benchmarks.intake.daemon import DaemonProcess, cpu_seconds
from tests.broker.servers import NatsCluster, NatsServer
from tests.waiting import wait_for

if TYPE_CHECKING:
    from types import TracebackType

STREAM = "ARTHUR_ROWS"

_VARIABLES = {
    "ARTHUR_RELAY_SPOOL_DIR": "none",
    "ARTHUR_RELAY_BROKER_STREAM": STREAM,
    # Room for a worker that is far behind: the stream's limit is not measured.
    "ARTHUR_RELAY_BROKER_BYTES": str(16 << 30),
}


class Spent(NamedTuple):
    """What the processes have spent since their start."""

    gateway_seconds: float
    worker_seconds: float
    server_seconds: float
    leader_seconds: float
    written_bytes: float
    """Bytes that the kernel has written to the disk for the servers, all three."""
    leader_sent_bytes: float
    """Bytes that the leader has sent by TCP connections that are still open: to other servers, to
    gateways and to workers. Less comes in. Not a number where `ss` is missing. What the server
    counts itself leaves out the copies that it sends to other servers."""
    sent_bytes: float
    """The same of all three servers."""

    def since(self, before: Spent) -> Spent:
        """What was spent between two moments."""
        return Spent(*(now - then for now, then in zip(self, before, strict=True)))


class FleetProcesses:
    """A fleet from `with` to its end; used from one thread.

    Args:
        python: The interpreter.
        environment: What a measuring process gets.
        arthur: Arthur's address.
        gateways: How many gateways there are.
    """

    def __init__(
        self, python: str, environment: dict[str, str], arthur: str, *, gateways: int
    ) -> None:
        self._stack = ExitStack()
        self._workers_stack = ExitStack()
        self._python, self._environment, self._arthur = python, environment, arthur
        self._gateways = gateways
        self.gateways: list[DaemonProcess] = []
        self.workers: list[DaemonProcess] = []
        self._cluster: NatsCluster | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="arthur-"))
            self._cluster = stack.enter_context(NatsCluster(Path(directory)))
            stack.push(self._workers_stack)
            self.gateways = self._start("gateway", self._gateways, stack)
            wait_for(self._has_stream)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def have_workers(self, count: int) -> None:
        """Start workers until there are so many; with fewer than now, end all and begin anew."""
        if count < len(self.workers):
            self._workers_stack.close()
            self.workers = []
        self.workers += self._start("worker", count - len(self.workers), self._workers_stack)

    def sockets(self, gateways: int) -> str:
        """The sockets of some gateways, as the load takes them."""
        return ",".join(str(each.socket) for each in self.gateways[:gateways])

    @property
    def leader(self) -> NatsServer:
        """The server that leads the stream."""
        return self.cluster.leader_of(STREAM)

    @property
    def cluster(self) -> NatsCluster:
        """The servers."""
        assert self._cluster is not None, "enter it first"
        return self._cluster

    def is_empty(self) -> bool:
        """Whether every packet is acknowledged."""
        return self.stored()[0] == 0

    def stored(self) -> tuple[int, int]:
        """The packets that the leader has, and their bytes on its disk."""
        state = self.leader.streams()[STREAM]["state"]
        return state["messages"], state["bytes"]

    def spent(self) -> Spent:
        """What the processes that run have spent so far."""
        servers = {each: _pid(each) for each in self.cluster.servers}
        sent = {each: _sent_bytes(pid) for each, pid in servers.items()}
        leader = self.leader
        return Spent(
            gateway_seconds=sum(each.cpu_seconds() for each in self.gateways),
            worker_seconds=sum(each.cpu_seconds() for each in self.workers),
            server_seconds=sum(map(cpu_seconds, servers.values())),
            leader_seconds=cpu_seconds(servers[leader]),
            written_bytes=sum(map(_written_bytes, servers.values())),
            leader_sent_bytes=sent[leader],
            sent_bytes=sum(sent.values()),
        )

    def _has_stream(self) -> bool:
        return STREAM in self.cluster.servers[0].streams()

    def _start(self, role: str, count: int, stack: ExitStack) -> list[DaemonProcess]:
        """Start processes, all before the first one is waited for."""
        variables = {**_VARIABLES, "ARTHUR_RELAY_BROKER_URL": self.cluster.url}
        started = []
        for _ in range(count):
            process = DaemonProcess(
                self._python,
                self._environment,
                self._arthur,
                ARTHUR_RELAY_DAEMON_ROLE=role,
                **variables,
            )
            stack.callback(process.stop)
            started.append(process)
        for process in started:
            process.__enter__()
        return started


def _pid(server: NatsServer) -> int:
    assert server.process is not None
    return server.process.pid


def _sent_bytes(pid: int) -> float:
    """Bytes that a process has sent by the TCP connections that it has."""
    program = shutil.which("ss")
    if program is None:
        return math.nan
    listing = subprocess.run(
        [program, "-tinpHO"], capture_output=True, text=True, timeout=30, check=True
    )
    lines = [line for line in listing.stdout.splitlines() if f"pid={pid}," in line]
    return sum(map(float, re.findall(r"\bbytes_sent:(\d+)", "\n".join(lines))))


def _written_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, value = line.partition(": ")
        if name == "write_bytes":
            return int(value)
    raise OSError("the kernel does not tell what a process writes: this runs on Linux only")
