"""The daemon's metrics, in Prometheus's format.

Each label has a bounded number of values: 101 models, a few dozen reasons.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from arthur_relay.daemon.auth import Endpoint
from arthur_relay.daemon.measurements import QuestionOutcome
from arthur_relay.encoding.product import Product

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from arthur_relay.daemon.measurements import Distribution
    from arthur_relay.daemon.state import DaemonState, Queue

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Sent whatever the client accepts: OpenMetrics allows no gauge beside a counter of its name."""

PREFIX = "arthur_relay_"

_LABELS = {Product.SCOPE: "scope", Product.ENGINE: "engine"}

_OF_THE_WHOLE = frozenset(
    PREFIX + name
    for name in (
        "build_info",
        "intake_connections",
        "log_lines_dropped",
        "broker_connected",
        "broker_reconnects",
        "broker_limit_bytes",
        "broker_waiting_packets",
        "broker_in_flight_packets",
        "broker_unclaimed_packets",
        "broker_bytes",
        "broker_oldest_age_seconds",
        "broker_gateways",
        "broker_workers",
    )
)
"""Metrics that are the same for both products."""


class DaemonCollector(Collector):
    """Turns the daemon's state into metrics. Any thread.

    Args:
        state: The daemon's state.
        version: This package's version.
    """

    def __init__(self, state: DaemonState, version: str) -> None:
        self._state = state
        self._version = version

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._rows()
        yield from self._queue()
        yield from self._broker()
        yield from self._of_worker()
        yield from self._delivery()
        yield from self._dead_letters()
        yield from self._intake()
        yield from self._daemon()

    def _rows(self) -> Iterator[Metric]:
        accounts = self._state.accounts()
        model = ("model",)
        both = ("model", "reason")
        found = "" if self._state.station.fleet is not None else ", and found in the spool"
        yield _counter("captured", f"Rows taken in{found}.", model, _one(accounts.captured))
        yield _counter("delivered", "Rows that Arthur took.", model, _one(accounts.delivered))
        yield _counter("rejected", "Rows that Arthur refused for good.", both, accounts.rejected)
        yield _counter("dropped", "Rows that were given up.", both, accounts.dropped)
        if accounts.returned:
            text = "Rows that went back to the broker, for any worker to deliver."
            yield _counter("returned", text, model, _one(accounts.returned))
        # Of one snapshot, so that captured = delivered + rejected + dropped + returned + pending.
        yield _gauge("pending_rows", "Rows that wait.", sum(accounts.pending.values()))

    def _queue(self) -> Iterator[Metric]:
        state = self._state
        queue = state.queue()
        yield _gauge("pending_bytes", "Bytes that waiting rows take.", queue.pending_bytes)
        yield from self._spool(queue)
        yield _gauge(
            "oldest_row_age_seconds",
            "How long the oldest row has waited; 0 when none waits.",
            queue.oldest_age_seconds,
        )

    def _spool(self, queue: Queue) -> Iterator[Metric]:
        state = self._state
        if state.station.fleet is not None:
            return
        yield _gauge("spool_rows", "Rows in the spool.", queue.spool_rows)
        yield _gauge("spool_bytes", "Bytes that the spool takes.", queue.spool_bytes)
        yield _gauge("spool_limit_bytes", "Bytes that it may take.", queue.spool_limit_bytes)
        damaged = state.pipeline.waiting().damaged_files
        yield _counter(
            "spool_damaged_files",
            "Files of the spool that were found damaged and set aside.",
            (),
            {(): damaged.quarantined},
        )
        yield _counter(
            "spool_damaged_files_removed",
            "Files that were set aside, and gave way to newer ones that are damaged.",
            (),
            {(): damaged.removed},
        )

    def _broker(self) -> Iterator[Metric]:
        fleet, publishing = self._state.station.fleet, self._state.station.publishing
        if fleet is None:
            return
        known = fleet.state
        yield _gauge("broker_connected", "1 while there is a connection.", int(known.connected))
        yield _counter(
            "broker_reconnects", "How often it was made again.", (), {(): known.reconnects}
        )
        if publishing is not None:
            yield _histogram(
                "broker_publish_seconds",
                "How long packets took until the broker had them.",
                publishing.seconds.read(),
            )
            yield _counter(
                "broker_publish_errors",
                "Attempts that failed, and requests that were put off.",
                ("reason",),
                _one(dict(publishing.errors)),
            )
        backlog = known.backlog
        yield _gauge("broker_limit_bytes", "Bytes that may wait there.", known.limit_bytes)
        # What is not known is left out: a zero would say that nothing waits.
        for name, text, value in (
            ("waiting_packets", "Packets that no worker has in hand.", backlog.waiting_packets),
            ("in_flight_packets", "Packets that workers have.", backlog.in_flight_packets),
            (
                "unclaimed_packets",
                "Messages that no worker gets, as no consumer is for their subjects.",
                backlog.unclaimed_packets,
            ),
            ("bytes", "Bytes of all packets that wait.", backlog.bytes),
            (
                "oldest_age_seconds",
                "How long the oldest packet has waited; 0 when none waits.",
                backlog.oldest_age_seconds,
            ),
            ("gateways", "Gateways of the fleet that are there.", known.gateways),
            ("workers", "Workers of the fleet that are there.", known.workers),
        ):
            if value is not None:
                yield _gauge(f"broker_{name}", text, value)

    def _of_worker(self) -> Iterator[Metric]:
        counts = self._state.station.broker_counts()
        if counts is None:
            return
        yield _gauge("broker_in_hand_packets", "Packets that this worker has.", counts.packets)
        yield _counter(
            "broker_redelivered_rows",
            "Rows that the broker had handed out before, to this worker or another one.",
            (),
            {(): counts.redelivered_rows},
        )
        yield _counter(
            "broker_ack_errors",
            "Acknowledgements that the broker did not confirm; they are repeated.",
            (),
            {(): counts.failed_acknowledgements},
        )
        yield _counter(
            "broker_newer_packets",
            "Packets of a later version that were left to newer workers, each time.",
            (),
            {(): counts.newer_packets},
        )
        held = self._state.pipeline.sender.breaker.held(time.monotonic()) > 0
        yield _gauge("broker_held", "1 while Arthur asked for no requests.", int(held))

    def _delivery(self) -> Iterator[Metric]:
        state = self._state
        seen, sender, ledger = state.seen, state.pipeline.sender, state.pipeline.ledger
        yield _histogram("batch_rows", "Rows of a request to Arthur.", seen.batch_rows.read())
        yield _histogram("batch_bytes", "Bytes of one.", seen.batch_bytes.read())
        yield _histogram(
            "delivery_seconds", "How long one attempt took.", seen.delivery_seconds.read()
        )
        yield _counter(
            "requests",
            "Requests to Arthur by what became of them.",
            ("outcome",),
            _one(dict(seen.outcomes)),
        )
        yield _counter(
            "retries", "Requests that repeated an earlier one.", (), {(): ledger.retries}
        )
        yield _counter(
            "questions",
            "Questions to Arthur for models by what became of them; clients wait for the answers.",
            ("outcome",),
            _one({each.value: seen.questions.outcomes[each] for each in QuestionOutcome}),
        )
        yield _gauge(
            "questions_failing",
            "1 while the last one had no answer.",
            int(bool(seen.questions.failure)),
        )
        yield _gauge("breaker_open", "1 while only probes are sent.", int(sender.is_down))
        yield _gauge(
            "models_held",
            "Models of which nothing goes through, whatever becomes of the others.",
            sender.held_count,
        )
        yield _gauge(
            "credentials_refused",
            "1 while Arthur refuses the credentials, and rows wait.",
            int(bool(sender.authorization.refusal)),
        )
        yield _counter(
            "breaker_opened", "How often the breaker opened.", (), {(): sender.breaker.opened}
        )
        yield _gauge("in_flight", "Requests on their way.", sender.sending)
        yield _gauge("in_flight_limit", "Requests that may be at once.", sender.limit.requests)

    def _dead_letters(self) -> Iterator[Metric]:
        state = self._state
        yield _counter(
            "dead_letters",
            "Rows that became dead letters.",
            ("reason",),
            _one(dict(state.pipeline.dead_letters.added)),
        )
        yield _counter(
            "dead_letters_evicted",
            "Dead letters that gave way to newer ones, for want of room: they are lost.",
            (),
            {(): state.pipeline.dead_letters.evicted},
        )
        kept = state.dead_letters()
        if kept is not None:
            yield _gauge("dead_letters", "Dead letters that are kept.", sum(kept.values()))

    def _intake(self) -> Iterator[Metric]:
        counts, seen = self._state.counts, self._state.seen
        requests = {
            (method, str(status)): n for (method, status), n in dict(counts.requests).items()
        }
        yield _counter(
            "intake_requests", "Requests for rows, by answer.", ("method", "status"), requests
        )
        yield _counter(
            "intake_rows", "Rows by what became of them.", ("status",), _one(dict(counts.rows))
        )
        yield _counter(
            "intake_repaired",
            "Accepted rows that Arthur could not have stored as they came.",
            (),
            {(): counts.repaired},
        )
        yield _histogram(
            "intake_seconds", "How long clients waited for 207.", seen.intake_seconds.read()
        )
        connections = sum(
            count
            for endpoint, count in dict(counts.connections).items()
            if endpoint != Endpoint.VIEWS.value
        )
        yield _gauge("intake_connections", "Open connections of clients.", connections)

    def _daemon(self) -> Iterator[Metric]:
        state = self._state
        yield _counter(
            "worker_restarts",
            "How often the worker died and came back.",
            (),
            {(): state.pipeline.restarts},
        )
        yield _counter(
            "log_lines_dropped",
            "Log lines that nobody will see, because standard error was not read, or is closed.",
            (),
            {(): 0 if state.log is None else state.log.dropped},
        )
        yield _gauge("loop_lag_seconds", "How late the slower loop is.", state.loop_lag_seconds())
        yield _gauge("ready", "1 while rows are taken.", int(state.readiness()[0]))
        info = GaugeMetricFamily(
            f"{PREFIX}build_info", "What runs; always 1.", labels=("version", "python", "role")
        )
        role = state.current.settings.role.value
        info.add_metric((self._version, platform.python_version(), role), 1)
        yield info


