"""`python -m tests.benchmarks.sizing`: how large a fleet has to be, from what a row cost.

Reads the results of `python3 -m tests.benchmarks --only fleet`, and prints the tables that
docs/capacity.md has. All but `main` is pure.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Final, NamedTuple

from arthur_relay.broker.packets import BUCKETS, ROW_BYTES
from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.settings import RelaySettings
from tests.benchmarks.intake import rows
from tests.benchmarks.markdown import Table, number
from tests.benchmarks.results import Cells, Results
from tests.benchmarks.workloads import fleet

RESULTS: Final = Path(__file__).with_name("report") / "fleet" / "results.json"

RATES: Final = (1_000, 10_000, 100_000, 1_000_000)
"""Rows a second."""

BACKLOG_SECONDS: Final = 8 * 3600.0
COPIES: Final = 3
STORED_BYTES: Final = rows.ROW_BYTES + ROW_BYTES
"""What a row of 2 KB takes in the stream."""


class Costs(NamedTuple):
    """What a row cost, in requests of some size. CPU in microseconds."""

    batch: int
    """The rows of a request."""
    host_us: float
    gateway_us: float
    worker_us: float
    servers_us: float
    """Of all three."""
    leader_us: float
    written_bytes: float
    """On the disk of each server."""
    leader_sent_bytes: float
    sent_bytes: float
    """By all three servers."""

    @property
    def fleet_us(self) -> float:
        """All of a fleet's CPU."""
        return self.gateway_us + self.worker_us + self.servers_us

    @classmethod
    def of(cls, cells: Cells, batch: int) -> Costs:
        """The medians of a run.

        Raises:
            ValueError: It has not measured all of them.
        """

        def median(peer: str, metric: str) -> float:
            found = cells.spread(fleet.case_of(batch), peer, metric)
            if found is None:
                raise ValueError(f"{metric} of {peer} was not measured")
            return found.median

        names = cls._fields[2:]
        return cls(
            batch,
            median(fleet.HOST, "total_us"),
            *(median(fleet.ONE.name, name) for name in names),
        )


@dataclass(frozen=True, slots=True)
class Assumptions:
    """What a calculation takes as given; none of it was measured.

    Attributes:
        server_cores: Cores of a server's machine.
        used: The share of cores, disks and networks that is planned for.
        stream_cores: Cores of the leader's machine that one stream can use, as its messages are
            put in one order.
        disk_bytes: What a server's disk writes in a second, with its syncs.
        network_bytes: What a server's network sends in a second, and receives.
        latency_seconds: How long Arthur takes for a request.
    """

    server_cores: int = 8
    used: float = 0.6
    stream_cores: float = 1.0
    disk_bytes: float = 500e6
    network_bytes: float = 1.25e9
    latency_seconds: float = 0.5


GIVEN: Final = Assumptions()
RELAY: Final = RelaySettings.model_fields
BROKER: Final = BrokerSettings.model_fields


class WorkerBounds(NamedTuple):
    """The rows a second that one worker delivers at most, by what bounds it."""

    cpu: float
    arthur: float
    """`MAX_IN_FLIGHT` requests at once, of `BATCH_SIZE` rows, in the time that Arthur takes."""
    memory: float
    """`BROKER_AHEAD_BYTES` of rows, each in hand until it is answered."""


class StreamBounds(NamedTuple):
    """The rows a second that one stream carries at most, by what bounds it."""

    cpu: float
    network: float
    disk: float
    in_flight: float
    """`BROKER_IN_FLIGHT` packets, each in hand until its rows are answered."""

    @property
    def name(self) -> str:
        """What the smallest is called."""
        bounds = {
            "the leader's CPU": self.cpu,
            "the leader's network": self.network,
            "the disks": self.disk,
            "packets in flight": self.in_flight,
        }
        return min(bounds, key=bounds.__getitem__)


class Plan(NamedTuple):
    """A fleet for some rows a second, and the hosts that would do instead."""

    rate: int
    gateways: int
    workers: int
    worker_bound: str
    streams: int
    servers: int
    cores: float
    """What the fleet uses, all roles."""
    disk_bytes: float
    """Written in a second, by each server."""
    backlog_bytes: float
    """On each server."""
    leader_bytes: float
    """Sent in a second by the leaders of all streams together."""
    hosts: int
    host_cores: float
    host_backlog_bytes: float
    """On each host."""


