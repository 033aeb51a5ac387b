"""The worker's loop: it says when each stage of the pipeline has its turn, and waits in between.

No row passes through it. `encode_stage` takes captures from the queue and puts rows into the
buffer, `delivery.batching` takes them from there and gives batches to the sender. It runs on any
anyio loop: the runtime gives it a thread, the tests a virtual clock.
"""

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import Buffer
from arthur_relay.capture.queue import CaptureQueue
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.delivery.batching import BatchingStage
from arthur_relay.delivery.sender import Sender
from arthur_relay.destinations import Destination, HasOwner
from arthur_relay.errors import RelayError
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.settings import RelaySettings
from arthur_relay.worker.admission import Admission
from arthur_relay.worker.compactor import Compactor
from arthur_relay.worker.encode_stage import EncodeStage
from arthur_relay.worker.flush import FlushRequest, FlushTracker
from arthur_relay.worker.gil import GilYielder
from arthur_relay.worker.host import PipelineHost
from arthur_relay.worker.ingest import IngestQueue
from arthur_relay.worker.schema_registry import SchemaRegistry
from arthur_relay.worker.settlement import Settlement
from arthur_relay.worker.wake_up import WakeUp

AHEAD_BATCHES = 2
"""The batches that are encoded before they can be sent: more would only take memory."""

TURN_BATCHES = 2
"""The batches that a turn of the loop encodes, at most, before it sends what is ready."""

HURRY_SECONDS = 1.0
"""The shortest time between two flushes that end back-offs."""

LEARN_SECONDS = 10.0
"""How often Arthur is asked for our organisation, until it answers."""

SWEEP_SECONDS = 10.0
"""How often open runs that never ended are given up, or more often if they may be less old."""


class Upkeep(Protocol):
    """Work beside the worker's loop, for as long as that runs."""

    def enter(self, worker: "Worker") -> None:
        """Get ready for a loop, also after an earlier one died; before any row is sent."""
        ...

    async def run(self, worker: "Worker") -> None:
        """Work until cancelled. The worker's loop."""
        ...


class NoUpkeep:
    """There is none."""

    def enter(self, worker: "Worker") -> None:
        """Do nothing."""

    async def run(self, worker: "Worker") -> None:
        """Do nothing."""


