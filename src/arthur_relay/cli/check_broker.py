"""What a gateway or a worker of a fleet would find at its broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.daemon.settings import RoleName
from arthur_relay.errors import ConfigurationError, RelayError

if TYPE_CHECKING:
    from arthur_relay.broker.link import Link
    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.cli.report import Report
    from arthur_relay.daemon.configuration import Configuration


def check_broker(report: Report, configuration: Configuration, settings: BrokerSettings) -> str:
    """Look at the broker, and report what is there. Changes nothing.

    Args:
        report: Gets what a start would refuse.
        configuration: The daemon's.
        settings: The broker's.

    Returns:
        Why the broker can't be reached, which a start would wait for, or "".
    """
    try:
        # Here, because a host needs no client of a broker.
        from arthur_relay.daemon.roles.gateway import new_link  # noqa: PLC0415

        link = new_link(settings, configuration, "check")
        anyio.run(_look, report, configuration, link)
    except ConfigurationError as error:
        report.wrong("Broker", str(error))
    except RelayError as error:
        return str(error)
    return ""


async def _look(report: Report, configuration: Configuration, link: Link) -> None:
    connection = link.connection
    try:
        await connection.open()
        await _review(report, configuration, link)
    finally:
        await connection.close()
    await _check_sync(report, connection.settings)


async def _review(report: Report, configuration: Configuration, link: Link) -> None:
    connection = link.connection
    settings = connection.settings
    review = await link.provision.review()
    how = "with TLS" if settings.uses_tls else "without TLS"
    who = "as this client" if settings.has_credentials else "without credentials"
    report.fine("Broker", f"NATS {connection.server} takes us {how}, {who}.")
    for each in review.differences:
        report.wrong("Broker", f"It is not as it should be: {each}.")
    missing = ", ".join(each.what for each in review.missing)
    if missing and not settings.create:
        report.wrong("Broker", f"It has no {missing}, and {BROKER_PREFIX}CREATE is false.")
    elif missing:
        report.note("Broker", f"A start would make: {missing}.")
    elif not review.differences:
        report.fine("Broker", "Its streams and consumers are as they should be.")
    _check_copies(report, connection)
    _check_payload(report, configuration, connection)


def _check_copies(report: Report, connection: Connection) -> None:
    copies = connection.settings.replicas
    if copies == 1:
        report.warn("Broker", "Rows are on one disk alone: what that loses is lost.")
    elif not connection.is_clustered:
        report.wrong(
            "Broker",
            f"Its server is alone and can't keep {copies} copies ({BROKER_PREFIX}REPLICAS).",
        )
    else:
        report.fine("Broker", f"Each row has {copies} copies.")


def _check_payload(report: Report, configuration: Configuration, connection: Connection) -> None:
    if configuration.daemon.role is not RoleName.GATEWAY:
        return
    from arthur_relay.daemon.roles.gateway import row_limit_sentence  # noqa: PLC0415

    if sentence := row_limit_sentence(configuration, connection.most_bytes):
        report.warn("Broker", f"{sentence[0].upper()}{sentence[1:]}.")
    else:
        report.fine("Broker", "It takes rows of the largest size that is allowed.")


async def _check_sync(report: Report, settings: BrokerSettings) -> None:
    from arthur_relay.broker.monitoring import NoMonitoringError, check_sync  # noqa: PLC0415

    if not settings.monitoring_urls:
        report.warn(
            "Broker",
            f"Whether rows are on its disks when it acknowledges them is not known: set"
            f" {BROKER_PREFIX}MONITORING_URL.",
        )
        return
    try:
        await check_sync(settings.monitoring_urls)
    except NoMonitoringError as error:
        report.warn("Broker", f"{error}.")
    else:
        report.fine("Broker", "Rows are on its disks when it acknowledges them.")