class BothProductsCollector(Collector):
    """The metrics of both products, told apart by a label. Any thread.

    Those of the daemon as a whole have no such label.

    Args:
        states: The states of both products.
        version: This package's version.
    """

    def __init__(self, states: Sequence[DaemonState], version: str) -> None:
        self._products = [
            (_LABELS[state.product], DaemonCollector(state, version)) for state in states
        ]

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        found: dict[str, Metric] = {}
        for product, collector in self._products:
            for metric in collector.collect():
                first = found.setdefault(metric.name, metric)
                if metric.name in _OF_THE_WHOLE:
                    continue
                labelled = [
                    each._replace(labels={"product": product, **each.labels})
                    for each in metric.samples
                ]
                first.samples = labelled if first is metric else [*first.samples, *labelled]
        yield from found.values()


class Metrics:
    """The metrics of one daemon, in a registry of their own. Any thread.

    Args:
        states: The states of its products.
        version: This package's version.
    """

    def __init__(self, states: Sequence[DaemonState], version: str) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        collector: Collector
        if len(states) == 1:
            collector = DaemonCollector(states[0], version)
        else:
            collector = BothProductsCollector(states, version)
        self._registry.register(collector)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the metrics in the format of `CONTENT_TYPE`."""
        return generate_latest(self._registry)


def _one(counts: Mapping[str, int]) -> Counter[tuple[str, ...]]:
    """Return the counts with a single label."""
    return Counter({(name,): count for name, count in counts.items()})


def _counter(
    name: str,
    text: str,
    labels: Iterable[str],
    counts: Mapping[tuple[str, ...], int] | Mapping[tuple[str, str], int] | Mapping[tuple[()], int],
) -> Metric:
    family = CounterMetricFamily(PREFIX + name, text, labels=tuple(labels))
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _histogram(name: str, text: str, found: Distribution) -> Metric:
    buckets = [("+Inf" if bound == float("inf") else str(bound), n) for bound, n in found.buckets]
    return HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=found.total)