@dataclass(slots=True, eq=False, kw_only=True)
class Worker:
    """The pipeline's loop; `composition.build_worker` composes it.

    `control` may be called from any thread and must be followed by a wake-up; `wake` belongs to
    the loop's thread. When `run` is cancelled or dies, the rows stay in the buffer, and the next
    `run` continues with them.

    Attributes:
        queue: Where captures come from.
        buffer: Where rows wait until they are settled.
        destination: Where rows are sent.
        ledger: Counts inferences.
        dead_letters: Keeps rejected rows.
        settings: Sizes and times.
        host: Whom the pipeline works for.
        budget: The bytes of everything that waits.
        gil: Lets the application's threads go on.
        wake_up: What the loop waits for.
        flushes: The flushes that wait.
        settlement: Settles rows.
        sender: Delivers batches.
        schemas: Knows the models.
        compactor: Compresses rows in another thread.
        admission: Decides what gives way when the buffer is full.
        ingest: Takes in rows that come encoded.
        encode_stage: Makes rows of captures.
        batching: Makes batches of rows.
        upkeep: Works beside the loop.
    """

    queue: CaptureQueue
    buffer: Buffer
    destination: Destination
    ledger: Ledger
    dead_letters: DeadLetters
    settings: RelaySettings
    host: PipelineHost
    budget: MemoryBudget
    gil: GilYielder
    wake_up: WakeUp
    flushes: FlushTracker
    settlement: Settlement
    sender: Sender
    schemas: SchemaRegistry
    compactor: Compactor
    admission: Admission
    ingest: IngestQueue
    encode_stage: EncodeStage
    batching: BatchingStage
    upkeep: "Upkeep"
    _controls: deque[FlushRequest] = field(default_factory=deque)
    _next_sweep: float = 0.0
    _hurried_at: float = float("-inf")
    _idle_since: float | None = None
    _captured_before: int = 0

    def control(self, request: FlushRequest) -> None:
        """Request a flush, or the end. Any thread; wake the worker afterwards."""
        self._controls.append(request)

    def wake(self) -> None:
        """Have the loop take another turn. Loop's thread only."""
        self.wake_up.wake()

    def has_work(self) -> bool:
        """Return whether anything waits, is on its way or is asked for. Not during a turn."""
        return bool(
            self._controls
            or len(self.queue)
            or self.buffer.intake.rows
            or self.admission.awaiting.rows
            or len(self.flushes)
            or self.sender.in_progress
            or self.schemas.is_asking
        )

    async def run(self, ready: Callable[[], object] = bool) -> bool:
        """Work until a closing flush is done, until cancelled, or until there is nothing to do.

        Args:
            ready: Called when the destination has been entered.

        Returns:
            Whether it ended because it had nothing to do for the host's `idle_seconds`.
        """
        self.wake_up.reset()
        self._idle_since = anyio.current_time()
        self.buffer.durable.open(self._recover)
        self.batching.enter()
        self.sender.enter()
        self.schemas.enter()
        self.upkeep.enter(self)
        is_over = is_idle = False
        async with self.destination, anyio.create_task_group() as group:
            ready()
            group.start_soon(self.compactor.run)
            group.start_soon(self.upkeep.run, self)
            if self.buffer.durable.asks_for_owner:
                group.start_soon(self._learn_owner)
            self.encode_stage.resume(group)
            self.schemas.resume(group)
            while not (await self._turn(group) or (is_idle := self._is_idle())):
                await self._rest()
            is_over = True
            group.cancel_scope.cancel()
        if not is_over:
            # Something that a task of the group called has cancelled it. The group takes that for
            # its own end, and without an error the worker would not be started again.
            raise RuntimeError("a task was cancelled from within")
        if is_idle:
            self.keep_letters()
            self.buffer.durable.close()  # a later run opens it again
        return is_idle

    def _recover(self, rows: int, by_model: Callable[[], Mapping[str, int]]) -> None:
        """Count rows of earlier processes, and let flushes wait for them."""
        self.ledger.recover(rows, by_model)
        self.flushes.recover(rows)

    async def _learn_owner(self) -> None:
        """Ask Arthur for our organisation, while rows wait that may be ours, until it answers.

        With a new key, it may be that nothing else is ever asked of Arthur.
        """
        destination = self.destination
        while self.buffer.durable.asks_for_owner and isinstance(destination, HasOwner):
            with suppress(RelayError):
                await destination.learn_owner()
                self.wake()
            await anyio.sleep(LEARN_SECONDS)

    def _is_idle(self) -> bool:
        """Return whether there has been nothing to do for so long that the run should end."""
        if self.host.idle_seconds is None:
            return False
        now, captured = anyio.current_time(), self.ledger.captured.value()
        is_new, self._captured_before = captured != self._captured_before, captured
        if self._next_sweep or self.has_work():  # the first says that runs are open
            self._idle_since = None
        elif is_new or self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= self.host.idle_seconds:
            self._idle_since = now  # for the case that it has to stay
            return self.host.may_idle()
        return False

    async def _turn(self, group: TaskGroup) -> bool:
        """Do all that can be done now. Returns whether it is time to end."""
        self.wake_up.reset()
        while self._controls:
            request = self._controls.popleft()
            if request.done.cancelled():
                continue
            self.flushes.begin(request, len(self.queue))
            self._hurry(closing=request.closing or request.urgent)
        self.schemas.turn(group)
        self.keep_letters()
        if self.ingest.take_in():  # this may commit rows that are settled
            self.wake()  # for the rest
        await self.encode_stage.encode_awaiting()
        waits = self._is_ahead() and not self.queue.is_half_full
        some = 0 if waits else min(len(self.queue), TURN_BATCHES * self.settings.batch_size)
        await self.encode_stage.take_in(group, at_most=some)
        stalled = self.admission.is_stalled()
        self.queue.stall(stalled)
        if some and len(self.queue) and not stalled:
            self.wake()  # for the rest, once what is ready was sent
        self._keep()
        self._send_off(group)
        if anyio.current_time() >= self._next_sweep:
            self.buffer.durable.adopt(self._recover)
            open_runs = self.host.sweep()
            self._next_sweep = anyio.current_time() + self._sweep_seconds if open_runs else 0.0
        self.admission.log_overflow()
        return any(flush.closing for flush in self.flushes.complete())

    def _keep(self) -> None:
        """Make everything safe that has happened; dead letters before their rows are forgotten."""
        self.keep_letters()
        self.buffer.durable.commit()
        self.settlement.lost(self.buffer.durable.lost())

    def keep_letters(self) -> None:
        """Make the dead letters safe that were added. The worker's loop."""
        self.buffer.journal.let_go(self.dead_letters.commit())

    def _hurry(self, *, closing: bool) -> None:
        """End back-offs for a flush, at most once a second; when closing, keep them short."""
        now = anyio.current_time()
        if closing:
            self.sender.flow.urgent = self.schemas.urgent = True
        elif now < self._hurried_at + HURRY_SECONDS:
            return  # an application that flushes often must not flood an Arthur that is in trouble
        self._hurried_at = now
        self.batching.hurry(now)
        self.sender.hurry()
        self.schemas.hurry()

    async def _rest(self) -> None:
        """Wait for a wake-up, or until the next timer."""
        now = anyio.current_time()
        timers = [self._next_sweep or now + self._sweep_seconds]
        if (probe_at := self.sender.flow.next_probe(now)) is not None:
            timers.append(probe_at)
        # Without capacity, the end of a delivery wakes us.
        if self.sender.has_capacity and (due_at := self.batching.next_due()) is not None:
            timers.append(due_at)
        if self.host.idle_seconds is not None and self._idle_since is not None:
            timers.append(self._idle_since + self.host.idle_seconds)
        interval, ahead = self.settings.flush_interval_seconds, self._is_ahead()
        idle = not ahead and (self.budget.buffered == 0 or interval == 0)
        if not (idle or ahead):
            # Rows wait, so captures need not wake us one by one: we look when the interval is over.
            timers.append(now + interval)
        may_wait = self.admission.is_stalled() or self.queue.rest(idle=idle, ahead=ahead)
        if may_wait and not (self._controls or self.schemas.has_questions):
            with anyio.move_on_after(max(0.0, min(timers) - now)):
                await self.wake_up.wait()
        else:
            await anyio.lowlevel.checkpoint()

    def _send_off(self, group: TaskGroup) -> None:
        """Have batches of what waits sent, as far as there is capacity to send them."""
        now = anyio.current_time()
        self.batching.start_turn(now)
        self.sender.flow.look()
        self.sender.start_probes(group)
        while self.sender.has_capacity:
            self.gil.maybe_yield(self.encode_stage.is_in_a_rush)
            if self.batching.send_next(group, now):
                continue
            in_a_hurry = len(self.flushes) > 0 or not self.admission.has(1)
            if not self.batching.close_batches(now, at_once=in_a_hurry):
                if self.buffer.leases.is_looking:
                    self.wake()  # for the rest
                return

    @property
    def _sweep_seconds(self) -> float:
        return min(SWEEP_SECONDS, self.settings.run_max_age_seconds)

    def _is_ahead(self) -> bool:
        """Return whether enough rows are ready while deliveries go well and no disk is used."""
        enough = self.buffer.leases.waiting >= AHEAD_BATCHES * self.settings.batch_size
        if enough and (self.batching.has_put_off or self.sender.waiting_models()):
            return False  # all the waiting rows may be of models that have to wait
        return enough and self.sender.is_healthy and not self.buffer.intake.is_durable
