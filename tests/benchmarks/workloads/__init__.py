"""The workloads, in the order of the report, and what the measuring process can do for them."""

from __future__ import annotations

from typing import Final

from tests.benchmarks.workloads import (
    adapting,
    alone,
    by_daemon,
    caller_path,
    durable,
    exiting,
    fleet,
    importing,
    latency,
    memory,
    process,
    scaling,
    span_encoding,
    throughput,
    trace_delivery,
    tracing,
)
from tests.benchmarks.workloads.workload import Commands, Workload

_MODULES: Final = (
    caller_path,
    latency,
    throughput,
    alone,
    memory,
    importing,
    scaling,
    exiting,
    adapting,
    durable,
    by_daemon,
    tracing,
    span_encoding,
    trace_delivery,
    fleet,
)

WORKLOADS: Final[dict[str, Workload]] = {
    module.WORKLOAD.name: module.WORKLOAD for module in _MODULES
}
COMMANDS: Final[Commands] = {
    **process.COMMANDS,
    **{name: command for module in _MODULES for name, command in module.COMMANDS.items()},
}
