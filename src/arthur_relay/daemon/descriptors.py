"""File descriptors: as many connections as there may be must not take those of the spool."""

from __future__ import annotations

import logging

from arthur_relay.system.operating_system import open_files

logger = logging.getLogger("arthur_relay.daemon")

OTHERS = 256
"""Descriptors for all but connections of clients: the spool, Arthur, the log."""


def connections_that_fit(most: int, *, listeners: int) -> int:
    """Return how many connections each listener may have, with as many newcomers beside them.

    Raises the process's soft limit as far as that takes, and is allowed.

    Args:
        most: How many are wanted; 1 or more.
        listeners: How many listeners there are; 1 or more.
    """
    limit = open_files(OTHERS + 2 * most * listeners)
    fitting = max(1, (limit - OTHERS) // (2 * listeners))
    if fitting < most:
        logger.warning(
            "each listener has room for %d connections, not %d: the limit on open files is %d;"
            " raise it (ulimit -Hn, LimitNOFILE=)",
            fitting,
            most,
            limit,
        )
    return min(most, fitting)
