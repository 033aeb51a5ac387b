"""What a daemon does with rows, by its role: keep and deliver them, or one of the two.

A `host` keeps them in its spool and delivers them. In a fleet, a `gateway` has the broker keep
them, and a `worker` delivers what the broker has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AsyncExitStack

    from arthur_relay.accounting import Totals
    from arthur_relay.broker.fleet import Fleet
    from arthur_relay.daemon.configuration import ProductConfiguration
    from arthur_relay.daemon.measurements import Histogram
    from arthur_relay.daemon.models import SharesModels
    from arthur_relay.destinations import Destination
    from arthur_relay.row import Row
    from arthur_relay.settings import RelaySettings
    from arthur_relay.worker.composition import Storage
    from arthur_relay.worker.ingest import IngestRefusal
    from arthur_relay.worker.pipeline import Pipeline


class HandsOver(Protocol):
    """Has rows made safe. For the daemon's loop only."""

    @property
    def most_row_bytes(self) -> int | None:
        """The most bytes of a row; None for any number."""
        ...

    async def hand_over(
        self,
        rows: Sequence[Row],
        *,
        timeout_seconds: float,
        is_gone: Callable[[], bool] = bool,
    ) -> IngestRefusal | None:
        """Return None when the rows are safe, else why they are not held.

        After a cancellation or a time-out, they may be held nevertheless.

        Args:
            rows: The rows, one or more.
            timeout_seconds: How long that may take.
            is_gone: Says whether nobody waits for the answer any more.

        Raises:
            TimeoutError: It is not known in time.
        """
        ...


class BrokerCounts(NamedTuple):
    """What a worker counts of its work with the broker."""

    packets: int
    """Packets in hand."""
    redelivered_rows: int
    """Rows that the broker has handed out before."""
    failed_acknowledgements: int
    """How often it was not known whether the broker has forgotten a packet."""
    newer_packets: int
    """How often a packet of a later version was left to newer workers."""


class Publishing(Protocol):
    """What the views read of publishing. Any thread."""

    @property
    def seconds(self) -> Histogram:
        """How long packets took until the broker had them."""
        ...

    @property
    def errors(self) -> Mapping[str, int]:
        """Failed attempts and refused requests, by reason."""
        ...


class Station(Protocol):
    """What a role does with the rows of one product."""

    @property
    def fleet(self) -> Fleet | None:
        """What the broker has, and who else is there; None for a host."""
        ...

    @property
    def models(self) -> SharesModels | None:
        """What other daemons have learnt of models; None where rows are not taken together."""
        ...

    @property
    def publishing(self) -> Publishing | None:
        """What was measured of a gateway's publishing; None for others."""
        ...

    def storage(self, settings: RelaySettings, destination: Destination) -> Storage:
        """Return where the pipeline's rows are.

        Args:
            settings: The pipeline's settings.
            destination: Where its rows go.
        """
        ...

    def handover(self, pipeline: Pipeline) -> HandsOver | None:
        """Return what makes the rows of clients safe, or None when none are taken from clients."""
        ...

    def readiness(self, pipeline: Pipeline) -> tuple[bool, str]:
        """Return whether it can do its work, and a sentence. Any thread.

        An outage of Arthur does not matter.
        """
        ...

    def describe_rest(self, totals: Totals) -> str:
        """Return in a few words where the rows are, at the end, that are not settled."""
        ...

    def broker_counts(self) -> BrokerCounts | None:
        """Return the counts of a worker; None for other roles. Any thread."""
        ...

    async def drain(self, pipeline: Pipeline, deadline: float) -> None:
        """Do what is left to do, once no more rows are taken.

        Args:
            pipeline: The product's pipeline.
            deadline: When to give up, on `time.monotonic()`'s scale.
        """
        ...


class Role(Protocol):
    """What a daemon does with rows."""

    async def enter(self, stack: AsyncExitStack) -> None:
        """Get hold of what is needed, until the stack is closed.

        Raises:
            ConfigurationError: Something can't be used.
        """
        ...

    def station(self, configuration: ProductConfiguration) -> Station:
        """Return what it does with the rows of a product."""
        ...
