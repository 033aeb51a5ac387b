"""The variables of the daemon that files in deploy/ may set."""

from __future__ import annotations

from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings

__all__ = ["DAEMON_PREFIX", "daemon_variables"]


def daemon_variables() -> set[str]:
    """Return the names of the daemon's variables."""
    return {f"{DAEMON_PREFIX}{name.upper()}" for name in DaemonSettings.model_fields}