def in_hand_seconds(given: Assumptions) -> float:
    """How long a worker has a row: it waits for others, and then for Arthur."""
    return float(RELAY["flush_interval_seconds"].default) + given.latency_seconds


def worker_bounds(costs: Costs, given: Assumptions) -> WorkerBounds:
    """What one worker delivers, with the settings' defaults."""
    batch, at_once = RELAY["batch_size"].default, RELAY["max_in_flight"].default
    return WorkerBounds(
        cpu=1e6 * given.used / costs.worker_us,
        arthur=at_once * batch / given.latency_seconds,
        memory=BROKER["ahead_bytes"].default / STORED_BYTES / in_hand_seconds(given),
    )


def stream_bounds(costs: Costs, given: Assumptions) -> StreamBounds:
    """What one stream carries, with the settings' defaults."""
    packets = BROKER["in_flight"].default // (BUCKETS + 1) * BUCKETS
    rows_a_packet = min(costs.batch, BROKER["packet_bytes"].default // STORED_BYTES)
    return StreamBounds(
        cpu=1e6 * given.stream_cores * given.used / costs.leader_us,
        network=given.network_bytes * given.used / costs.leader_sent_bytes,
        disk=given.disk_bytes * given.used / costs.written_bytes,
        in_flight=packets * rows_a_packet / in_hand_seconds(given),
    )


def plan(rate: int, costs: Costs, given: Assumptions) -> Plan:
    """Size a fleet, with two of each at least, as one may be down."""
    by = worker_bounds(costs, given)
    least = min(by)
    streams = ceil(rate / min(stream_bounds(costs, given)))
    servers = max(
        COPIES,
        ceil(rate * costs.servers_us / 1e6 / given.used / given.server_cores),
        ceil(rate * costs.sent_bytes / given.network_bytes / given.used),
        ceil(rate * costs.written_bytes * COPIES / given.disk_bytes / given.used),
    )
    backlog = rate * STORED_BYTES * BACKLOG_SECONDS
    hosts = ceil(rate * costs.host_us / 1e6 / given.used)
    return Plan(
        rate=rate,
        gateways=max(2, ceil(rate * costs.gateway_us / 1e6 / given.used)),
        workers=max(2, ceil(rate / least)),
        worker_bound=by._fields[by.index(least)],
        streams=streams,
        servers=servers,
        cores=rate * costs.fleet_us / 1e6,
        disk_bytes=rate * costs.written_bytes * COPIES / servers,
        backlog_bytes=backlog * COPIES / servers,
        leader_bytes=rate * costs.leader_sent_bytes,
        hosts=hosts,
        host_cores=rate * costs.host_us / 1e6,
        host_backlog_bytes=backlog / hosts,
    )


# What is printed.


def tables(cells: Cells, given: Assumptions = GIVEN) -> list[Table]:
    """The tables of the page."""
    all_costs = [Costs.of(cells, batch) for batch in fleet.FULL.rows]
    judged = next(each for each in all_costs if each.batch == fleet.JUDGED)
    plans = [plan(rate, judged, given) for rate in RATES]
    return [
        _costs_table(all_costs),
        _bounds_table(all_costs, given),
        _plans_table(plans),
        _latency_table(judged, given),
    ]


def _costs_table(all_costs: list[Costs]) -> Table:
    return Table(
        "What a row of 2 KB cost (median; CPU in µs)",
        (
            "rows a request",
            "host",
            "gateway",
            "worker",
            "three servers",
            "fleet in all",
            "fleet ÷ host",
            "bytes on each server's disk",
            "bytes that the leader sends",
        ),
        [
            (
                number(each.batch),
                number(each.host_us),
                number(each.gateway_us),
                number(each.worker_us),
                number(each.servers_us),
                number(each.fleet_us),
                number(each.fleet_us / each.host_us),
                number(each.written_bytes),
                number(each.leader_sent_bytes),
            )
            for each in all_costs
        ],
    )


def _bounds_table(all_costs: list[Costs], given: Assumptions) -> Table:
    rows_ = []
    for each in all_costs:
        bounds = stream_bounds(each, given)
        cells = (_rounded(bound) for bound in bounds)
        rows_.append((number(each.batch), *cells, f"{_rounded(min(bounds))}: {bounds.name}"))
    return Table(
        "Rows a second that one stream carries, by what bounds it (calculated)",
        (
            "rows a request",
            "one core of the leader",
            "the leader's network",
            "a server's disk",
            "packets in flight",
            "so at most",
        ),
        rows_,
    )


def _plans_table(plans: list[Plan]) -> Table:
    lines = [
        ("gateways (processes)", *(number(each.gateways) for each in plans)),
        ("workers (processes)", *(f"{number(each.workers)}" for each in plans)),
        ("bounded by", *(_WORKER_BOUND[each.worker_bound] for each in plans)),
        ("streams", *(_streams(each.streams) for each in plans)),
        ("servers", *(number(each.servers) for each in plans)),
        ("cores in use, all roles", *(number(ceil(each.cores)) for each in plans)),
        ("written by each server", *(f"{_size(each.disk_bytes)}/s" for each in plans)),
        ("8 hours' backlog on each server", *(_size(each.backlog_bytes) for each in plans)),
        (
            "8 hours' backlog in all",
            *(_size(each.backlog_bytes * each.servers) for each in plans),
        ),
        ("sent by the leaders", *(f"{_size(each.leader_bytes)}/s" for each in plans)),
        ("hosts instead: daemons", *(number(each.hosts) for each in plans)),
        ("cores in use there", *(number(ceil(each.host_cores)) for each in plans)),
        ("8 hours' backlog on each host", *(_size(each.host_backlog_bytes) for each in plans)),
    ]
    return Table(
        f"A fleet for rows of 2 KB in requests of {fleet.JUDGED} (calculated)",
        ("", *(f"{each.rate:,} rows/s" for each in plans)),
        lines,
    )


def _latency_table(costs: Costs, given: Assumptions) -> Table:
    latencies = (0.1, 0.5, 2.0)
    batch, at_once = RELAY["batch_size"].default, RELAY["max_in_flight"].default
    return Table(
        f"Workers, by how long Arthur takes for a request ({at_once} at once a worker, of {batch}"
        " rows)",
        ("Arthur takes", *(f"{rate:,} rows/s" for rate in RATES)),
        [
            (
                f"{latency:g} s",
                *(
                    number(plan(rate, costs, replace(given, latency_seconds=latency)).workers)
                    for rate in RATES
                ),
            )
            for latency in latencies
        ],
    )


_WORKER_BOUND: Final = {
    "cpu": "their CPU",
    "arthur": "Arthur's latency",
    "memory": "`…AHEAD_BYTES`",
}


def _streams(count: int) -> str:
    return "1" if count == 1 else f"{count} (there is 1 today)"


def _rounded(value: float) -> str:
    """A number with two digits that mean something: no calculation is better than that."""
    digits = len(str(int(value))) - 2
    return f"{round(value, -max(0, digits)):,.0f}"


def _size(value: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{number(value)} {unit}"
        value /= 1000
    return f"{number(value)} TB"


def page_block(results: Results, given: Assumptions = GIVEN) -> str:
    """What docs/capacity.md has between its marks."""
    facts = [f"- {name}: {value}" for name, value in results.facts.items()]
    lines = [*facts, f"- Assumed, not measured: {_assumed(given)}", ""]
    for table in tables(results.workloads[fleet.NAME], given):
        lines += table.lines()
    return "\n".join(lines).rstrip()


def _assumed(given: Assumptions) -> str:
    return (
        f"{given.used:.0%} of each core, disk and network is used; a server has"
        f" {given.server_cores} cores, a disk that writes {_size(given.disk_bytes)}/s and a network"
        f" that sends {_size(given.network_bytes)}/s; a stream can use {given.stream_cores:g} core"
        f" of its leader; Arthur takes {given.latency_seconds:g} s for a request; the relay has its"
        " default settings"
    )


def read(path: Path) -> Results:
    """The results of a run."""
    return Results.from_json(json.loads(path.read_text(encoding="utf-8")))


def main() -> None:
    """Print the tables, for other machines and another Arthur if need be."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.benchmarks.sizing", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FILE")
    for name, value in (
        ("server-cores", GIVEN.server_cores),
        ("used", GIVEN.used),
        ("stream-cores", GIVEN.stream_cores),
        ("disk-bytes", GIVEN.disk_bytes),
        ("network-bytes", GIVEN.network_bytes),
        ("latency-seconds", GIVEN.latency_seconds),
    ):
        parser.add_argument(f"--{name}", type=type(value), default=value)
    chosen = vars(parser.parse_args())
    results = read(chosen.pop("results"))
    sys.stdout.write(page_block(results, Assumptions(**chosen)) + "\n")


if __name__ == "__main__":
    main()
