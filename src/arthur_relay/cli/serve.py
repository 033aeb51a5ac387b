"""`arthur-relay serve`: the daemon, until a signal ends it."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import typer

from arthur_relay.cli.extra import fail
from arthur_relay.daemon.configuration import load
from arthur_relay.daemon.logs import set_up
from arthur_relay.daemon.server import Daemon
from arthur_relay.daemon.settings import DAEMON_PREFIX
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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
        set_up(configuration.daemon.log_format, configuration.daemon.log_level)
        status = asyncio.run(_serve(Daemon(configuration, read)))
    except ConfigurationError as error:
        fail(str(error), code=2)
    raise typer.Exit(status)


async def _serve(daemon: Daemon) -> int:
    return await daemon.run()
