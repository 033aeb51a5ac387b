"""The names in the daemon's /metrics, and those that an expression asks for."""

from __future__ import annotations

import re

# Held against the daemon's own registry in test_prometheus.py.
COUNTERS = {
    "captured_total",
    "breaker_opened_total",
    "dead_letters_total",
    "delivered_total",
    "dropped_total",
    "intake_requests_total",
    "intake_rows_total",
    "rejected_total",
    "requests_total",
    "retries_total",
    "worker_restarts_total",
}
GAUGES = {
    "breaker_open",
    "build_info",
    "dead_letters",
    "in_flight",
    "in_flight_limit",
    "intake_connections",
    "loop_lag_seconds",
    "oldest_row_age_seconds",
    "pending_bytes",
    "pending_rows",
    "ready",
    "spool_bytes",
    "spool_limit_bytes",
    "spool_rows",
}
HISTOGRAMS = {"batch_bytes", "batch_rows", "delivery_seconds", "intake_seconds"}
OWN = {f"arthur_relay_{name}" for name in COUNTERS | GAUGES} | {
    f"arthur_relay_{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")
}
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
