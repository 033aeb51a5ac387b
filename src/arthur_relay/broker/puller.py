"""The puller: moves packets between the broker and a worker's inbox.

A task of the worker's loop. When that dies and is started again, the packets are still in hand, and
the next run goes on with them. When the worker stops, what is not sent goes back to the broker.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio

from arthur_relay.broker.deaths import Deaths
from arthur_relay.broker.ending import Ending
from arthur_relay.broker.fetching import Fetcher
from arthur_relay.broker.holds import Holds
from arthur_relay.broker.in_hand import InHand
from arthur_relay.broker.inbox import Fate
from arthur_relay.broker.keeping import KeepAlive
from arthur_relay.broker.models import SharedModels
from arthur_relay.broker.offers import Offers
from arthur_relay.broker.resending import Resender
from arthur_relay.broker.returning import Returns
from arthur_relay.broker.setting_apart import Apart
from arthur_relay.broker.shared import Shared

if TYPE_CHECKING:
    from arthur_relay.broker.inbox import Inbox
    from arthur_relay.broker.letter_outbox import LetterOutbox
    from arthur_relay.broker.link import Link, Links
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.worker.worker import Worker

LAST_SECONDS: Final = 2.0
"""How long the end may take: to acknowledge what is settled, and to give back the rest."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The parts of one run of the worker's loop."""

    worker: Worker
    link: Link
    shared: Shared
    deaths: Deaths
    fetcher: Fetcher
    apart: Apart
    keep_alive: KeepAlive
    ending: Ending
    returns: Returns


@dataclass(slots=True, eq=False, kw_only=True)
class Puller:
    """Moves packets between the broker and the inbox. Worker's loop only, but for what is said.

    Attributes:
        inbox: Where the rows go.
        settings: The broker's settings.
        links: Makes the link on the loop that runs; a worker that died gets a new one.
        letters: Has the dead letters of their rows made safe.
        name: Tells this worker from others.
        hand: The packets in hand.
    """

    inbox: Inbox
    settings: BrokerSettings
    links: Links
    letters: LetterOutbox
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    hand: InHand = field(init=False)
    _holds: Holds = field(init=False)
    _run: _Run | None = field(default=None, init=False)
    _is_stopping: bool = field(default=False, init=False)
    _stopped: anyio.Event = field(default_factory=anyio.Event, init=False)

    def __post_init__(self) -> None:
        self.hand = InHand(self.inbox, self.settings.ack_wait_seconds)
        self._holds = Holds(self.name)

    @property
    def trouble(self) -> str:
        """Why no packet can be fetched, or "". Any thread."""
        return "it has not started yet" if self._run is None else self._run.link.trouble

    @property
    def packets(self) -> int:
        """The packets in hand. Any thread."""
        return len(self.hand)

    @property
    def redelivered_rows(self) -> int:
        """Rows of packets that the broker has handed out before. Any thread.

        They were given back, or a worker died or hung.
        """
        return self.hand.redelivered_rows

    @property
    def failed_acknowledgements(self) -> int:
        """How often it was not known whether the broker has forgotten a packet. Any thread.

        It is asked again.
        """
        return self.hand.failed_acknowledgements

    @property
    def newer_packets(self) -> int:
        """How often a packet of a later version was left to newer workers. Any thread."""
        return self.hand.newer_packets

    def prepare_stop(self) -> None:
        """Fetch no more, and give back all that is left when the loop ends. Any thread."""
        self._is_stopping = True

    def stop(self) -> None:
        """Give back what is not sent, now. After `prepare_stop`."""
        self._stopped.set()

    def enter(self, worker: Worker) -> None:
        """Get ready for a loop: packets of an earlier one that others may have by now are left."""
        self.hand.changes.renew()
        self._stopped = anyio.Event()
        self._holds.enter(worker)
        worker.sender.flow.gives_up_slots = True
        run = self._run = self._new_run(worker)
        worker.schemas.inquiries.others = SharedModels(run.link, self.letters.product)
        run.keep_alive.leave_lost()
        for held in self.hand:
            is_new = held.fate is Fate.OPEN and held.rows and not held.is_offered
            if is_new and not held.waits_alone:
                self.hand.end(held, Fate.RETURNED)  # the earlier loop died while it looked at it

    async def run(self, worker: Worker) -> None:
        """Work until cancelled; then give back what is left, if it is for good."""
        run = self._run
        assert run is not None, "it was entered"
        assert run.worker is worker, "it was entered for this one"
        connection = run.link.connection
        for delivery in self.hand.deliveries:
            delivery.carrier = connection
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(run.link.run)
                await run.link.ready.wait()
                group.start_soon(run.ending.run)
                group.start_soon(run.keep_alive.run)
                group.start_soon(self._holds.run, worker, run.shared)
                group.start_soon(run.deaths.run)
                group.start_soon(self.letters.run, connection, worker)
                group.start_soon(self._pull_until_stopped, run)
        finally:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                await self._end(run)
            with anyio.move_on_after(LAST_SECONDS / 2, shield=True):
                await connection.close()

    def _new_run(self, worker: Worker) -> _Run:
        """Compose the parts of a run."""
        link = self.links.new()
        connection = link.connection
        shared, resender = Shared(connection), Resender(connection)
        offers = Offers(self.hand, worker)
        deaths = Deaths(hand=self.hand, shared=shared, offers=offers, resender=resender)
        ending = Ending(self.hand, deaths)
        returns = Returns(hand=self.hand, worker=worker, ending=ending, resender=resender)
        apart = Apart(hand=self.hand, worker=worker, returns=returns, resender=resender)
        return _Run(
            worker=worker,
            link=link,
            shared=shared,
            deaths=deaths,
            fetcher=Fetcher(
                hand=self.hand,
                settings=self.settings,
                product=self.letters.product,
                worker=worker,
                connection=connection,
                offers=offers,
                deaths=deaths,
                apart=apart,
            ),
            apart=apart,
            keep_alive=KeepAlive(self.hand, worker),
            ending=ending,
            returns=returns,
        )

    async def _pull_until_stopped(self, run: _Run) -> None:
        if not self._is_stopping:
            async with anyio.create_task_group() as group:
                group.start_soon(run.fetcher.run)
                group.start_soon(run.returns.run)
                group.start_soon(run.apart.run)
                await self._stopped.wait()
                group.cancel_scope.cancel()
        await run.fetcher.return_late()
        await run.returns.give_back_unsent()

    async def _end(self, run: _Run) -> None:
        """Acknowledge what is settled, and give back the rest, unless another run goes on with it.

        By now no request is in flight: each has ended, or was cancelled.
        """
        if self._is_stopping:
            with anyio.move_on_after(LAST_SECONDS / 2):
                await self.letters.flush(run.link.connection)
        run.worker.keep_letters()
        self.hand.take_ended()  # they have their fate
        await run.fetcher.return_late()
        if self._is_stopping:
            await run.returns.give_back_all()
        else:
            await run.ending.end_decided()
