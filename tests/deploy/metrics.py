"""The names in the daemon's /metrics, asked of its own code, and those of an expression."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from arthur_relay.accounting import ModelLedger
from arthur_relay.credentials import Credentials
from arthur_relay.daemon.auth import Authenticator
from arthur_relay.daemon.configuration import ProductConfiguration
from arthur_relay.daemon.current import Current
from arthur_relay.daemon.metrics import DaemonCollector
from arthur_relay.daemon.roles.host import HostStation
from arthur_relay.daemon.settings import DaemonSettings
from arthur_relay.daemon.state import DaemonState
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.product import Product
from arthur_relay.settings import RelaySettings
from arthur_relay.worker.host import StandingHost
from arthur_relay.worker.pipeline import Pipeline

if TYPE_CHECKING:
    from prometheus_client.core import Metric


def _families() -> list[Metric]:
    """Return the metrics of a daemon that is not started."""
    settings = RelaySettings(spool_dir=Path("/nonexistent"))
    credentials = Credentials(url="http://localhost", api_key="key")
    destination = ScopeDestination.of(credentials, settings)
    pipeline = Pipeline.build(settings, destination, host=StandingHost(), by_model=ModelLedger())
    access = Authenticator(None, allowed_uids=None)
    current = Current(DaemonSettings(), access, products=1)
    product = ProductConfiguration(Product.SCOPE, settings, credentials)
    state = DaemonState(current, settings, pipeline, HostStation(product), destination.name)
    return list(DaemonCollector(state, "0").collect())


def _names(family: Metric) -> list[str]:
    match family.type:
        case "counter":
            return [f"{family.name}_total"]
        case "histogram":
            return [f"{family.name}_{part}" for part in ("bucket", "count", "sum")]
        case _:
            return [family.name]


FAMILIES = _families()
OWN = {name for family in FAMILIES for name in _names(family)}
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
