"""The worker: delivers the rows that the broker has. It takes none from clients."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from arthur_relay.broker.inbox import Inbox
from arthur_relay.broker.letter_outbox import LetterOutbox
from arthur_relay.broker.link import Links
from arthur_relay.broker.puller import Puller
from arthur_relay.daemon.roles import BrokerCounts
from arthur_relay.daemon.roles.gateway import broker_of, open_fleet
from arthur_relay.daemon.roles.host import LAST_SECONDS, LAST_SHARE, end_requests
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.dead_letters.stores import open_files
from arthur_relay.worker.composition import Storage

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from arthur_relay.accounting import Totals
    from arthur_relay.broker.fleet import Fleet
    from arthur_relay.daemon.configuration import Configuration, ProductConfiguration
    from arthur_relay.daemon.roles import HandsOver
    from arthur_relay.destinations import Destination
    from arthur_relay.settings import RelaySettings
    from arthur_relay.worker.pipeline import Pipeline


@dataclass(slots=True, eq=False)
class FleetWorker:
    """Delivers what the broker has. See `Role` for each method.

    Attributes:
        configuration: Has the broker's settings.
    """

    configuration: Configuration
    fleet: Fleet = field(init=False)

    async def enter(self, stack: AsyncExitStack) -> None:
        """See that the broker is as it should be, if it is there.

        Raises:
            ConfigurationError: It can't be used as it is.
        """
        self.fleet = await open_fleet(self.configuration, "worker", stack)

    def station(self, configuration: ProductConfiguration) -> WorkerStation:
        """Return what it does with the rows of a product."""
        settings = broker_of(self.configuration)
        inbox = Inbox(max_bytes=settings.ahead_bytes)
        letters = LetterOutbox(
            settings=settings,
            product=configuration.product,
            max_bytes=self.configuration.relay.dead_letter_bytes,
        )
        links = Links(
            settings,
            f"arthur-relay worker for {configuration.product}",
            [configuration.product],
            self.configuration.relay.dead_letter_bytes,
        )
        puller = Puller(inbox=inbox, settings=settings, links=links, letters=letters)
        return WorkerStation(configuration, inbox, puller, self.fleet)


@dataclass(frozen=True, slots=True)
class WorkerStation:
    """Delivers the rows of one product that the broker has. See `Station` for each method."""

    configuration: ProductConfiguration
    inbox: Inbox
    puller: Puller
    fleet: Fleet
    publishing: None = None
    models: None = None

    def storage(self, settings: RelaySettings, destination: Destination) -> Storage:  # noqa: ARG002 - the protocol's
        """Return the inbox, which the puller fills, and dead letters in the broker."""
        letters = DeadLetters(
            open_files(settings), first=self.puller.letters, on_dead_letter=settings.on_dead_letter
        )
        return Storage(self.inbox.as_buffer(), letters, self.puller)

    def handover(self, pipeline: Pipeline) -> HandsOver | None:  # noqa: ARG002 - the protocol's
        """Return None: rows come from the broker."""
        return None

    def readiness(self, pipeline: Pipeline) -> tuple[bool, str]:
        """Return whether rows can be fetched, and a sentence."""
        if not pipeline.is_running:
            return False, "The worker died and is being started again."
        if trouble := self.puller.trouble:
            return False, f"{trouble[0].upper()}{trouble[1:]}; no rows can be fetched."
        return True, "The broker hands out rows."

    def describe_rest(self, totals: Totals) -> str:
        """Return where the rows are that are not settled."""
        return f"{totals.returned + totals.pending} went back to the broker"

    def broker_counts(self) -> BrokerCounts:
        """Return the puller's counts."""
        puller = self.puller
        return BrokerCounts(
            puller.packets,
            puller.redelivered_rows,
            puller.failed_acknowledgements,
            puller.newer_packets,
        )

    async def drain(self, pipeline: Pipeline, deadline: float) -> None:
        """Give back what is not sent, and wait for the requests that are in flight."""
        await drain_worker(pipeline, self.puller, deadline)


async def drain_worker(pipeline: Pipeline, puller: Puller, deadline: float) -> None:
    """Give back what is not sent, wait for the requests that are in flight, and end the loop.

    What is left then goes back as the loop ends; the last part of the time is for that.

    Args:
        pipeline: The pipeline.
        puller: Its puller.
        deadline: When to give up, on `time.monotonic()`'s scale.
    """
    puller.prepare_stop()
    pipeline.call(puller.stop)
    left = deadline - time.monotonic()
    await end_requests(pipeline, deadline - min(LAST_SECONDS, left * LAST_SHARE))
    pipeline.runtime.cancel()
    await asyncio.to_thread(pipeline.runtime.join, max(0.0, deadline - time.monotonic()))
    pipeline.begin_shutdown()
