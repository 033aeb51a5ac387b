"""The host: keeps rows in a spool of its own, and delivers them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.configuration import ENGINE_DIRECTORY
from arthur_relay.daemon.directory_lock import hold_directory
from arthur_relay.daemon.handover import Handover
from arthur_relay.daemon.spool_files import move_engine_files
from arthur_relay.encoding.product import Product
from arthur_relay.worker.composition import Storage
from arthur_relay.worker.ingest import IngestRefusal

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from arthur_relay.accounting import Totals
    from arthur_relay.daemon.configuration import Configuration, ProductConfiguration
    from arthur_relay.destinations import Destination
    from arthur_relay.settings import RelaySettings
    from arthur_relay.worker.pipeline import Pipeline

TROUBLE_SECONDS = 5.0
"""How long a failed write makes the daemon unready; then rows are accepted again."""

LAST_SECONDS = 2.0
LAST_SHARE = 0.4
"""The last part of the shutdown, in seconds at most and as a share of its time: requests to Arthur
that are in flight end in it, and no other one starts."""


@dataclass(frozen=True, slots=True)
class Host:
    """Keeps and delivers rows. See `Role` for each method.

    Attributes:
        configuration: Has the spools' directories.
    """

    configuration: Configuration

    async def enter(self, stack: AsyncExitStack) -> None:
        """Lock the directories of the spools, and put each file where its product's pipeline looks.

        Raises:
            ConfigurationError: One can't be used.
        """
        whole = self.configuration.spool_dir
        assert whole is not None, "a host's configuration has one"
        own = {each.product: each.spool_dir for each in self.configuration.products}
        for directory in dict.fromkeys([whole, *own.values()]):
            for lock in hold_directory(directory):
                stack.callback(lock.release)
        if (engine := own.get(Product.ENGINE)) is not None:
            for source in (whole, whole / ENGINE_DIRECTORY):
                move_engine_files(source, engine)

    def station(self, configuration: ProductConfiguration) -> HostStation:
        """Return what it does with the rows of a product."""
        return HostStation(configuration)


@dataclass(frozen=True, slots=True)
class HostStation:
    """Keeps and delivers the rows of one product. See `Station` for each method."""

    configuration: ProductConfiguration
    fleet: None = None
    publishing: None = None
    models: None = None

    def storage(self, settings: RelaySettings, destination: Destination) -> Storage:
        """Return the spool."""
        return Storage.of(settings, destination)

    def handover(self, pipeline: Pipeline) -> Handover:
        """Return what hands rows to the pipeline."""
        return Handover(pipeline.ingest)

    def readiness(self, pipeline: Pipeline) -> tuple[bool, str]:
        """Return whether rows are taken in, and a sentence."""
        if not pipeline.is_running:
            return False, "The worker died and is being started again."
        waiting = pipeline.waiting()
        if trouble := waiting.trouble:
            return False, f"The spool can't keep rows: {trouble}."
        ingest = pipeline.ingest
        failed = ingest.fails_for()
        if failed is not None and failed < TROUBLE_SECONDS:
            return False, f"{_sentence(IngestRefusal.UNWRITABLE)}; rows are put off until it can."
        if not ingest.has_room():
            full = f"{_sentence(IngestRefusal.FULL)} (ARTHUR_RELAY_SPOOL_BYTES)"
            return False, f"{full}; rows are put off until some are delivered."
        if left_alone := waiting.left_alone:
            others = f"{left_alone} rows of others wait in its directory and are left alone"
            return True, f"The spool takes rows; {others}: see arthur-relay spool list."
        return True, "The spool takes rows."

    def describe_rest(self, totals: Totals) -> str:
        """Return where the rows are that are not settled."""
        return f"{totals.pending} stay in the spool"

    def broker_counts(self) -> None:
        """Return None: it is no worker."""

    async def drain(self, pipeline: Pipeline, deadline: float) -> None:
        """Deliver what waits, as far as there is time; what is left stays in the spool."""
        flushed = asyncio.wrap_future(pipeline.begin_flush(urgent=True))
        last = min(LAST_SECONDS, (deadline - time.monotonic()) * LAST_SHARE)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - last - time.monotonic())):
                await asyncio.shield(flushed)
        await end_requests(pipeline, deadline)
        pipeline.begin_shutdown()
        if flushed.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await asyncio.shield(asyncio.wrap_future(pipeline.closing.done))


async def end_requests(pipeline: Pipeline, deadline: float) -> None:
    """Have requests that are in flight end, and no other one start.

    A request that is cut off may have arrived, and its rows would be sent again. This is also for
    the rows of earlier processes, for which a flush does not wait.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
            await asyncio.wrap_future(pipeline.begin_pause())


def _sentence(refusal: IngestRefusal) -> str:
    return refusal.value[0].upper() + refusal.value[1:]
