"""One row of the fleet's table of faults: what goes wrong, what clients see, what becomes of rows.

A stage is a fleet of real processes over real servers of the broker. Several faults are played on
one, one after the other, each with rows of its own; after each, all is there again.
"""

from __future__ import annotations

import http.client
import itertools
import json
import select
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import httpx

from tests.broker.fleet_processes import SETTLED, Fleet, at_arthur, read_counts
from tests.broker.servers import NatsCluster, NatsServer
from tests.daemon.process import row
from tests.end_to_end.fronts import Front
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.sandbox import ArthurSandbox
    from tests.daemon.process import DaemonProcess

UNREADY_SECONDS: Final = 5.0
"""Within this time a gateway that can't keep rows has to be unready."""

MARGIN_SECONDS: Final = 1.5
"""What a busy machine takes beside."""

LATE_SECONDS: Final = 1.0

SETTINGS: Final = {
    # Where rows of several packets were one request to Arthur, they would meet one fault together.
    "ARTHUR_RELAY_BATCH_SIZE": "10",
    "ARTHUR_RELAY_REQUEST_TIMEOUT_SECONDS": "60",
}

IMPATIENT: Final = {"ARTHUR_RELAY_BROKER_PUBLISH_SECONDS": "1"}
"""For the second gateway of a stage, which does not wait long for the broker."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what then happens.

    Attributes:
        plays: Makes it go wrong, has rows sent, and mends it.
        clients: What the clients see, in the order of the answers; the same in a row is one.
        gateways: Whether the gateways are unready meanwhile.
        rows: What becomes of the rows that were accepted, in words.
        doubled: Whether Arthur may be given rows twice. Else it never is.
        forgets: Whether the broker may forget that it has handed out a packet: then it counts the
            next time as the first one.
        unheard: Whether rows may arrive that no client knows to be accepted. Else none does.
    """

    plays: Callable[[Stage], object]
    clients: tuple[str, ...]
    rows: str = "are delivered"
    gateways: str = "ready"
    doubled: bool = False
    forgets: bool = False
    unheard: bool = False

    def play(self, stage: Stage) -> None:
        """Have it go wrong, and assert what came of it."""
        stage.begin()
        self.plays(stage)
        seen = tuple(each for each, _ in itertools.groupby(stage.seen))
        assert seen == self.clients
        assert stage.was_unready == (self.gateways == UNREADY)
        stage.check(self)


UNREADY: Final = "unready within 5 s"


class SocketConnection(http.client.HTTPConnection):
    """A connection to a daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2 * SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Asked:
    """A request that was sent, and has not been answered as far as is known."""

    stage: Stage
    ids: list[str]
    connection: SocketConnection | None
    began_at: float = field(default_factory=time.monotonic)

    def answer(self, *, late: bool = False) -> None:
        """Wait for the answer, and note what the client sees."""
        seen = self.read()
        if late:
            assert time.monotonic() - self.began_at > LATE_SECONDS
            seen = f"{seen}, late"
        self.stage.seen.append(seen)

    def read(self) -> str:
        """Wait for the answer, and return what the client sees."""
        if self.connection is None:
            return "no connection"
        try:
            response = self.connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException):
            return "no answer"
        finally:
            self.connection.close()
        if response.status == httpx.codes.MULTI_STATUS:
            assert [each["status"] for each in json.loads(body)["results"]] == [200] * len(self.ids)
            self.stage.accepted += self.ids
        after = response.getheader("Retry-After")
        return str(response.status) + (f", Retry-After {after}" if after else "")


class Cable(Front):
    """Passes on what comes, in both directions, until it is cut."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._is_cut = False

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        ends = {connection: there, there: connection}
        while not self._is_cut:
            for source in select.select(list(ends), [], [])[0]:
                if not (data := source.recv(65536)):
                    return
                ends[source].sendall(data)

    def cut(self) -> None:
        """End what is connected, and whatever connects."""
        self._is_cut = True
        self.cut_idle()

    def mend(self) -> None:
        """Pass on again what comes."""
        self._is_cut = False


