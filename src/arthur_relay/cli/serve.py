"""`arthur-relay serve`: the daemon, until a signal ends it."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

import typer

from arthur_relay.cli.extra import fail
from arthur_relay.daemon.configuration import load, unknown_variables
from arthur_relay.daemon.logs import set_up
from arthur_relay.daemon.server import Daemon
from arthur_relay.daemon.settings import DAEMON_PREFIX
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

logger = logging.getLogger("arthur_relay.daemon")

COLLECT_AFTER = 5_000
"""Objects more than there were when the collector last looked."""


def run_serve(*, env_file: Path | None, given: Mapping[str, str | None]) -> None:
    """Run the daemon.

    Args:
        env_file: A file of variables, read again at each reload.
        given: The daemon's settings from the command line, by name.

    Raises:
        typer.Exit: With 0 after a clean stop, 2 when the configuration can't be used, else 1.
    """
    variables = {DAEMON_PREFIX + name.upper(): value for name, value in given.items() if value}
    read = partial(load, env_file, given=variables, started_with=dict(os.environ))
    try:
        configuration = read()
        writer = set_up(configuration.daemon.log_format, configuration.daemon.log_level)
        for unknown in unknown_variables(os.environ):
            logger.warning("%s", unknown.sentence)
        _collect_seldom()
        status = asyncio.run(_serve(Daemon(configuration, read, log=writer)))
    except ConfigurationError as error:
        fail(str(error), code=2)
    raise typer.Exit(status)


def _collect_seldom() -> None:
    """Have Python look for garbage in cycles less often, and not in what stays anyway.

    Each row is an object that the collector counts: by default it would look after every seven
    requests of a hundred rows, and through all modules now and then, which took a sixth of what a
    row costs. Rows are in no cycles; what is, is small.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


async def _serve(daemon: Daemon) -> int:
    return await daemon.run()
