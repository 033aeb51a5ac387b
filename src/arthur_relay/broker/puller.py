"""The puller: fetches packets while there is room, keeps them alive, acknowledges and returns them.

A task of the worker's loop. When that dies and is started again, the packets are still in hand, and
the next run goes on with them. When the worker stops, what is not sent goes back to the broker.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

import anyio

from arthur_relay.broker.errors import PAUSE_SECONDS, BrokerAwayError, BrokerFullError
from arthur_relay.broker.inbox import Fate
from arthur_relay.broker.letters import of_no_packet
from arthur_relay.broker.packets import NotAPacketError, Packet, filters, read
from arthur_relay.broker.shared import Hold, Shared
from arthur_relay.delivery.batching import MAX_DEATHS
from arthur_relay.row import Failure, RowKind
from arthur_relay.system.log_once import LogOnce
from arthur_relay.worker.ingest import IngestBatch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection, Sequence

    from anyio.abc import TaskGroup

    from arthur_relay.broker.delivery import Delivery
    from arthur_relay.broker.inbox import HeldPacket, Inbox
    from arthur_relay.broker.letters import LetterOutbox
    from arthur_relay.broker.link import Link, Links
    from arthur_relay.broker.nats.connection import Connection
    from arthur_relay.broker.nats.consumer import Consumer
    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.row import Attempt, Batch, Row
    from arthur_relay.worker.ingest import IngestAnswer
    from arthur_relay.worker.worker import Worker

logger = logging.getLogger("arthur_relay.broker")

PULL_SECONDS: Final = 5.0
"""How long one question for packets waits for some."""

TOGETHER: Final = 4
"""The packets that one question asks for, at most."""

LAST_SECONDS: Final = 2.0
"""How long the end may take: to acknowledge what is settled, and to give back the rest."""

TRUTH_SECONDS: Final = 60.0
"""How long ground truth whose inference has not arrived holds its packet. Then it travels once
more, so that the packets that the fleet may have in hand do not all wait for such inferences."""

ALONE_SECONDS: Final = 30.0
"""How long a packet that workers died with is worked on before the next one is."""

HOLD_SECONDS: Final = 2.0
"""How much longer than us other workers wait where the key is refused, so that one of them asks."""

LOOK_SECONDS: Final = 10.0
"""How often to ask for a hold that was not heard of."""

NEWS_SECONDS: Final = 0.5
"""The shortest change of a hold that the others hear of."""


@dataclass(slots=True, eq=False, kw_only=True)
class Puller:
    """Moves packets between the broker and the inbox. Worker's loop only, but for what is said.

    Attributes:
        inbox: Where the rows go.
        settings: The broker's settings.
        links: Makes the link on the loop that runs; a worker that died gets a new one.
        letters: Has the dead letters of their rows made safe.
        name: Tells this worker from others.
        redelivered_rows: Rows of packets that the broker has handed out before: after they were
            given back, or because a worker died or hung. Any thread.
        failed_acknowledgements: How often it was not known whether the broker has forgotten a
            packet that is settled; it is asked again. Any thread.
    """

    inbox: Inbox
    settings: BrokerSettings
    links: Links
    letters: LetterOutbox
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    redelivered_rows: int = 0
    failed_acknowledgements: int = 0
    _is_stopping: bool = field(default=False, init=False)
    _link: Link | None = field(default=None, init=False)
    _shared: Shared | None = field(default=None, init=False)
    _consumers: dict[str, Consumer] = field(default_factory=dict, init=False)
    _in_hand: dict[HeldPacket, Delivery] = field(default_factory=dict, init=False)
    _by_sequence: dict[int, HeldPacket] = field(default_factory=dict, init=False)
    _marked: dict[HeldPacket, int] = field(default_factory=dict, init=False)
    """Packets that a death would count against, with the deaths before."""
    _alone: deque[tuple[HeldPacket, tuple[Row, ...], int]] = field(
        default_factory=deque, init=False
    )
    _refused: list[HeldPacket] = field(default_factory=list, init=False)
    _throttled: dict[str, float] = field(default_factory=dict, init=False)
    _changed: anyio.Event = field(default_factory=anyio.Event, init=False)
    _attempted: anyio.Event = field(default_factory=anyio.Event, init=False)
    _stopped: anyio.Event = field(default_factory=anyio.Event, init=False)
    _once: LogOnce = field(default_factory=LogOnce, init=False)
    _held_until: float = field(default=0.0, init=False)
    """Until when the others wait, on the loop's clock: what was told, or heard."""

    @property
    def trouble(self) -> str:
        """Why no packet can be fetched, or "". Any thread."""
        return "it has not started yet" if self._link is None else self._link.trouble

    @property
    def packets(self) -> int:
        """The packets in hand. Any thread."""
        return len(self._in_hand)

    def prepare_stop(self) -> None:
        """Fetch no more, and give back all that is left when the loop ends. Any thread."""
        self._is_stopping = True

    def stop(self) -> None:
        """Give back what is not sent, now. After `prepare_stop`."""
        self._stopped.set()

    def enter(self, worker: Worker) -> None:
        """Get ready for a loop: packets of an earlier one that others may have by now are left."""
        self._changed, self._attempted = anyio.Event(), anyio.Event()
        self._stopped = anyio.Event()
        self._consumers = {}
        self.inbox.on_change = self._change
        worker.sender.flow.gives_up_slots = True
        if self not in worker.sender.observers:
            worker.sender.observers.append(self)
        self._leave_lost(worker)
        waiting = {held for held, _, _ in self._alone}
        for held in self._in_hand:
            if held.fate is Fate.OPEN and held.rows and not held.is_offered and held not in waiting:
                self._refuse(held)  # the earlier loop died while it looked at it

    async def run(self, worker: Worker) -> None:
        """Work until cancelled; then give back what is left, if it is for good."""
        link = self._link = self.links.new()
        for delivery in self._in_hand.values():
            delivery.carrier = link.connection
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(link.run)
                await link.ready.wait()
                self._shared = Shared(link.connection)
                for held in list(self._in_hand):
                    self._begin_to_end(group, held)
                group.start_soon(self._acknowledge, group)
                group.start_soon(self._keep_alive, worker)
                group.start_soon(self._stand_back, worker, link.connection)
                group.start_soon(self._hear, worker)
                group.start_soon(self._tell, worker)
                group.start_soon(self._one_by_one, worker)
                group.start_soon(self.letters.run, link.connection, worker.wake)
                group.start_soon(self._pull_until_stopped, worker, link)
        finally:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                await self._end(worker)
            with anyio.move_on_after(LAST_SECONDS / 2, shield=True):
                await link.connection.close()

    # What the worker tells us.

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Remember packets that the pipeline does not take any more."""
        refused = [batch.rows for batch, refusal in answers if refusal is not None]
        for rows in refused:
            held = next((each for each in self._in_hand if rows[0] in each.rows), None)
            if held is not None:
                held.is_offered = False
                self._refuse(held)

    def _refuse(self, held: HeldPacket) -> None:
        """Have a packet given back whose rows the pipeline does not have."""
        self.inbox.let_go_of(held)
        held.fate = Fate.RETURNED
        self._refused.append(held)
        self._change()

    def on_attempt(self, batch: Batch, attempt: Attempt, seconds: float) -> None:  # noqa: ARG002 - the protocol's
        """Look whether the others have to wait. What an attempt means is known right after this."""
        if attempt.failure is Failure.THROTTLED and attempt.retry_after_seconds:
            self._throttled[batch.model_id] = attempt.retry_after_seconds
        self._attempted.set()
        self._attempted = anyio.Event()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    # Fetching.

    async def _pull_until_stopped(self, worker: Worker, link: Link) -> None:
        (product,) = link.products
        names = list(filters(self.settings.stream, product))
        if not self._is_stopping:
            probing = anyio.Lock()
            async with anyio.create_task_group() as group:
                for name in names:
                    group.start_soon(self._pull, worker, link.connection, name, probing)
                await self._stopped.wait()
                group.cancel_scope.cancel()
        await self._return_late()
        await self._return_unsent(worker, link.connection)

    async def _pull(
        self, worker: Worker, connection: Connection, name: str, probing: anyio.Lock
    ) -> None:
        """Fetch packets of one consumer, one question after the other, while there is room.

        Each consumer has a task and a share of the room, so that a model that floods its own, or of
        which nothing goes through, takes no more than its share.
        """
        while True:
            changed = self._changed
            most = min(TOGETHER, self.inbox.room(name, self.settings.packet_bytes))
            if most <= 0:
                await changed.wait()
            elif worker.sender.breaker.held(anyio.current_time()) > 0:
                await anyio.sleep(PAUSE_SECONDS)
            elif worker.sender.is_down:
                # Something has to be sent to learn that Arthur is back: one packet is enough.
                async with probing:
                    if not self._in_hand and worker.sender.is_down:
                        await self._fetch(worker, connection, name, most=1, seconds=PAUSE_SECONDS)
                await anyio.sleep(PAUSE_SECONDS)
            else:
                await self._fetch(worker, connection, name, most=most, seconds=PULL_SECONDS)

    async def _fetch(
        self, worker: Worker, connection: Connection, name: str, *, most: int, seconds: float
    ) -> None:
        try:
            if (consumer := self._consumers.get(name)) is None:
                consumer = self._consumers[name] = await connection.consumer(name)
            found = await consumer.pull(most, seconds=seconds)
        except BrokerAwayError as error:
            logger.debug("%s: %s", name, error)
            await anyio.sleep(PAUSE_SECONDS)
            return
        taken = [self._take(worker, delivery, name) for delivery in found]
        for held, packet in [each for each in taken if each is not None]:
            await self._take_again(worker, connection, held, packet)

    def _take(
        self, worker: Worker, delivery: Delivery, name: str
    ) -> tuple[HeldPacket, Packet] | None:
        """Take a packet in hand. Returns it unless its rows may go at once."""
        ours = self._by_sequence.get(delivery.sequence)
        if ours is not None and not ours.is_lost:
            # The broker has forgotten that we have it: it was restarted, or has another leader.
            ours.alive_at = monotonic()
            delivery.body = b""
            self._in_hand[ours] = delivery
            return None
        try:
            packet = read(delivery.headers, delivery.body)
            if packet.product is not self.letters.product:
                raise NotAPacketError(f"it is for {packet.product}, not {self.letters.product}")  # noqa: TRY301 - both are the same to us
        except NotAPacketError as error:
            self._set_aside(worker, delivery, name, error)
            return None
        delivery.body = b""  # its rows have copies
        held = self.inbox.hold(packet, name)
        self._hold(held, delivery)
        if delivery.times > 1:
            self.redelivered_rows += len(packet.rows)
        if delivery.times > 1 or packet.deaths:
            return held, packet
        self._offer(worker, held, packet.rows)
        return None

    def _hold(self, held: HeldPacket, delivery: Delivery) -> None:
        if not self._in_hand:
            self.inbox.valid_until = held.alive_at + self.settings.ack_wait_seconds
        self._in_hand[held] = delivery
        self._by_sequence[delivery.sequence] = held

    def _put_down(self, held: HeldPacket) -> Delivery | None:
        """Have a packet in hand no more. Returns its delivery, or None when we had it no more."""
        delivery = self._in_hand.pop(held, None)
        if delivery is not None and self._by_sequence.get(delivery.sequence) is held:
            del self._by_sequence[delivery.sequence]
        held.gone.set()
        return delivery

    def _set_aside(
        self, worker: Worker, delivery: Delivery, name: str, error: NotAPacketError
    ) -> None:
        """Make a dead letter of a message that is no packet."""
        if self._once.is_first("no packet"):
            logger.warning(
                "message %d of the broker is no packet: %s (more of this kind are dead letters)",
                delivery.sequence,
                error,
            )
        stream, body = self.settings.stream, delivery.body
        held = self.inbox.hold_letter(name, f"{stream} {delivery.sequence}", len(body))
        self._hold(held, delivery)
        worker.dead_letters.add(of_no_packet(str(error), body, stream), held)
        worker.wake()

    def _offer(self, worker: Worker, held: HeldPacket, rows: Sequence[Row]) -> None:
        held.is_offered = True
        worker.ingest.offer(IngestBatch.of(rows, self))
        worker.ingest.take_in()  # at once, so that its rows are in the buffer or refused
        worker.wake()

    # Packets that come again: a worker may have died of them.

    async def _take_again(
        self, worker: Worker, connection: Connection, held: HeldPacket, packet: Packet
    ) -> None:
        found = await self._deaths_of(held)
        deaths = packet.deaths + found
        if held.fate is not Fate.OPEN:
            return
        if deaths >= MAX_DEATHS and len(packet.rows) > 1:
            await self._split(connection, held, packet)
            return
        for row in packet.rows:
            row.history = replace(row.history, deaths=deaths, is_repeated=True)
        if deaths and deaths < MAX_DEATHS:
            self._alone.append((held, packet.rows, found))
            self._change()
            return
        if not deaths:
            await self._mark(held, 0)
        # With enough deaths it becomes a dead letter, and nothing of it is sent.
        self._offer(worker, held, packet.rows)

    async def _deaths_of(self, held: HeldPacket) -> int:
        assert self._shared is not None, "nothing is fetched before"
        while (delivery := self._in_hand.get(held)) is not None:
            try:
                return await self._shared.deaths(delivery.sequence)
            except BrokerAwayError:
                await anyio.sleep(PAUSE_SECONDS)
        return 0

    async def _mark(self, held: HeldPacket, deaths: int) -> None:
        """Have a death of ours count against a packet, from now until it is out of our hands."""
        assert self._shared is not None, "nothing is fetched before"
        self._marked[held] = deaths
        while (delivery := self._in_hand.get(held)) is not None:
            try:
                await self._shared.set_deaths(delivery.sequence, deaths + 1)
            except (BrokerAwayError, BrokerFullError):
                await anyio.sleep(PAUSE_SECONDS)
            else:
                return

    async def _unmark(self, held: HeldPacket, sequence: int, *, settled: bool) -> None:
        deaths = self._marked.pop(held, None)
        if deaths is None or self._shared is None:
            return
        # Without it, the entry ends by itself.
        with suppress(BrokerAwayError, BrokerFullError):
            await self._shared.set_deaths(sequence, 0 if settled else deaths)

    async def _one_by_one(self, worker: Worker) -> None:
        """Work on packets that a worker died with one after the other.

        So the next death shows which of them it was.
        """
        while True:
            changed = self._changed
            if not self._alone:
                await changed.wait()
                continue
            held, rows, deaths = self._alone[0]
            if held.fate is Fate.OPEN and held in self._in_hand:
                await self._mark(held, deaths)
                self._alone.popleft()
                self._offer(worker, held, rows)
                with anyio.move_on_after(ALONE_SECONDS):
                    await held.gone.wait()
            else:
                self._alone.popleft()

    async def _split(self, connection: Connection, held: HeldPacket, packet: Packet) -> None:
        """Have each row travel alone: one of them kills workers."""
        logger.warning(
            "workers died while they had a packet of %d rows: each travels alone now",
            len(packet.rows),
        )
        for row in packet.rows:
            alone = replace(packet, id=str(uuid.uuid4()), rows=(row,), deaths=MAX_DEATHS - 1)
            while held in self._in_hand:
                try:
                    await self._publish(connection, alone)
                except (BrokerAwayError, BrokerFullError):
                    await anyio.sleep(PAUSE_SECONDS)
                else:
                    break
        if held.fate is Fate.OPEN:
            self.inbox.let_go_of(held)
            held.fate = Fate.SETTLED
            await self._forget(held)

    # Keeping, acknowledging, giving back.

    async def _acknowledge(self, group: TaskGroup) -> None:
        """Have the broker forget packets as they are settled."""
        while True:
            changed = self._changed
            for held in self.inbox.take_settled():
                self._begin_to_end(group, held)
            while self._refused:
                self._begin_to_end(group, self._refused.pop())
            await changed.wait()

    def _begin_to_end(self, group: TaskGroup, held: HeldPacket) -> None:
        match held.fate:
            case Fate.SETTLED:
                group.start_soon(self._forget, held)
            case Fate.RETURNED:
                group.start_soon(self._give_back, held)
            case Fate.OPEN:
                pass

    async def _forget(self, held: HeldPacket) -> None:
        """Have the broker forget a packet; ask until that is certain."""
        while (delivery := self._in_hand.get(held)) is not None and not held.is_lost:
            try:
                await delivery.acknowledge()
            except BrokerAwayError:
                self.failed_acknowledgements += 1
                await anyio.sleep(PAUSE_SECONDS)
            else:
                break
        await self._drop(held, settled=True)

    async def _drop(self, held: HeldPacket, *, settled: bool) -> None:
        delivery = self._put_down(held)
        self._change()
        if delivery is not None:
            await self._unmark(held, delivery.sequence, settled=settled)

    async def _keep_alive(self, worker: Worker) -> None:
        """Say that we work on what is in hand, settled packets included."""
        wait = self.settings.ack_wait_seconds
        while True:
            self._leave_lost(worker)
            heard = await asyncio.gather(*map(self._keep, list(self._in_hand)))
            self._update_validity()
            worker.wake()
            await anyio.sleep(wait / 3 if all(heard) else min(PAUSE_SECONDS, wait / 6))

    async def _keep(self, held: HeldPacket) -> bool:
        """Return whether the broker heard that we work on a packet."""
        began = monotonic()
        delivery = self._in_hand.get(held)
        if delivery is None or held.is_lost:
            return True
        try:
            await delivery.keep()
        except BrokerAwayError:
            return held not in self._in_hand
        held.alive_at = began
        return True

    def _update_validity(self) -> None:
        ours = (held.alive_at for held in self._in_hand if not held.is_lost)
        oldest = min(ours, default=float("inf"))
        self.inbox.valid_until = oldest + self.settings.ack_wait_seconds

    def _leave_lost(self, worker: Worker) -> None:
        """Leave to others what the broker has not heard of for so long that they may have it.

        It is not acknowledged even when the rows that are on their way arrive: the others count on
        the broker to keep it until they have delivered the rest.
        """
        before = monotonic() - self.settings.ack_wait_seconds
        lost = [held for held in self._in_hand if held.alive_at <= before and held.rows]
        if not lost:
            return
        for held in [held for held in lost if not held.is_offered]:
            lost.remove(held)
            self.inbox.let_go_of(held)
            held.is_lost, held.fate = True, Fate.SETTLED
            self._put_down(held)
        worker.batching.release_unsent()
        truths = worker.settlement.ground_truth
        for held, rows in self.inbox.withdraw(lost, truths, in_parts=True).items():
            worker.settlement.returned(rows)
            held.is_lost = True
            if not held.rows:
                self._put_down(held)
                self._marked.pop(held, None)
        self._update_validity()
        self._change()

    async def _stand_back(self, worker: Worker, connection: Connection) -> None:
        """Give back what is not sent while Arthur is away, and what waits for too long."""
        while True:
            await anyio.sleep(PAUSE_SECONDS)
            if self._is_stopping:
                continue
            if worker.sender.is_down:
                await self._return_unsent(worker, connection, keep_one=True)
            old = monotonic() - TRUTH_SECONDS
            waiting = [held for held in self._in_hand if _is_truth(held) and held.taken_at < old]
            await self._return(worker, connection, waiting, as_new=True)

    # What the workers tell each other.

    async def _hear(self, worker: Worker) -> None:
        """Wait when another worker was asked to."""
        shared = self._shared
        assert shared is not None, "it was made before"
        heard = partial(self._wait_as_told, worker)
        while True:
            try:
                await shared.on_hold(heard)
            except BrokerAwayError:
                await anyio.sleep(PAUSE_SECONDS)
            else:
                break
        while True:  # what was said while the connection was lost
            await anyio.sleep(LOOK_SECONDS)
            with suppress(BrokerAwayError):
                if (hold := await shared.current_hold()) is not None:
                    heard(hold)

    def _wait_as_told(self, worker: Worker, hold: Hold) -> None:
        if hold.by == self.name:
            return
        until = anyio.current_time() + hold.seconds
        flow = worker.sender.flow
        if hold.model_id:
            flow.model_health.throttling.ask(hold.model_id, until)
        else:
            self._held_until = max(self._held_until, until)
            flow.breaker.hold(until)
        worker.wake()

    async def _tell(self, worker: Worker) -> None:
        """Have the others wait when Arthur asked for it, or refuses the key."""
        shared = self._shared
        assert shared is not None, "it was made before"
        while True:
            attempted = self._attempted
            throttled, self._throttled = self._throttled, {}
            holds = [
                Hold(seconds=seconds, reason="Retry-After", by=self.name, model_id=model_id)
                for model_id, seconds in throttled.items()
            ]
            now = anyio.current_time()
            if (until := self._held_by(worker, now)) > max(now, self._held_until) + NEWS_SECONDS:
                self._held_until = until
                reason = worker.sender.last_failure
                holds.append(Hold(seconds=until - now, reason=reason, by=self.name))
            for hold in holds:
                with suppress(BrokerAwayError, BrokerFullError):  # the others find out
                    await shared.hold(hold)
            await attempted.wait()

    @staticmethod
    def _held_by(worker: Worker, now: float) -> float:
        """Return until when no worker should send anything, as far as we know."""
        sender = worker.sender
        until = now + sender.breaker.held(now)
        if sender.is_down and sender.authorization.is_unknown:
            wait = sender.breaker.wait(now)
            if wait != float("inf"):  # then a probe is on its way
                until = max(until, now + wait + HOLD_SECONDS)
        return until

    # Giving back.

    async def _return_unsent(
        self, worker: Worker, connection: Connection, *, keep_one: bool = False
    ) -> None:
        """Give back packets of which no row is on its way to Arthur."""
        packets = [held for held in self._in_hand if held.fate is Fate.OPEN and not held.is_lost]
        if not keep_one:
            worker.batching.release_unsent()
        elif len(packets) > 1:
            worker.batching.release_unsent()
            packets.remove(self._probe(worker, packets))
        else:
            return
        await self._return(worker, connection, packets)

    @staticmethod
    def _probe(worker: Worker, packets: Sequence[HeldPacket]) -> HeldPacket:
        """Return the packet to keep, with which to learn that Arthur is back.

        An inference, where there is one: ground truth may have to wait for its own.
        """
        is_truth = [_is_truth(held) for held in packets]
        on_their_way = worker.buffer.deferred.on_their_way
        for held, truth in zip(packets, is_truth, strict=True):
            if not truth and on_their_way({row.inference for row in held.rows}):
                return held
        return packets[is_truth.index(False)] if False in is_truth else packets[0]

    async def _return(
        self,
        worker: Worker,
        connection: Connection,
        packets: Collection[HeldPacket],
        *,
        as_new: bool = False,
    ) -> None:
        """Give back packets of which no row is on its way.

        Args:
            worker: The worker.
            connection: The connection to the broker.
            packets: The packets.
            as_new: Whether they go to the end of the queue, with what is known of their rows.
        """
        for held in packets:
            if not held.is_offered and held.rows:
                self._refuse(held)
        packets = [held for held in packets if held.is_offered]
        free = self.inbox.withdraw(packets, worker.settlement.ground_truth)
        whole = [held for held in free if not as_new and len(free[held]) == held.total]
        for held in whole:
            held.fate = Fate.RETURNED
            worker.settlement.returned(free[held])
        parts = [held for held in free if held not in whole]
        await _all(
            *(self._give_back(held) for held in whole),
            *(self._give_back_part(worker, connection, held, free[held]) for held in parts),
        )

    async def _give_back(self, held: HeldPacket) -> None:
        delivery = self._in_hand.get(held)
        if delivery is not None:
            await self._unmark(held, delivery.sequence, settled=False)
            with suppress(BrokerAwayError):  # it is handed out again once its time is over
                await delivery.give_back()
            await self._drop(held, settled=False)

    async def _give_back_part(
        self, worker: Worker, connection: Connection, held: HeldPacket, rows: Sequence[Row]
    ) -> None:
        """Give back rows as a new packet, and have the old one forgotten.

        When the broker does not take it, the rows are sent from here after all.
        """
        try:
            await self._publish(connection, self._rest(held, rows))
        except BaseException as error:
            self.inbox.put_back(held, rows)
            worker.wake()
            if not isinstance(error, BrokerAwayError | BrokerFullError):
                raise
        else:
            held.fate = Fate.SETTLED
            worker.settlement.returned(rows)
            await self._forget(held)

    def _rest(self, held: HeldPacket, rows: Sequence[Row]) -> Packet:
        assert held.packet is not None, "what is no packet has no rows"
        deaths = held.packet.deaths + self._marked.get(held, 0)
        return replace(held.packet, id=str(uuid.uuid4()), rows=tuple(rows), deaths=deaths)

    async def _publish(self, connection: Connection, packet: Packet) -> None:
        await connection.publish(
            packet.subject(self.settings.stream),
            packet.body(),
            packet.headers(),
            seconds=LAST_SECONDS,
        )

    async def _return_late(self) -> None:
        """Give back what came after the last question for packets was given up."""
        consumers, self._consumers = list(self._consumers.values()), {}
        # Shielded: what came is ours to give back, also while we are cancelled.
        with anyio.CancelScope(shield=True):
            late = await asyncio.gather(*(each.close() for each in consumers))
            for delivery in [each for found in late for each in found]:
                with suppress(BrokerAwayError):
                    await delivery.give_back()

    async def _end(self, worker: Worker) -> None:
        """Acknowledge what is settled, and give back the rest, unless another run goes on with it.

        By now no request is in flight: each has ended, or was cancelled.
        """
        if self._is_stopping and self._link is not None:
            with anyio.move_on_after(LAST_SECONDS / 2):
                await self.letters.flush(self._link.connection)
        worker.keep_letters()
        self.inbox.take_settled()  # they have their fate
        await self._return_late()
        work: list[Awaitable[None]] = []
        if self._is_stopping:
            work += self._return_all(worker)
        work += [self._forget(held) for held in self._in_hand if held.fate is Fate.SETTLED]
        work += [self._give_back(held) for held in self._in_hand if held.fate is Fate.RETURNED]
        await _all(*work)

    def _return_all(self, worker: Worker) -> list[Awaitable[None]]:
        """Settle all rows as returned. Returns what gives back those of packets settled in part."""
        parts: list[Awaitable[None]] = []
        for held, rows in self.inbox.withdraw_all().items():
            if held.is_offered:
                worker.settlement.returned(rows)
            if held.is_lost:
                held.fate = Fate.SETTLED
            elif held.letters or len(rows) == held.total:
                held.fate = Fate.RETURNED
            else:
                parts.append(self._end_part(held, rows))
        for held in self._in_hand:
            if held.fate is Fate.OPEN and held.letters and not held.rows:
                held.fate = Fate.RETURNED  # its dead letters are not safe
        return parts

    async def _end_part(self, held: HeldPacket, rows: Sequence[Row]) -> None:
        link = self._link
        assert link is not None, "it runs"
        try:
            await self._publish(link.connection, self._rest(held, rows))
        except (BrokerAwayError, BrokerFullError):
            held.fate = Fate.RETURNED
            await self._give_back(held)
        else:
            held.fate = Fate.SETTLED
            await self._forget(held)


def _is_truth(held: HeldPacket) -> bool:
    return held.packet is not None and held.packet.kind is RowKind.GROUND_TRUTH


async def _all(*work: Awaitable[None]) -> None:
    """Do pieces of work at the same time."""
    await asyncio.gather(*work)
