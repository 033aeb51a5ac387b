"""File descriptors: connections must not use up those that the spool needs."""

from __future__ import annotations

import logging

from arthur_relay.settings.variables import DAEMON_PREFIX
from arthur_relay.system.operating_system import open_files

logger = logging.getLogger("arthur_relay.daemon")

RESERVED = 256
"""Descriptors for everything but clients' connections: the spool, Arthur, the log."""


def connections_that_fit(most: int, *, listeners: int) -> int:
    """Return how many connections each listener may have, and as many newcomers.

    Raises the process's soft limit as far as needed and allowed.

    Args:
        most: The wanted number of connections; 1 or more.
        listeners: The number of listeners; 1 or more.
    """
    limit = open_files(RESERVED + 2 * most * listeners)
    fitting = max(1, (limit - RESERVED) // (2 * listeners))
    if fitting < most:
        logger.warning(
            "each listener takes %d connections, not %d: the limit on open files is %d;"
            " raise it (ulimit -Hn, LimitNOFILE=), or lower %sMAX_CONNECTIONS",
            fitting,
            most,
            limit,
            DAEMON_PREFIX,
        )
    return min(most, fitting)