class Stage:
    """A fleet with two gateways, one of which is impatient, and two workers.

    Args:
        sandbox: Arthur.
        directory: For files.
        broker: The broker's settings.
        servers: The broker; the second worker has a wire to it that can be cut, if it is one.

    Attributes:
        gateways: The patient one and the impatient one.
        workers: Both workers.
        seen: What clients saw.
        accepted: The rows that were accepted.
        was_unready: Whether all gateways were unready in time.
    """

    def __init__(
        self,
        sandbox: ArthurSandbox,
        directory: Path,
        broker: BrokerSettings,
        servers: NatsCluster | NatsServer,
    ) -> None:
        self.sandbox = sandbox
        self.models = [sandbox.model_id, *(sandbox.add_model() for _ in range(2))]
        self.broker = broker
        self._servers = servers
        self.fleet = Fleet(sandbox, directory, broker, SETTINGS)
        self._ids = itertools.count()
        self._ended: Counter[str] = Counter()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            stack.enter_context(self.fleet)
            if isinstance(self._servers, NatsServer):
                self.wire = stack.enter_context(Cable(self.node.port))
            self.gateways = [self.new_gateway(number) for number in range(2)]
            self.workers = [self.new_worker(number) for number in range(2)]
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Forget what was played before."""
        self.seen: list[str] = []
        self.sent: list[str] = []
        self.accepted: list[str] = []
        self.was_unready = False
        self._before = self._counts()
        self._stored_before = self.sandbox.duplicates

    # What plays do.

    @property
    def cluster(self) -> NatsCluster:
        """The broker, where it is three servers."""
        assert isinstance(self._servers, NatsCluster)
        return self._servers

    @property
    def node(self) -> NatsServer:
        """The broker, where it is one server."""
        assert isinstance(self._servers, NatsServer)
        return self._servers

    @property
    def nodes(self) -> list[NatsServer]:
        """The broker's servers."""
        found = self._servers
        return found.servers if isinstance(found, NatsCluster) else [found]

    def leader(self) -> NatsServer:
        """Return the server that leads the stream."""
        return self.cluster.leader_of(self.broker.stream)

    def new_gateway(self, number: int) -> DaemonProcess:
        """Start one of the two gateways."""
        (found,) = self.fleet.start("gateway", variables=IMPATIENT if number else {})
        return found

    def new_worker(self, number: int) -> DaemonProcess:
        """Start one of the two workers."""
        has_wire = number and isinstance(self._servers, NatsServer)
        url = f"nats://127.0.0.1:{self.wire.port}" if has_wire else str(self.broker.url)
        (found,) = self.fleet.start("worker", variables={"ARTHUR_RELAY_BROKER_URL": url})
        return found

    def ask(
        self,
        gateway: int = 0,
        *,
        rows: int = 3,
        model: str | None = None,
        size: int = 0,
    ) -> Asked:
        """Send rows, and don't wait for the answer."""
        ids = [f"r{next(self._ids)}" for _ in range(rows)]
        connection = SocketConnection(self.gateways[gateway].socket)
        body = json.dumps([row(each, input_text="x" * size) for each in ids])
        path = f"/api/v3/models/{model or self.sandbox.model_id}/inferences"
        self.sent += ids
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        except OSError:
            connection.close()
            return Asked(self, ids, None)
        return Asked(self, ids, connection)

    def send(self, gateway: int = 0, *, late: bool = False, **about: Any) -> None:
        """Send rows, and note what the client sees."""
        self.ask(gateway, **about).answer(late=late)

    def send_until(self, seen: str, gateway: int = 0, **about: Any) -> None:
        """Send rows, again and again, until the client sees something, and note that alone."""
        wait_for(lambda: self.ask(gateway, **about).read() == seen)
        self.seen.append(seen)

    def send_until_in_hand(self) -> None:
        """Send rows until each worker has some in hand."""
        wait_for(self._is_in_hand)

    def _is_in_hand(self) -> bool:
        self.send(0)
        return all(read_counts(each)["packets"] for each in self.workers)

    @contextmanager
    def arthur_away(self) -> Iterator[None]:
        """Have Arthur be away."""
        self.sandbox.faults.status(503, times=None)
        yield
        self.sandbox.faults.reset()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Have both workers wait for Arthur's answer, with rows on their way."""
        self.sandbox.faults.hang()
        self.send_until_in_hand()
        yield
        self.sandbox.faults.reset()

    def await_taken_in(self, gateway: int) -> None:
        """Wait until a gateway has read what was sent to it."""
        wait_for(lambda: read_counts(self.gateways[gateway])["connections"])
        read_counts(self.gateways[gateway])  # its loop has had a turn since

    def await_arrival(self) -> None:
        """Wait until Arthur has what was accepted."""
        wait_for(lambda: at_arthur(self.sandbox).keys() >= set(self.accepted))

    def await_unready(self, *, since: float) -> None:
        """Wait until all gateways say that they are not ready, which has to be in time."""
        for each in self.gateways:
            client = each.client()
            wait_for(lambda c=client: c.get("/readyz").status_code == 503)  # type: ignore[misc]
        assert time.monotonic() - since < UNREADY_SECONDS + MARGIN_SECONDS
        self.was_unready = True

    def await_ready(self) -> None:
        """Wait until all say that they are."""
        for each in self.gateways:
            client = each.client()
            wait_for(lambda c=client: c.get("/readyz").status_code == 200)  # type: ignore[misc]

    def end(self, process: DaemonProcess, number: signal.Signals) -> int:
        """End a process that counts nothing at the moment; returns its status."""
        self.keep_counts(process)
        return process.end(number)

    def keep_counts(self, process: DaemonProcess, still_accepts: int = 0) -> None:
        """Keep what a process has counted, and will before it ends."""
        self._ended += read_counts(process)
        self._ended["intake_accepted"] += still_accepts

    # What is held against them.

    def check(self, fault: Fault) -> None:
        """Assert what became of the rows, and the accounts."""
        self.await_arrival()
        wait_for(self._is_at_rest, look_seconds=0.05)
        unheard = self._arrived_unheard()
        assert fault.unheard or not unheard, unheard
        doubled = self.sandbox.duplicates - self._stored_before
        assert fault.doubled or not doubled, doubled
        counts = self._counts()
        counts.subtract(self._before)
        assert counts["intake_accepted"] == len(self.accepted)
        settled = sum(counts[name] for name in SETTLED)
        assert counts["captured"] == settled + counts["returned"] + counts["pending"]
        assert counts["rejected"] == counts["dropped"] == 0
        # A worker that was killed may have delivered what it did not count.
        taken = len(self.accepted) + len(unheard)
        assert taken <= settled <= taken + doubled
        assert doubled <= counts["redelivered"] or fault.forgets

    def _arrived_unheard(self) -> list[str]:
        arrived = at_arthur(self.sandbox)
        return [each for each in self.sent if each in arrived and each not in self.accepted]

    def _is_at_rest(self) -> bool:
        counts = [read_counts(each) for each in self.workers]
        return not (
            any(each["pending"] or each["packets"] for each in counts) or self._waiting_packets()
        )

    def _waiting_packets(self) -> int:
        """How many packets the broker has, by the word of the server that says the most."""
        copies = [each.streams().get(self.broker.stream) for each in self.nodes]
        return max(int(each["state"]["messages"]) for each in copies if each is not None)

    def _counts(self) -> Counter[str]:
        found = Counter(self._ended)
        for each in [*self.gateways, *self.workers]:
            found.update(read_counts(each))
        return found


