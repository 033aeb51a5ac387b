"""The names in the daemon's /metrics, asked of its own code, and those of an expression."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from arthur_relay.accounting import ModelLedger
from arthur_relay.broker.fleet import Backlog, Fleet, FleetState
from arthur_relay.broker.letter_listener import LetterListener
from arthur_relay.broker.monitoring import ServerReport
from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.broker.shares import Shares
from arthur_relay.credentials import Credentials
from arthur_relay.daemon.auth import Authenticator
from arthur_relay.daemon.configuration import Configuration, ProductConfiguration
from arthur_relay.daemon.current import Current
from arthur_relay.daemon.metrics import DaemonCollector
from arthur_relay.daemon.roles.gateway import Gateway, new_link
from arthur_relay.daemon.roles.host import HostStation
from arthur_relay.daemon.roles.worker import FleetWorker
from arthur_relay.daemon.settings import DaemonSettings, RoleName
from arthur_relay.daemon.state import DaemonState
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.product import Product
from arthur_relay.settings import RelaySettings
from arthur_relay.worker.host import StandingHost
from arthur_relay.worker.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from arthur_relay.daemon.roles import Station


def _families(role: RoleName) -> list[Metric]:
    """Return the metrics of a daemon that is not started."""
    is_host = role is RoleName.HOST
    settings = RelaySettings(spool_dir=Path("/nonexistent") if is_host else None)
    credentials = Credentials(url="http://localhost", api_key="key")
    product = ProductConfiguration(Product.SCOPE, settings, credentials)
    daemon = DaemonSettings(role=role)
    broker = None if is_host else BrokerSettings(url="nats://localhost:4222")
    station = _station(Configuration(daemon, settings, (product,), broker), product)
    destination = ScopeDestination.of(credentials, settings)
    pipeline = Pipeline.build(settings, destination, host=StandingHost(), by_model=ModelLedger())
    current = Current(daemon, Authenticator(None, allowed_uids=None), products=1)
    state = DaemonState(current, settings, pipeline, station, destination.name)
    return list(DaemonCollector(state, "0").collect())


def _station(configuration: Configuration, product: ProductConfiguration) -> Station:
    """Return what a role does with rows, with a broker of which everything is known."""
    role, broker = configuration.daemon.role, configuration.broker
    if broker is None:
        return HostStation(product)
    link = new_link(broker, configuration, role.value)
    fleet = _KnownFleet(link, role.value)
    if role is RoleName.WORKER:
        worker = FleetWorker(configuration)
        worker.fleet = fleet
        return worker.station(product)
    gateway = Gateway(configuration)
    gateway.fleet, gateway.letters = fleet, LetterListener(link)
    gateway.shares = Shares(broker.bytes, broker.model_share)
    return gateway.station(product)


class _KnownFleet(Fleet):
    @property
    def state(self) -> FleetState:
        return FleetState(
            connected=True,
            server="2.14.6",
            reconnects=0,
            backlog=Backlog(
                waiting_packets=1,
                in_flight_packets=1,
                unclaimed_packets=1,
                bytes=1,
                oldest_age_seconds=1.0,
            ),
            limit_bytes=1,
            gateways=1,
            workers=1,
            servers=[ServerReport("nats-1", syncs_always=True, packets=1)],
        )


def _names(family: Metric) -> list[str]:
    match family.type:
        case "counter":
            return [f"{family.name}_total"]
        case "histogram":
            return [f"{family.name}_{part}" for part in ("bucket", "count", "sum")]
        case _:
            return [family.name]


FAMILIES = _families(RoleName.HOST)
"""The metrics of a daemon that is no part of a fleet."""


def _all_names(families: Iterable[Metric]) -> set[str]:
    return {name for family in families for name in _names(family)}


HOST = _all_names(FAMILIES)
FLEET = {
    name for role in (RoleName.GATEWAY, RoleName.WORKER) for name in _all_names(_families(role))
}
OWN = HOST | FLEET
# Of prometheus_client's own collector, and of Prometheus itself.
OTHERS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "up",
}
_WORDS = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def names_in(expression: str) -> set[str]:
    """Return the names of metrics in a PromQL expression, by their prefixes."""
    bare = re.sub(r'"[^"]*"', "", expression)
    return {
        word
        for word in _WORDS.findall(bare)
        if word == "up" or word.startswith(("arthur_relay_", "process_"))
    }
