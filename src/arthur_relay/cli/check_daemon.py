"""`arthur-relay check --daemon`: would the daemon start with this, and would its rows arrive?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

from arthur_relay.cli.check import (
    ask_arthur,
    check_client_certificate,
    check_credentials,
    warn_of_unknown_variables,
)
from arthur_relay.cli.check_spool import check_dead_letter_file, check_spool
from arthur_relay.cli.report import Report, secrets
from arthur_relay.daemon.access import read_tokens
from arthur_relay.daemon.configuration import load
from arthur_relay.daemon.settings import read_address
from arthur_relay.daemon.sockets import NOTHING_TO_LISTEN_ON, listen_tcp, try_unix
from arthur_relay.daemon.tls import load_tls
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.credentials import Credentials
    from arthur_relay.daemon.configuration import Configuration
    from arthur_relay.daemon.settings import DaemonSettings

WOULD_NOT_START = 2
WOULD_NOT_DELIVER = 1


def run_check_daemon(env_file: Path | None) -> None:
    """Check all that `arthur-relay serve` needs, and print what was found. Changes nothing.

    Args:
        env_file: As that of `serve`.

    Raises:
        typer.Exit: With 2 when the daemon would not start, with 1 when it would start, and could
            not deliver.
    """
    report = Report(secrets=secrets())
    configuration = _check_configuration(report, env_file)
    if configuration is not None:
        report.secrets = _secrets_of(configuration.credentials)
        running = check_spool(report, configuration.relay, configuration.credentials.owner)
        check_dead_letter_file(report, configuration.relay.dead_letter_file)
        _check_doors(report, configuration.daemon, running=running)
    starts = report.count("✗") == 0
    if configuration is not None:
        _check_arthur(report, configuration)
    report.show("What arthur-relay serve would find; nothing is sent or changed.")
    if not starts:
        report.conclude("The daemon would not start: see ✗ above", "bold red")
        raise typer.Exit(WOULD_NOT_START)
    if report.count("✗"):
        report.conclude(
            "The daemon would start and take rows, and could not deliver them: see ✗ above",
            "bold red",
        )
        raise typer.Exit(WOULD_NOT_DELIVER)
    report.conclude("Ready: the daemon would start, and rows will reach Arthur", "bold green")


def _check_configuration(report: Report, env_file: Path | None) -> Configuration | None:
    try:
        found = load(env_file)
    except ConfigurationError as error:
        report.secrets = secrets()
        report.wrong("Settings", str(error))
        warn_of_unknown_variables(report)
        report.note("Others", "Not looked at, because the settings are not valid.")
        return None
    changed = sorted(found.daemon.model_fields_set | found.relay.model_fields_set)
    report.fine("Settings", f"Valid; set: {', '.join(changed)}.")
    warn_of_unknown_variables(report)
    return found


def _check_doors(report: Report, settings: DaemonSettings, *, running: bool) -> None:
    path, activated = settings.socket, bool(os.environ.get("LISTEN_FDS"))
    if path is not None and not activated:
        _check_socket(report, settings, path, running=running)
    elif settings.listen is None and not activated:
        report.wrong("Socket", f"There is nothing to take rows on: {NOTHING_TO_LISTEN_ON}.")
    for subject, address in (("TCP", settings.listen), ("Views", settings.metrics_listen)):
        if address is not None:
            _check_address(report, subject, address, running=running)
    try:
        if load_tls(settings) is not None:
            report.fine("TLS", "The certificate and its key belong together.")
        if settings.tokens_file is not None:
            tokens = read_tokens(settings.tokens_file)
            report.fine("Tokens", f"There are {len(tokens)}, in {settings.tokens_file}.")
    except ConfigurationError as error:
        report.wrong("TCP", str(error))


def _check_socket(report: Report, settings: DaemonSettings, path: Path, *, running: bool) -> None:
    if running:
        report.note("Socket", f"{path} is not tried, as a daemon runs.")
        return
    try:
        try_unix(path, mode=settings.socket_mode, group=settings.socket_group)
    except ConfigurationError as error:
        report.wrong("Socket", str(error))
    else:
        report.fine("Socket", f"{path} can be made.")


def _check_address(report: Report, subject: str, address: str, *, running: bool) -> None:
    if running:
        report.note(subject, f"{address} is not tried, as a daemon runs.")
        return
    try:
        for listener in listen_tcp(*read_address(address)):
            listener.close()
    except ConfigurationError as error:
        report.wrong(subject, str(error))
    else:
        report.fine(subject, f"{address} can be listened on.")


def _check_arthur(report: Report, configuration: Configuration) -> None:
    settings = configuration.relay
    credentials = check_credentials(report, settings)
    if credentials is None or not check_client_certificate(report, settings, credentials):
        return
    model_id = os.environ.get("ARTHUR_MODEL_ID", "").strip()
    if not model_id:
        ask_arthur(report, credentials, settings, lambda arthur: arthur.check_access())
        return
    schema = ask_arthur(report, credentials, settings, lambda arthur: arthur.fetch_schema(model_id))
    if schema is not None:
        report.fine("Model", f"{schema.model_id} is an LLM.")


def _secrets_of(credentials: Credentials) -> tuple[str, ...]:
    more = (credentials.api_key, credentials.password)
    return (*secrets(), *(secret for secret in more if secret))
