"""Figure 15: what a row costs the processes of a fleet, beside one host's daemon with its spool."""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from tests.benchmarks.children import ROOT, environment
from tests.benchmarks.intake.daemon import DaemonProcess
from tests.benchmarks.intake.fleet import FleetProcesses
from tests.benchmarks.lineup import Stage
from tests.benchmarks.markdown import TIMES, Section, Table, at_most, ratio_text, value_text
from tests.benchmarks.results import Cells, Sample
from tests.benchmarks.workloads.workload import Commands, Workload
from tests.waiting import wait_for

NAME = "fleet"
HOST = "host"
IDLE = "idle"
CLIENTS = 32
MODELS = 16
MOST_GROWTH = 1.25
"""What a row may cost with four processes of a role, over what it costs with one."""

_LIMIT_SECONDS = 60.0
_IDLE_SECONDS = 5.0
_MORE_ROUNDS_SECONDS = 210.0
"""When a round begins no more: one takes up to a minute, and the whole run five."""


class Shape(NamedTuple):
    """How many processes a fleet has, beside its three servers."""

    gateways: int
    workers: int

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{_counted(self.gateways, 'gateway')}, {_counted(self.workers, 'worker')}"


ONE = Shape(1, 1)


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes:
        rows: By the rows of a request; of one gateway and one worker, and of a host.
        shapes: Larger fleets, by workers, for requests of `JUDGED` rows.
        rounds: How often, at most.
    """

    rows: dict[int, int]
    shapes: tuple[Shape, ...]
    rounds: int


JUDGED = 100
"""The rows of a request with which fleets of all sizes are compared."""

FULL = Size(
    rows={1: 1_600, 10: 9_600, 100: 19_200, 500: 32_000},
    shapes=(Shape(2, 1), Shape(4, 1), Shape(1, 2), Shape(2, 2), Shape(1, 4), Shape(4, 4)),
    rounds=5,
)
QUICK = Size(rows={10: 640, 100: 3_200}, shapes=(Shape(2, 2),), rounds=1)

COMMANDS: Commands = {}
"""None: it has processes of its own."""


def case_of(batch: int) -> str:
    """The name of a case."""
    return f"requests of {_counted(batch, 'row')}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


# In the run.


def run(stage: Stage) -> Cells:
    """Measure; whatever peers were asked for, this is about fleet and host."""
    size = QUICK if stage.quick else FULL
    cells = Cells()
    began_at = time.monotonic()
    shapes = (ONE, *size.shapes)
    with (
        FleetProcesses(
            stage.python,
            environment(),
            stage.sink.url,
            gateways=max(shape.gateways for shape in shapes),
        ) as fleet,
        # With what the servers promise, too: an answer means that a power cut loses nothing.
        DaemonProcess(
            stage.python, environment(), stage.sink.url, ARTHUR_RELAY_DURABILITY="power"
        ) as host,
    ):
        bench = _FleetBench(stage, fleet, host)
        fleet.have_workers(1)
        bench.warm()
        for _ in range(size.rounds):
            bench.round(cells, size)
            if time.monotonic() - began_at > _MORE_ROUNDS_SECONDS:
                break
        bench.idle(cells, shapes[-1])
    return cells


class _FleetBench:
    """Sends to a fleet and to a host in turn; see `run`."""

    def __init__(self, stage: Stage, fleet: FleetProcesses, host: DaemonProcess) -> None:
        self._stage = stage
        self._fleet = fleet
        self._host = host
        self._numbers = count(step=1_000_000)

    def warm(self) -> None:
        """Let every gateway and the host take and deliver, uncounted."""
        self._of_fleet(Shape(len(self._fleet.gateways), 1), JUDGED, CLIENTS * JUDGED)
        self._of_host(JUDGED, CLIENTS * JUDGED)

    def round(self, cells: Cells, size: Size) -> None:
        """Measure everything once: workers only come, until the next round ends them."""
        self._fleet.have_workers(1)
        for batch, rows in size.rows.items():
            cells.cell(case_of(batch), HOST).samples.append(self._of_host(batch, rows))
            cells.cell(case_of(batch), ONE.name).samples.append(self._of_fleet(ONE, batch, rows))
        for shape in size.shapes:
            if shape.workers > len(self._fleet.workers):
                self._fleet.have_workers(shape.workers)
                # The new ones have their first rows, and make their connections, uncounted.
                self._of_fleet(shape, JUDGED, CLIENTS * JUDGED)
            sample = self._of_fleet(shape, JUDGED, size.rows[JUDGED])
            cells.cell(case_of(JUDGED), shape.name).samples.append(sample)

    def idle(self, cells: Cells, shape: Shape) -> None:
        """Measure what a fleet costs that has nothing to do."""
        before, began_at = self._fleet.spent(), time.monotonic()
        time.sleep(_IDLE_SECONDS)
        spent, seconds = self._fleet.spent().since(before), time.monotonic() - began_at
        sample = {
            "gateway_percent": spent.gateway_seconds / seconds / shape.gateways * 100,
            "worker_percent": spent.worker_seconds / seconds / shape.workers * 100,
            "server_percent": spent.server_seconds / seconds / 3 * 100,
            "gateway_mib": max(each.resident_mib() for each in self._fleet.gateways),
            "worker_mib": max(each.resident_mib() for each in self._fleet.workers),
        }
        cells.cell(IDLE, shape.name).samples.append(sample)

    def _of_fleet(self, shape: Shape, batch: int, rows: int) -> Sample:
        """Send rows to some gateways; all workers there are deliver them at the same time."""
        before = self._fleet.spent()
        sample = self._send(self._fleet.sockets(shape.gateways), batch, rows, self._fleet.is_empty)
        spent, sent = self._fleet.spent().since(before), sample["rows"]
        sample |= {
            "gateway_us": spent.gateway_seconds / sent * 1e6,
            "worker_us": spent.worker_seconds / sent * 1e6,
            "servers_us": spent.server_seconds / sent * 1e6,
            "leader_us": spent.leader_seconds / sent * 1e6,
            "written_bytes": spent.written_bytes / 3 / sent,
        }
        if not math.isnan(spent.leader_sent_bytes):
            sample["leader_sent_bytes"] = spent.leader_sent_bytes / sent
            sample["sent_bytes"] = spent.sent_bytes / sent
        sample["total_us"] = sample["gateway_us"] + sample["worker_us"] + sample["servers_us"]
        return sample

    def _of_host(self, batch: int, rows: int) -> Sample:
        """Send rows to the host's daemon, which delivers them at the same time."""
        before = self._host.cpu_seconds()
        sample = self._send(
            str(self._host.socket), batch, rows, lambda: self._host.rows()["pending"] == 0
        )
        sample["total_us"] = (self._host.cpu_seconds() - before) / sample["rows"] * 1e6
        return sample

    def _send(self, sockets: str, batch: int, rows: int, is_done: Callable[[], bool]) -> Sample:
        """Send rows, and wait until Arthur has them and the sender's side has nothing left."""
        sink, first = self._stage.sink, next(self._numbers)
        sink.reset()
        began_at = time.monotonic()
        sample = self._load(sockets, rows, batch, CLIENTS, first, MODELS)
        sent = int(sample["rows"])
        self._stage.wait_for_arrivals(sent, limit_seconds=_LIMIT_SECONDS, look_seconds=0.02)
        seconds = time.monotonic() - began_at
        wait_for(is_done, _LIMIT_SECONDS, look_seconds=0.05)
        found = sink.counts()
        return {
            **sample,
            "emitted": sent,
            "delivered": found.records,
            "delivered_per_second": found.records / seconds,
            "duplicates": found.duplicates,
            "rows_a_request": found.records / found.requests if found.requests else 0.0,
        }

    def _load(self, *arguments: object) -> Sample:
        done = subprocess.run(
            [self._stage.python, "-m", "tests.benchmarks.intake.load", *map(str, arguments)],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self._stage.deadline.within(_LIMIT_SECONDS),
            check=False,
        )
        if done.returncode:
            raise OSError(f"tests.benchmarks.intake.load failed: {done.stderr[-2000:]}")
        found: Sample = json.loads(done.stdout)
        return found


