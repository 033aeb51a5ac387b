"""The gateway: takes rows from clients, and has the broker keep them. It delivers nothing.

Its pipeline carries no rows: it asks Arthur for models, for clients.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from arthur_relay.broker.connection import Connection
from arthur_relay.broker.letters import LetterListener
from arthur_relay.broker.link import Link
from arthur_relay.broker.publisher import Publisher
from arthur_relay.worker.composition import Storage

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from arthur_relay.accounting import Totals
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.daemon.configuration import Configuration, ProductConfiguration
    from arthur_relay.destinations import Destination
    from arthur_relay.settings import RelaySettings
    from arthur_relay.worker.pipeline import Pipeline

TROUBLE_SECONDS = 5.0
"""How long a failed publish makes the gateway unready; then rows are accepted again."""


@dataclass(slots=True, eq=False)
class Gateway:
    """Has the broker keep rows. See `Role` for each method.

    Attributes:
        configuration: Has the broker's settings.
    """

    configuration: Configuration
    link: Link = field(init=False)
    letters: LetterListener = field(init=False)

    async def enter(self, stack: AsyncExitStack) -> None:
        """Connect to the broker, and see that it is as it should be.

        A broker that is away is waited for in the background.

        Raises:
            ConfigurationError: It can't be used as it is.
        """
        self.link = await open_link(self.configuration, "gateway", stack)
        self.letters = LetterListener(self.link)
        listening = asyncio.create_task(self.letters.run())
        stack.callback(listening.cancel)

    def station(self, configuration: ProductConfiguration) -> GatewayStation:
        """Return what it does with the rows of a product."""
        publisher = Publisher(self.link, configuration.product)
        return GatewayStation(configuration, publisher, self.letters)


@dataclass(frozen=True, slots=True)
class GatewayStation:
    """Has the broker keep the rows of one product. See `Station` for each method."""

    configuration: ProductConfiguration
    publisher: Publisher
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
        """Return whether the broker takes rows, and a sentence."""
        if trouble := self.publisher.link.trouble:
            return False, f"{trouble[0].upper()}{trouble[1:]}; rows are put off until it can."
        failed = self.publisher.fails_for()
        if failed is not None and failed < TROUBLE_SECONDS:
            return False, "The broker can't keep rows; they are put off until it can."
        return True, "The broker takes rows."

    def describe_rest(self, totals: Totals) -> str:  # noqa: ARG002 - the protocol's
        """Return where the rows are that are not settled."""
        return "all that was taken is in the broker"

    def broker_counts(self) -> None:
        """Return None: it is no worker."""

    async def drain(self, pipeline: Pipeline, deadline: float) -> None:  # noqa: ARG002 - the protocol's
        """Do nothing more: all that was taken is in the broker."""
        pipeline.begin_shutdown()


async def open_link(configuration: Configuration, role: str, stack: AsyncExitStack) -> Link:
    """Return a link to the broker that is opened in the background until the stack is closed.

    Raises:
        ConfigurationError: The broker can't be used as it is.
    """
    link = new_link(broker_of(configuration), configuration, role)
    opening = asyncio.create_task(link.run())

    async def close() -> None:
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        await link.connection.close()

    stack.push_async_callback(close)
    await link.look()
    return link


def new_link(settings: BrokerSettings, configuration: Configuration, role: str) -> Link:
    """Return a link to the broker that has not been opened."""
    connection = Connection(
        settings,
        f"arthur-relay {role} on {socket.gethostname()}",
        configuration.relay.dead_letter_bytes,
    )
    return Link(connection, [each.product for each in configuration.products])


def broker_of(configuration: Configuration) -> BrokerSettings:
    """Return the broker's settings."""
    assert configuration.broker is not None, "the configuration of a fleet's roles has them"
    return configuration.broker
