"""`arthur-relay healthcheck`: does the daemon live, does it take rows? For probes that run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from arthur_relay.cli.daemon_client import NoAnswerError
from arthur_relay.cli.extra import fail
from arthur_relay.system.terminal import printable

if TYPE_CHECKING:
    from arthur_relay.cli.daemon_client import Daemon


def run_healthcheck(daemon: Daemon, *, ready: bool) -> None:
    """Ask, and print the sentence of the answer.

    Raises:
        typer.Exit: With 1 when the answer is no, or when there is none.
    """
    try:
        status, body = daemon.get("/readyz" if ready else "/healthz")
    except NoAnswerError as error:
        fail(str(error))
    sentence = _sentence(body)
    if status != 200:
        fail(sentence or f"{daemon.name} answers {status}.")
    typer.echo(printable(sentence))


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, TypeError, KeyError):
        return ""