# --- What goes wrong: the broker ------------------------------------------------------------------


def nothing(stage: Stage) -> None:
    """Nothing goes wrong."""
    stage.send(0)
    stage.send(1)


def follower_dies(stage: Stage) -> None:
    leader = stage.leader()
    other = next(each for each in stage.nodes if each is not leader)
    other.kill()
    stage.send(0)
    other.start()
    stage.cluster.wait_until_healthy()


def leader_dies(stage: Stage) -> None:
    with stage.working():
        stage.leader().kill()
    stage.send(0, late=True)
    stage.cluster.restore()
    stage.send(0)


def most_die_then_all(stage: Stage) -> None:
    with stage.working():
        leader, since = stage.leader(), time.monotonic()
        for each in stage.nodes:
            if each is not leader:
                each.kill()
    patient = stage.ask(0)
    stage.send(1)
    stage.await_unready(since=since)
    leader.kill()
    stage.cluster.restore()
    patient.answer(late=True)
    stage.await_ready()
    stage.send(1)


def broker_hangs(stage: Stage) -> None:
    since = time.monotonic()
    stage.node.pause()
    patient = stage.ask(0)
    stage.send(1)
    stage.await_unready(since=since)
    stage.node.resume()
    patient.answer(late=True)
    stage.await_ready()
    stage.send(1)


