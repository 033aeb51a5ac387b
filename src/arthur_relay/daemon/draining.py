"""Says how far the draining at a stop is, to whoever waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.daemon.log_writer import LogWriter

logger = logging.getLogger("arthur_relay.daemon")

LOOK_SECONDS = 0.5
"""How often a terminal's live line is renewed."""

LOG_SECONDS = 5.0
"""How often it is logged, where there is no terminal."""


def sentence(rows: int, *, passed_seconds: float, limit_seconds: float) -> str:
    """Return what is shown: how many rows are left, and how much of the time is over."""
    return f"draining: {rows:,} rows left, {passed_seconds:.0f} s of {limit_seconds:g} s"


async def report_draining(
    rows_left: Callable[[], int],
    *,
    deadline: float,
    limit_seconds: float,
    log: LogWriter | None,
) -> None:
    """Report until it is cancelled: by a live line on a terminal, else by a log line now and then.

    Args:
        rows_left: Returns how many rows wait.
        deadline: The end of the draining, on the scale of `time.monotonic`.
        limit_seconds: How long it may take in all.
        log: Writes the log, if that is the daemon's own.
    """
    is_live = log is not None and log.is_terminal
    try:
        while True:
            await asyncio.sleep(LOOK_SECONDS if is_live else LOG_SECONDS)
            text = sentence(
                rows_left(),
                passed_seconds=time.monotonic() - deadline + limit_seconds,
                limit_seconds=limit_seconds,
            )
            if log is not None and is_live:
                log.show(text)
            else:
                logger.info("%s", text)
    finally:
        if log is not None:
            log.show("")
