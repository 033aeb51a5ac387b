"""Runs a soak of a fleet: clients, gateways, workers and a broker of three, and disturbs all."""

from __future__ import annotations

import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
import msgspec

from arthur_relay.broker.kept_letters import BrokerLetters
from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.broker.topology import letters_stream
from tests.benchmarks.children import ROOT, environment
from tests.benchmarks.sink.process import ServerProcess
from tests.broker.fleet_processes import broker_variables, read_counts
from tests.broker.servers import NatsCluster, ReservedPort, messages_in
from tests.daemon.process import DaemonProcess
from tests.soak.evidence import read_arrivals, read_life
from tests.soak.faults import Kind
from tests.soak.fleet_evidence import (
    Disturbance,
    Disturbed,
    FleetEvidence,
    MemberCounts,
)
from tests.soak.run import SoakError

GATEWAYS: Final = 2
WORKERS: Final = 2
CLIENTS: Final = 2

CALM_PART: Final = 0.05
"""Of the rows: how many are sent first, while nothing goes wrong."""

REJECTS_EVERY: Final = 97
"""Arthur rejects one row in so many, which has to become a dead letter."""

LOOK_SECONDS: Final = 1.0
TICK_SECONDS: Final = 0.05
SETTLE_SECONDS: Final = 120.0
"""How long the fleet has, at most, to deliver what it has when all is well again."""

LONG_ROWS: Final = 10_000
"""With fewer it is a short form: nothing lasts long."""

DOWN_SECONDS: Final = 0.5
"""How long what was killed is not there."""

SETTINGS: Final = {
    "ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS": "0.1",
    "ARTHUR_RELAY_RETRY_INITIAL_SECONDS": "0.1",
    "ARTHUR_RELAY_RETRY_MAX_SECONDS": "1",
    "ARTHUR_RELAY_BREAKER_MAX_SECONDS": "1",
    "ARTHUR_RELAY_REQUEST_TIMEOUT_SECONDS": "3",
}

_PLAYS: Final = "_play_"


@dataclass
class Member:
    """A gateway or a worker in a process.

    Attributes:
        role: Which of the two.
        process: The process.
        counts: What it counted when it was last looked at.
        end: How it ended.
    """

    role: str
    process: DaemonProcess
    counts: Counter[str] = field(default_factory=Counter)
    end: str = "runs"

    def look(self) -> None:
        """Read its counts; they stay as they are while it does not answer."""
        with suppress(httpx.HTTPError):
            self.counts = read_counts(self.process)