# In the report.


def section(cells: Cells) -> Section:
    """The section of the report."""
    judged = case_of(JUDGED)
    figures = [
        at_most(
            f"CPU a row of all {role}s, four over one",
            MOST_GROWTH,
            TIMES,
            cells.ratio(judged, shape.name, f"{role}_us", to=ONE.name),
        )
        for role, shape in (("gateway", Shape(4, 1)), ("worker", Shape(1, 4)))
    ]
    cases = [case for case in cells.cases if case != IDLE]
    costs = [
        (
            case,
            peer,
            *(
                value_text(cells, case, peer, name)
                for name in ("gateway_us", "worker_us", "servers_us", "leader_us", "total_us")
            ),
            "1" if peer == HOST else ratio_text(cells, case, peer, "total_us", to=HOST),
        )
        for case in cases
        for peer in cells.peers(case)
    ]
    rates = [
        (
            case,
            peer,
            *(
                value_text(cells, case, peer, name)
                for name in ("rows_per_second", "delivered_per_second")
            ),
            *(
                "1" if peer == HOST else ratio_text(cells, case, peer, name, to=HOST)
                for name in ("rows_per_second", "delivered_per_second")
            ),
            *(
                value_text(cells, case, peer, name)
                for name in ("p50_ms", "p99_ms", "rows_a_request", "duplicates")
            ),
        )
        for case in cases
        for peer in cells.peers(case)
    ]
    bytes_ = [
        (
            case,
            value_text(cells, case, ONE.name, "written_bytes"),
            value_text(cells, case, ONE.name, "leader_sent_bytes"),
            value_text(cells, case, ONE.name, "sent_bytes"),
        )
        for case in cases
    ]
    idle = [
        (
            peer,
            *(
                value_text(cells, IDLE, peer, name)
                for name in (
                    "gateway_percent",
                    "worker_percent",
                    "server_percent",
                    "gateway_mib",
                    "worker_mib",
                )
            ),
        )
        for peer in cells.peers(IDLE)
    ]
    return Section(
        title="15. A fleet",
        text=(
            f"{CLIENTS} clients in one process send rows of 2 KB of {MODELS} models, each its next"
            " request once the last one is acknowledged, while everything is delivered to the sink:"
            " through gateways, three NATS servers with `sync_interval: always` and workers, and in"
            " turn through one host's daemon, whose spool has `durability = power`. The texts are"
            " English prose, as servers compress what they copy. All processes share the machine,"
            " so its cores bound every rate, however many processes there are: compare rates within"
            " a case only, and read from the CPU of a row what more machines would bring. CPU is"
            " that of all processes of a role, user and system; clients and sink are not counted."
            " Rates of delivery include the second for which the last rows wait for others. Several"
            " workers share that one rate here, so each sends smaller requests, and a row costs"
            " more; where the rate grows with the workers, requests stay as large."
        ),
        figures=figures,
        tables=[
            Table(
                "CPU µs a row",
                (
                    "case",
                    "",
                    "gateways",
                    "workers",
                    "servers",
                    "of them the leader",
                    "all",
                    f"all, {TIMES} host",
                ),
                costs,
            ),
            Table(
                "Rates on this one machine",
                (
                    "case",
                    "",
                    "acknowledged, rows/s",
                    "delivered, rows/s",
                    f"acknowledged, {TIMES} host",
                    f"delivered, {TIMES} host",
                    "acknowledged after, p50 ms",
                    "p99 ms",
                    "rows a request to Arthur",
                    "delivered twice",
                ),
                rates,
            ),
            Table(
                "Bytes a row of 2 KB, with one gateway and one worker",
                (
                    "case",
                    "written to each server's disk",
                    "sent by the leader",
                    "sent by all three servers",
                ),
                bytes_,
            ),
            Table(
                "A fleet with nothing to do: of each process",
                (
                    "",
                    "gateway, % of a core",
                    "worker, %",
                    "server, %",
                    "gateway, MiB",
                    "worker, MiB",
                ),
                idle,
            ),
        ],
    )


WORKLOAD = Workload(NAME, run, section, in_quick_form=False)
