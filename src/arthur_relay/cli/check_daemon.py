"""`arthur-relay check --daemon`: would the daemon start with this, and would its rows arrive?"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import anyio
import typer

from arthur_relay.cli.check import check_credentials, warn_of_unknown_variables
from arthur_relay.cli.check_arthur import ask_arthur, check_client_certificate
from arthur_relay.cli.check_broker import check_broker
from arthur_relay.cli.check_engine import ask_engine, check_engine_settings, check_packages
from arthur_relay.cli.check_spool import (
    check_dead_letter_file,
    check_files_to_move,
    check_spool,
)
from arthur_relay.cli.report import Report, secrets
from arthur_relay.daemon.auth import read_tokens
from arthur_relay.daemon.configuration import ENGINE_DIRECTORY, check_listener, load
from arthur_relay.daemon.self_delivery import refuse_own_address
from arthur_relay.daemon.settings import RoleName, read_address
from arthur_relay.daemon.sockets import (
    NOTHING_TO_LISTEN_ON,
    listen_tcp,
    load_tls,
    refuse_in_spool,
    shown,
    try_unix,
)
from arthur_relay.daemon.systemd import passed_sockets
from arthur_relay.destinations.engine.client import EngineDestination, engine_owner
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError
from arthur_relay.settings import ENVIRONMENT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from arthur_relay.daemon.configuration import Configuration, ProductConfiguration
    from arthur_relay.daemon.settings import DaemonSettings
    from arthur_relay.row import RowOwner

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
    is_trusted = False
    away = ""
    if configuration is not None:
        report.secrets = _secrets_of(configuration)
        running = _check_spools(report, configuration)
        if configuration.broker is not None:
            away = check_broker(report, configuration, configuration.broker)
        check_dead_letter_file(report, configuration.relay.dead_letter_file)
        _check_listeners(report, configuration, running=running)
        trusted = [_check_trust(report, each) for each in configuration.products]
        is_trusted = all(trusted)
    starts = report.count("✗") == 0
    if configuration is not None and is_trusted:
        for product in configuration.products:
            _check_arthur(report, product)
    if away:
        report.wrong("Broker", f"It can't be reached: {away}.")
    report.show("What arthur-relay serve would find; nothing is sent or changed.")
    if not starts:
        report.conclude("The daemon would not start: see ✗ above", "bold red")
        raise typer.Exit(WOULD_NOT_START)
    if away:
        report.conclude("The daemon would start, and wait for the broker: see ✗ above", "bold red")
        raise typer.Exit(WOULD_NOT_DELIVER)
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
    # Not those that the loader sets itself.
    relay = {
        name
        for name in found.relay.model_fields_set
        if ENVIRONMENT_PREFIX + name.upper() in os.environ
    }
    changed = sorted(found.daemon.model_fields_set | relay)
    of_broker = () if found.broker is None else found.broker.model_fields_set
    changed += sorted(f"broker_{name}" for name in of_broker)
    source = "" if env_file is None else f", with the file {env_file}"
    report.fine("Settings", f"Valid{source}; set: {', '.join(changed)}.")
    if len(found.products) > 1:
        names = " and ".join(each.product for each in found.products)
        report.fine("Products", f"{names}: each has a pipeline of its own, and half the room.")
    warn_of_unknown_variables(report)
    return found


def _check_spools(report: Report, configuration: Configuration) -> bool:
    """Look at the spool of each product. Returns whether a daemon has one now."""
    whole = configuration.spool_dir
    if whole is None:
        return False
    engine = next(
        (each.spool_dir for each in configuration.products if each.product is Product.ENGINE), None
    )
    running = False
    for product in configuration.products:
        elsewhere = None if engine == product.spool_dir else engine
        has_spool = check_spool(report, product.relay, _owner(product), engine_directory=elsewhere)
        running = running or has_spool
    if engine is not None:
        check_files_to_move(report, whole / ENGINE_DIRECTORY, engine)
    return running


def _check_listeners(report: Report, configuration: Configuration, *, running: bool) -> None:
    settings = configuration.daemon
    passed = _check_passed(report, configuration)
    unix, tcp = passed or ([], [])
    if settings.socket is not None and passed is not None and not unix:
        spool = configuration.spool_dir
        _check_socket(report, settings, settings.socket, spool, running=running)
    elif passed is not None and not (unix or tcp or settings.listen) and _takes_rows(settings):
        report.wrong("Socket", f"There is nothing to take rows on: {NOTHING_TO_LISTEN_ON}.")
    _check_addresses(report, settings, running=running)
    _check_no_loop(report, configuration, unix, tcp)
    try:
        if load_tls(settings) is not None:
            report.fine("TLS", "The certificate and its key belong together.")
        if settings.tokens_file is not None:
            tokens = read_tokens(settings.tokens_file)
            report.fine("Tokens", f"There are {len(tokens)}, in {settings.tokens_file}.")
    except ConfigurationError as error:
        report.wrong("TCP", str(error))


def _takes_rows(settings: DaemonSettings) -> bool:
    """Return whether a daemon has to listen for rows; a worker may have its views alone."""
    return settings.role is not RoleName.WORKER or settings.metrics_listen is None


def _check_no_loop(
    report: Report,
    configuration: Configuration,
    unix: Sequence[str],
    tcp: Sequence[tuple[str, int]],
) -> None:
    """Check that Arthur's address is neither the daemon's own nor that of a passed socket."""
    settings = configuration.daemon
    sockets = unix or ([str(settings.socket)] if settings.socket is not None else [])
    named = [read_address(each) for each in (settings.listen, settings.metrics_listen) if each]
    for product in configuration.products:
        try:
            refuse_own_address(
                product.credentials.url,
                sockets,
                [*tcp, *named],
                variable=product.address_variable,
            )
        except ConfigurationError as error:
            report.wrong("Circle", str(error))


def _check_passed(
    report: Report, configuration: Configuration
) -> tuple[list[str], list[tuple[str, int]]] | None:
    """Check the sockets from the service manager, also where a shell is to become the daemon.

    Returns:
        The paths of Unix sockets that are passed, and the addresses of those of TCP; None where
        something is wrong with them.
    """
    pid = next((each for each in (os.getpid(), os.getppid()) if _is_passed_to(each)), os.getpid())
    try:
        unix, tcp = passed_sockets(os.environ, pid)
        for each in tcp:
            what = f"A socket that is passed is {shown([each])}"
            host = each.getsockname()[0]
            check_listener(configuration.daemon, configuration.relay, host, what)
    except ConfigurationError as error:
        report.wrong("Socket", str(error))
        return None
    found = [str(each.getsockname()) for each in unix], [each.getsockname()[:2] for each in tcp]
    for each in (*unix, *tcp):
        report.fine("Socket", f"One is passed by the service manager: {each.getsockname()}.")
        each.detach()  # they are for the daemon
    return found


def _is_passed_to(pid: int) -> bool:
    return os.environ.get("LISTEN_PID") == str(pid)


def _check_socket(
    report: Report, settings: DaemonSettings, path: Path, spool: Path | None, *, running: bool
) -> None:
    try:
        if spool is not None:
            refuse_in_spool(path, spool)
        if running:
            report.note("Socket", f"{path} is not tried, as a daemon runs.")
            return
        try_unix(path, mode=settings.socket_mode, group=settings.socket_group, spool=spool)
    except ConfigurationError as error:
        report.wrong("Socket", str(error))
    else:
        report.fine("Socket", f"{path} can be made.")


def _check_addresses(report: Report, settings: DaemonSettings, *, running: bool) -> None:
    """Listen on all addresses at once, as a start does, because one may exclude another.

    While a daemon runs and has the addresses, other ports are tried instead.
    """
    instead: dict[int, int] = {}
    with ExitStack() as stack:
        for subject, address in (("TCP", settings.listen), ("Views", settings.metrics_listen)):
            if address is None:
                continue
            host, port = read_address(address)
            try:
                found = listen_tcp(host, instead.get(port, 0) if running else port)
            except ConfigurationError as error:
                other = f"{address} is the other address as well, or a part of it."
                report.wrong(subject, other if port in instead else str(error))
                continue
            for each in found:
                stack.callback(each.close)
            if running:
                report.note(subject, f"{address} is not tried, as a daemon runs.")
            else:
                report.fine(subject, f"{address} can be listened on.")
            if port:
                instead[port] = found[0].getsockname()[1]


def _check_trust(report: Report, configuration: ProductConfiguration) -> bool:
    """Load the certificates of the authorities that are trusted, as a start does."""
    is_engine = configuration.product is Product.ENGINE
    if is_engine and not check_packages(report):
        return False

    async def enter() -> None:
        credentials, settings = configuration.credentials, configuration.relay
        if not is_engine:
            async with ScopeDestination.of(credentials, settings):
                pass
        else:
            async with EngineDestination.of(credentials, settings):
                pass

    try:
        anyio.run(enter)
    except ConfigurationError as error:
        report.wrong("Trust", str(error))
        return False
    return True


def _check_arthur(report: Report, configuration: ProductConfiguration) -> None:
    settings = configuration.relay
    if configuration.product is Product.ENGINE:
        if check_engine_settings(
            report,
            settings,
            configuration.credentials,
            key_variable=configuration.key_variable,
        ):
            named = os.environ.get("ARTHUR_TASK_ID", "").strip()
            ask_engine(report, settings, configuration.credentials, named)
        return
    credentials = check_credentials(report, settings)
    if credentials is None or not check_client_certificate(report, settings, credentials):
        return
    model_id = os.environ.get("ARTHUR_MODEL_ID", "").strip()
    schema = ask_arthur(report, credentials, settings, model_id, ScopeDestination)
    if schema is not None:
        report.fine("Model", f"{schema.model_id} is an LLM.")


def _owner(configuration: ProductConfiguration) -> RowOwner:
    """Return whose the rows of a product are that the daemon would take."""
    if configuration.product is Product.ENGINE:
        return engine_owner(configuration.credentials)
    return configuration.credentials.owner


def _secrets_of(configuration: Configuration) -> tuple[str, ...]:
    found = [each.credentials for each in configuration.products]
    more = [secret for each in found for secret in (each.api_key, each.password) if secret]
    more += configuration.broker.secrets if configuration.broker is not None else []
    return (*secrets(), *more)
