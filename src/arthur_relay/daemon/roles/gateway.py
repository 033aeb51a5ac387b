"""The gateway: takes rows from clients, and has the broker keep them. It delivers nothing.

Its pipeline carries no rows: it asks Arthur for models, for clients.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from arthur_relay.broker.fleet import Fleet
from arthur_relay.broker.letter_listener import LetterListener
from arthur_relay.broker.link import Link, Links
from arthur_relay.broker.models import SharedModels
from arthur_relay.broker.packets import HEADER_BYTES, most_row_bytes
from arthur_relay.broker.publisher import Publisher
from arthur_relay.broker.shares import Shares
from arthur_relay.daemon.measurements import INTAKE_SECONDS, Histogram
from arthur_relay.daemon.settings import DAEMON_PREFIX
from arthur_relay.worker.composition import Storage

if TYPE_CHECKING:
    from collections import Counter
    from contextlib import AsyncExitStack

    from arthur_relay.accounting import Totals
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.daemon.configuration import Configuration, ProductConfiguration
    from arthur_relay.destinations import Destination
    from arthur_relay.settings import RelaySettings
    from arthur_relay.worker.pipeline import Pipeline

logger = logging.getLogger("arthur_relay.daemon")


@dataclass(slots=True, eq=False)
class Gateway:
    """Has the broker keep rows. See `Role` for each method.

    Attributes:
        configuration: Has the broker's settings.
        fleet: What the broker has, and the way to it.
        shares: Which models have too much there, of both products.
    """

    configuration: Configuration
    fleet: Fleet = field(init=False)
    shares: Shares = field(init=False)
    letters: LetterListener = field(init=False)

    async def enter(self, stack: AsyncExitStack) -> None:
        """Connect to the broker, and see that it is as it should be.

        A broker that is away is waited for in the background.

        Raises:
            ConfigurationError: It can't be used as it is.
        """
        settings = broker_of(self.configuration)
        self.shares = Shares(settings.bytes, settings.model_share)
        self.fleet = await open_fleet(self.configuration, "gateway", stack, self.shares)
        self.letters = LetterListener(self.fleet.link)
        listening = asyncio.create_task(self.letters.run())
        stack.callback(listening.cancel)
        warn_of_row_limit(self.configuration, self.fleet.link.connection.most_bytes)

    def station(self, configuration: ProductConfiguration) -> GatewayStation:
        """Return what it does with the rows of a product."""
        publisher = Publisher(self.fleet.link, configuration.product, self.shares)
        publishing = GatewayPublishing(publisher.errors)
        publisher.observe.append(publishing.seconds.observe)
        models = SharedModels(self.fleet.link, configuration.product)
        return GatewayStation(
            configuration, publisher, self.fleet, publishing, models, self.letters
        )


@dataclass(frozen=True, slots=True)
class GatewayPublishing:
    """What was measured of publishing. See `Publishing`."""

    errors: Counter[str]
    seconds: Histogram = field(default_factory=lambda: Histogram(INTAKE_SECONDS))


@dataclass(frozen=True, slots=True)
class GatewayStation:
    """Has the broker keep the rows of one product. See `Station` for each method."""

    configuration: ProductConfiguration
    publisher: Publisher
    fleet: Fleet
    publishing: GatewayPublishing
    models: SharedModels
    letters: LetterListener

    def storage(self, settings: RelaySettings, destination: Destination) -> Storage:
        """Return memory, which stays empty; what the workers reject is heard of nevertheless."""
        if settings.on_dead_letter is not None:
            self.letters.heard[self.configuration.product] = settings.on_dead_letter
        return Storage.of(settings, destination)

    def handover(self, pipeline: Pipeline) -> Publisher:  # noqa: ARG002 - the protocol's
        """Return what publishes rows."""
        return self.publisher

    def readiness(self, pipeline: Pipeline) -> tuple[bool, str]:  # noqa: ARG002 - the protocol's
        """Return whether the broker takes rows, and a sentence.

        A broker that is full makes no gateway unready: all of them would be at once, and clients
        would not even learn when to try again.
        """
        if trouble := self.fleet.link.trouble or self.publisher.trouble:
            return False, f"{trouble[0].upper()}{trouble[1:]}; rows are put off until it can."
        return True, "The broker takes rows."

    def describe_rest(self, totals: Totals) -> str:  # noqa: ARG002 - the protocol's
        """Return where the rows are that are not settled."""
        return "all that was taken is in the broker"

    def broker_counts(self) -> None:
        """Return None: it is no worker."""

    async def drain(self, pipeline: Pipeline, deadline: float) -> None:  # noqa: ARG002 - the protocol's
        """Do nothing more: all that was taken is in the broker."""
        pipeline.begin_shutdown()


async def open_fleet(
    configuration: Configuration, role: str, stack: AsyncExitStack, shares: Shares | None = None
) -> Fleet:
    """Return the fleet, to which a link is open in the background until the stack is closed.

    Raises:
        ConfigurationError: The broker can't be used as it is.
    """
    link = new_link(broker_of(configuration), configuration, role)
    fleet = Fleet(link, role, shares)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(fleet.run())]

    async def close() -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await link.connection.close()

    stack.push_async_callback(close)
    await link.look()
    return fleet


def warn_of_row_limit(configuration: Configuration, most_bytes: int | None) -> None:
    """Log when the broker takes smaller rows than are allowed."""
    if sentence := row_limit_sentence(configuration, most_bytes):
        logger.warning("%s", sentence)


def row_limit_sentence(configuration: Configuration, most_bytes: int | None) -> str:
    """Return that the broker takes smaller rows than are allowed, or ""."""
    allowed = configuration.daemon.max_row_bytes
    if most_bytes is None or (most := most_row_bytes(most_bytes)) >= allowed:
        return ""
    return (
        f"rows of more than {most} bytes are refused, as the broker's max_payload is"
        f" {most_bytes + HEADER_BYTES}; for rows of {DAEMON_PREFIX}MAX_ROW_BYTES ({allowed}) set it"
        f" to {allowed + most_bytes - most + HEADER_BYTES} or more"
    )


def new_link(settings: BrokerSettings, configuration: Configuration, role: str) -> Link:
    """Return a link to the broker that has not been opened."""
    return Links(
        settings,
        f"arthur-relay {role} on {socket.gethostname()}",
        [each.product for each in configuration.products],
        configuration.relay.dead_letter_bytes,
    ).new()


def broker_of(configuration: Configuration) -> BrokerSettings:
    """Return the broker's settings."""
    assert configuration.broker is not None, "the configuration of a fleet's roles has them"
    return configuration.broker
