"""The variables of the daemon that files in deploy/ may set."""

from __future__ import annotations

DAEMON_PREFIX = "ARTHUR_RELAY_DAEMON_"
_NAMES = (
    "socket",
    "socket_mode",
    "socket_group",
    "allowed_uids",
    "listen",
    "tls_certificate",
    "tls_key",
    "tokens_file",
    "metrics_listen",
    "max_body_bytes",
    "max_rows",
    "max_row_bytes",
    "max_connections",
    "client_timeout_seconds",
    "log_format",
    "log_level",
)


def daemon_variables() -> set[str]:
    """Return the names of the daemon's variables."""
    return {f"{DAEMON_PREFIX}{name.upper()}" for name in _NAMES}