def broker_hangs_unasked(stage: Stage) -> None:
    """Nobody sends rows, so that load balancers have to hear of it for the next one."""
    since = time.monotonic()
    stage.node.pause()
    stage.await_unready(since=since)
    stage.node.resume()
    stage.await_ready()
    stage.send(0)


def broker_is_full(stage: Stage) -> None:
    with stage.arthur_away():
        for number in range(9):
            stage.send(0, model=stage.models[number % 3], rows=1, size=stage.broker.bytes // 8)
    stage.send_until("207")


def model_floods(stage: Stage) -> None:
    flood, other, _ = stage.models
    with stage.arthur_away():
        for _ in range(4):
            stage.send(0, model=flood, rows=1, size=stage.broker.bytes // 8)
        stage.send_until("503, Retry-After 5", model=flood, rows=1)
        stage.send(0, model=other, rows=1)
    stage.send_until("207", model=flood, rows=1)


def disk_is_full(stage: Stage) -> None:
    """As good as: JetStream may use no more than it does."""
    node, before = stage.node, stage.node.options
    with stage.arthur_away():
        stage.send(1)
        node.options = replace(before, max_file_store="64KB")
        node.restart()
        stage.send_until("503, Retry-After 1", gateway=1, rows=1, size=20_000)
        node.options = before
        node.restart()
        stage.send_until("207", gateway=1)


# --- Gateways -------------------------------------------------------------------------------------


def gateway_dies(stage: Stage) -> None:
    stage.send(0)
    stage.node.pause()
    asked = stage.ask(0)
    stage.await_taken_in(0)
    stage.end(stage.gateways[0], signal.SIGKILL)
    stage.node.resume()
    asked.answer()
    stage.gateways[0] = stage.new_gateway(0)
    stage.send(0)


def gateway_stops(stage: Stage) -> None:
    stage.node.pause()
    asked = stage.ask(0)
    stage.await_taken_in(0)
    stage.keep_counts(stage.gateways[0], still_accepts=len(asked.ids))
    stage.gateways[0].send_signal(signal.SIGTERM)
    wait_for(lambda: not stage.gateways[0].socket.exists())
    stage.send(0)
    stage.node.resume()
    asked.answer()
    assert stage.gateways[0].end(None) == 0
    stage.gateways[0] = stage.new_gateway(0)
    stage.send(0)


# --- Workers --------------------------------------------------------------------------------------


def worker_dies(stage: Stage) -> None:
    with stage.working():
        stage.end(stage.workers[0], signal.SIGKILL)
    stage.await_arrival()
    stage.workers[0] = stage.new_worker(0)


def worker_hangs(stage: Stage) -> None:
    hanging = stage.workers[0]
    with stage.working():
        hanging.send_signal(signal.SIGSTOP)
    stage.await_arrival()
    hanging.send_signal(signal.SIGCONT)


def worker_stops(stage: Stage) -> None:
    with stage.arthur_away():
        stage.send_until_in_hand()
        assert stage.end(stage.workers[0], signal.SIGTERM) == 0
        assert "went back to the broker" in stage.workers[0].log
    stage.await_arrival()
    stage.workers[0] = stage.new_worker(0)


def worker_is_cut_off(stage: Stage) -> None:
    with stage.working():
        stage.wire.cut()
    stage.await_arrival()
    ready = stage.workers[1].client()
    wait_for(lambda: ready.get("/readyz").status_code == 503)
    stage.send(0)
    stage.wire.mend()


# --- Arthur ---------------------------------------------------------------------------------------


def arthur_is_away(stage: Stage) -> None:
    with stage.arthur_away():
        for _ in range(6):
            stage.send(0)
        # All but what is kept to ask with.
        wait_for(lambda: sum(read_counts(each)["returned"] for each in stage.workers))


def arthur_asks_for_a_pause(stage: Stage) -> None:
    stage.sandbox.faults.status(503, retry_after=2, times=1)
    stage.send(0)
    wait_for(lambda: all(read_counts(each)["held"] for each in stage.workers))


def arthur_is_slow(stage: Stage) -> None:
    stage.sandbox.faults.slow(0.3, times=4)
    for _ in range(4):
        stage.send(0)


def arthur_takes_fewer(stage: Stage) -> None:
    stage.sandbox.faults.status(429, times=3)
    stage.send(0)