@dataclass
class FleetSoak:
    """One soak of a fleet, which runs once.

    Attributes:
        directory: Where its files go; nothing else is in it.
        rows: How many rows the clients send.
        rate: Rows a second, of all clients together.
        seed: Of all that is drawn.
        sabotage: Damage that Arthur does on purpose; see `Damage`.
        tell: Told how far it is.
    """

    directory: Path
    rows: int
    rate: float
    seed: int
    sabotage: tuple[str, ...] = ()
    tell: Callable[[str], object] = lambda _: None
    sabotaged: dict[str, str] = field(default_factory=dict)
    _seen: FleetEvidence = field(default_factory=FleetEvidence)
    _stack: ExitStack = field(default_factory=ExitStack)
    _gateways: dict[int, Member] = field(default_factory=dict)
    _workers: list[Member] = field(default_factory=list)
    _gone: list[Member] = field(default_factory=list)
    _is_sending: bool = False
    _looked_at: float = 0.0
    _client: subprocess.Popen[bytes] = field(init=False)
    _cluster: NatsCluster = field(init=False)
    _server: ServerProcess = field(init=False)
    _broker: BrokerSettings = field(init=False)
    _variables: dict[str, str] = field(init=False)

    @property
    def _ack_wait_seconds(self) -> float:
        return 4.0 if self.rows >= LONG_ROWS else 1.0

    @property
    def _arthur_seconds(self) -> float:
        """How long Arthur is away, or slow."""
        return 3.0 if self.rows >= LONG_ROWS else 0.5

    def run(self) -> FleetEvidence:
        """Do it all.

        Raises:
            SoakError: A process ended that should not, or did not when it should.
        """
        with self._stack as stack:
            self._cluster = stack.enter_context(NatsCluster(self.directory))
            arguments = str(self.directory / "server.jsonl"), str(self.seed)
            server = self._server = stack.enter_context(
                ServerProcess("tests.soak.server", *arguments)
            )
            server.ask("reject", REJECTS_EVERY)
            if self.sabotage:
                server.ask("sabotage", self.sabotage)
            self._broker = BrokerSettings(
                url=self._cluster.url, bytes=1 << 30, ack_wait_seconds=self._ack_wait_seconds
            )
            self._variables = {
                **SETTINGS,
                **broker_variables(self._broker),
                "ARTHUR_ENDPOINT_URL": server.url,
                "ARTHUR_API_KEY": "soak",
                "ARTHUR_MODEL_ID": "soak",
            }
            self._start_all()
            calm = max(1, round(self.rows * CALM_PART))
            self._order(calm, 10 * self.rate)
            while self._await_client():
                self._wait(TICK_SECONDS)
            self._settle()
            self._seen.calm_rows = calm
            self._seen.calm = self._counts()
            self._storm(self.rows - calm)
            self._settle()
            self._end()
            if self.sabotage:
                self.sabotaged = server.ask("sabotaged")
            self._cluster.leader_of(letters_stream(self._broker, 0).name)
            self._seen.letters = [
                letter.inference_id for _, letter in BrokerLetters(self._broker).letters()
            ]
            self._seen.left = self._left()
        self._seen.rejects_every, self._seen.lasts_seconds = REJECTS_EVERY, self._ack_wait_seconds
        self._seen.members = self._counts()
        self._seen.clients = [read_life(path) for path in sorted(self.directory.glob("client-*"))]
        self._seen.arrivals = read_arrivals(self.directory / "server.jsonl")
        return self._seen

    # The fleet.

    def _start_all(self) -> None:
        ports = [self._stack.enter_context(closing_port()) for _ in range(GATEWAYS)]
        for port in ports:
            self._start_gateway(port.number)
        self._start_client()
        self._workers = [self._start("worker") for _ in range(WORKERS)]
        for each in self._running():
            each.process.wait_until_ready()

    def _start_gateway(self, port: int) -> None:
        self._gateways[port] = self._start("gateway", "--listen", f"127.0.0.1:{port}")

    def _start(self, role: str, *arguments: str) -> Member:
        process = DaemonProcess(
            None, self.directory, "--role", role, *arguments, variables=self._variables
        )
        return Member(role, self._stack.enter_context(process))

    def _running(self) -> list[Member]:
        return [*self._gateways.values(), *self._workers]

    def _look(self) -> None:
        for each in self._running():
            if each.process.process.poll() is not None:
                raise SoakError(f"a {each.role} ended by itself:\n{each.process.log[-2000:]}")
            each.look()
        self._looked_at = time.monotonic()

    def _kill(self, member: Member) -> None:
        member.look()
        member.process.end(signal.SIGKILL)
        member.end = "killed"
        self._gone.append(member)

    def _counts(self) -> list[MemberCounts]:
        return [
            MemberCounts(each.role, each.end, each.counts)
            for each in [*self._gone, *self._running()]
        ]

    # The clients.

    def _start_client(self) -> None:
        urls = [f"http://127.0.0.1:{port}" for port in self._gateways]
        arguments = str(self.directory), str(CLIENTS), str(self.seed), *urls
        self._client = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.soak.client", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        self._stack.callback(end_client, self._client)

    def _order(self, rows: int, rate: float) -> None:
        assert self._client.stdin is not None
        self._client.stdin.write(f"{rows} {rate}\n".encode())
        self._client.stdin.flush()
        self._is_sending = True

    def _await_client(self) -> bool:
        """Return whether the clients still send."""
        assert self._client.stdout is not None
        if self._is_sending and select.select([self._client.stdout], [], [], 0)[0]:
            if not self._client.stdout.readline():
                raise SoakError(f"the clients ended with status {self._client.wait()}")
            self._is_sending = False
        return self._is_sending

    # The disturbances.

    def _storm(self, rows: int) -> None:
        """Disturb one thing after the other, each once at least, until all rows are taken."""
        self._order(rows, self.rate)
        for round_of in self._rounds():
            for kind in round_of:
                if len(self._seen.disturbances) >= len(Disturbance) and not self._await_client():
                    return
                self.tell(kind)
                at = time.monotonic()
                getattr(self, f"{_PLAYS}{kind.name.lower()}")()
                self._seen.disturbances.append(Disturbed(kind, at, time.monotonic()))
                self._wait(TICK_SECONDS)

    def _rounds(self) -> Iterator[list[Disturbance]]:
        draw = random.Random(f"{self.seed} fleet")
        while True:
            found = list(Disturbance)
            draw.shuffle(found)
            yield found

    def _play_gateway_killed(self) -> None:
        port = next(iter(self._gateways))
        self._kill(self._gateways.pop(port))
        self._wait(DOWN_SECONDS)
        self._start_gateway(port)  # the last one now, so that the others have their turn
        self._gateways[port].process.wait_until_ready()

    def _play_worker_killed(self) -> None:
        self._kill(self._workers.pop(0))
        self._wait(DOWN_SECONDS)
        self._workers.append(self._start("worker"))
        self._workers[-1].process.wait_until_ready()

    def _play_worker_hangs(self) -> None:
        hanging = self._workers.pop(0)
        hanging.process.send_signal(signal.SIGSTOP)
        self._wait(1.5 * self._ack_wait_seconds)  # so that others get what it has
        hanging.process.send_signal(signal.SIGCONT)
        self._workers.append(hanging)

    def _play_leader_killed(self) -> None:
        leader = self._cluster.leader_of(self._broker.stream)
        leader.kill()
        self._cluster.leader_of(self._broker.stream)
        self._cluster.restore()

    def _play_nodes_killed(self) -> None:
        self._cluster.kill_all()
        self._wait(DOWN_SECONDS)
        self._cluster.restore()
        self._cluster.leader_of(self._broker.stream)

    def _play_arthur_away(self) -> None:
        self._have_arthur(Kind.REFUSING)

    def _play_arthur_slow(self) -> None:
        self._have_arthur(Kind.SLOW)

    def _play_arthur_mixed(self) -> None:
        self._have_arthur(Kind.MIXED)

    def _have_arthur(self, kind: Kind) -> None:
        self._server.ask("fault", kind)
        self._wait(self._arthur_seconds)
        self._server.ask("fault", Kind.NONE)

    # The end.

    def _settle(self) -> None:
        """Wait until the broker has nothing left, and no worker either."""
        end = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < end:
            self._look()
            pending = sum(each.counts["pending"] for each in self._workers)
            held = sum(each.counts["packets"] for each in self._workers)
            if not (pending or held or self._waiting()):
                return
            time.sleep(TICK_SECONDS)

    def _waiting(self) -> int:
        """How many packets the broker has, by the word of the server that says the most."""
        copies = [each.streams().get(self._broker.stream) for each in self._cluster.servers]
        return max(int(each["state"]["messages"]) for each in copies if each is not None)

    def _end(self) -> None:
        """End gateways, then workers, as an operator does."""
        self._look()
        for each in self._running():
            each.end = f"status {each.process.end()}"

    def _left(self) -> list[str]:
        """Return the ids of the rows that are in the broker."""
        return [
            row_id
            for body in messages_in(self._cluster.url, self._broker.stream)
            for row_id, *_ in msgspec.msgpack.decode(body)
        ]

    def _wait(self, seconds: float) -> None:
        """Let time pass, and look at the fleet meanwhile."""
        end = time.monotonic() + seconds
        while True:
            if time.monotonic() >= self._looked_at + LOOK_SECONDS:
                self._look()
            if (left := end - time.monotonic()) <= 0:
                return
            time.sleep(min(TICK_SECONDS, left))


def end_client(child: subprocess.Popen[bytes]) -> None:
    """Leave no client behind."""
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()
    try:
        child.wait(1.0)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def closing_port() -> Iterator[ReservedPort]:
    """Yield a port that stays ours."""
    port = ReservedPort()
    try:
        yield port
    finally:
        port.close()
