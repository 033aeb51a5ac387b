"""The one worker: takes captures from the inlet, encodes, buffers, batches and has them delivered.

It owns time: linger and flushes here, back-off and the breaker in the dispatcher. It runs on any
anyio loop; the runtime gives it a thread, the tests a virtual clock.
"""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from arthur_relay.buffers import Buffer
from arthur_relay.destinations import Destination
from arthur_relay.encoding.encoder import Encoder
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.inference import Capture
from arthur_relay.pipeline.batcher import Batcher
from arthur_relay.pipeline.compactor import Compactor, Offload
from arthur_relay.pipeline.dispatcher import Dispatcher
from arthur_relay.pipeline.flushes import Barrier, Flushes
from arthur_relay.pipeline.inlet import Inlet
from arthur_relay.pipeline.ledger import Ledger
from arthur_relay.pipeline.overflow import OverflowNotice
from arthur_relay.pipeline.pace import Pace
from arthur_relay.pipeline.sampling import split_sample
from arthur_relay.pipeline.schemas import SchemaLoader
from arthur_relay.pipeline.staging import Staging
from arthur_relay.row import Batch, Row
from arthur_relay.schema import ModelSchema
from arthur_relay.settings import Overflow, RelaySettings
from arthur_relay.stats import DropReason

logger = logging.getLogger("arthur_relay.worker")

AHEAD_BATCHES = 2
"""Batches encoded before there is capacity to send them: more would only take memory."""

SLICE_CAPTURES = 4
"""Captures encoded before the worker looks whether others want to go on: a tenth of a ms."""

SLICES_A_TURN = 64
"""Slices before the loop turns, so that answers are read and deliveries go on."""

RUSH_FULLNESS, QUICK_FULLNESS = 0.4, 0.7
"""How full the inlet may be before the worker pauses less, and compresses less well."""

HURRY_SECONDS = 1.0
"""The shortest time between flushes that make waiting deliveries try at once."""

SWEEP_SECONDS = 10.0
"""How often open runs are looked through for those that never ended; oftener for a short age."""


@dataclass(slots=True, eq=False, kw_only=True)
class Worker:
    """The pipeline's loop.

    `control` may be called from any thread and must be followed by a wake-up; `wake` belongs to
    the loop's thread. When `run` is cancelled or dies, the rows stay in the buffer, and another
    `run` goes on with them.

    Attributes:
        inlet: Where captures come from.
        buffer: Where rows wait until they are settled.
        destination: Where they go.
        ledger: Where they are counted.
        settings: Sizes and times.
        random: Returns a number in 0..1, for jitter.
        sweep: Looks for open runs that never ended; returns whether any run is open.
        learned: Told of each model that becomes known.
        pace: Lets the application's threads go on.
        offload: Calls a function in another thread and waits for it.
    """

    inlet: Inlet
    buffer: Buffer
    destination: Destination
    ledger: Ledger
    settings: RelaySettings
    random: Callable[[], float]
    sweep: Callable[[], bool]
    learned: Callable[[str, ModelSchema], None]
    pace: Pace
    offload: Offload
    dispatcher: Dispatcher = field(init=False)
    schemas: SchemaLoader = field(init=False)
    _batcher: Batcher = field(init=False)
    _controls: deque[Barrier] = field(default_factory=deque)
    _flushes: Flushes = field(default_factory=Flushes)
    _ready: deque[Batch] = field(default_factory=deque)
    _staging: Staging = field(default_factory=Staging)
    _wakeup: anyio.Event | None = None
    _next_sweep: float = 0.0
    _hurried_at: float = float("-inf")
    _overflow_notice: OverflowNotice = field(init=False)
    _compactor: Compactor = field(init=False)
    _told_unencodable: bool = False
    _slices: int = 0

    def __post_init__(self) -> None:
        self._batcher = self._new_batcher()
        self._overflow_notice = OverflowNotice(self.settings.overflow.value)
        self.dispatcher = Dispatcher(
            destination=self.destination,
            buffer=self.buffer,
            ledger=self.ledger,
            settings=self.settings,
            random=self.random,
            shrink=self._shrink,
            settled=self._settled,
            changed=self.wake,
        )
        self.schemas = SchemaLoader(
            destination=self.destination,
            buffer=self.buffer,
            settings=self.settings,
            random=self.random,
            omitted=self.ledger.omit,
            privacy=Privacy.of(self.settings, failed=self.ledger.redaction_failed),
            learned=self.learned,
            changed=self.wake,
        )
        self._compactor = Compactor(self.buffer, self.dispatcher, self.offload)

    def control(self, barrier: Barrier) -> None:
        """Ask for a flush, or for the end. Any thread; wake the worker afterwards."""
        self._controls.append(barrier)

    def wake(self) -> None:
        """Make the loop look around. Loop's thread only."""
        if self._wakeup is not None:
            self._wakeup.set()

    @property
    def _sweep_seconds(self) -> float:
        return min(SWEEP_SECONDS, self.settings.run_max_age_seconds)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait behind the inlet, as accounted. Any thread may read it."""
        return self.buffer.size + self._staging.size

    async def run(self, ready: Callable[[], None] = lambda: None) -> None:
        """Work until a closing barrier is done, or until cancelled.

        Args:
            ready: Called when the destination has been entered.
        """
        self._wakeup = anyio.Event()
        self._batcher = self._new_batcher()
        self._ready.clear()
        self.ledger.recover(self.buffer.open())
        self.buffer.release_all()
        self.dispatcher.enter()
        self.schemas.enter()
        async with self.destination, anyio.create_task_group() as group:
            ready()
            group.start_soon(self._compactor.run)
            for model_id in self._staging.models():  # an earlier run died while it asked
                self.schemas.load(group, model_id)
            self.schemas.resume(group)
            while not await self._turn(group):
                await self._rest()
            group.cancel_scope.cancel()

    async def _turn(self, group: TaskGroup) -> bool:
        """Do what can be done now. Returns True when it is time to end."""
        self._wakeup = anyio.Event()
        while self._controls:
            barrier = self._controls.popleft()
            if barrier.done.cancelled():
                continue
            self._flushes.begin(barrier, len(self.inlet))
            self._hurry(closing=barrier.closing)
        self.schemas.turn(group)
        await self._encode_staged()
        await self._take_in(group)
        self.buffer.commit()
        self._send_off(group)
        if anyio.current_time() >= self._next_sweep:
            open_runs = self.sweep()
            self._next_sweep = anyio.current_time() + self._sweep_seconds if open_runs else 0.0
        overflown = self.ledger.dropped_by_reason().get(DropReason.OVERFLOW, 0)
        if notice := self._overflow_notice.look(overflown, anyio.current_time()):
            logger.warning("%s", notice)
        return any(flush.closing for flush in self._flushes.complete())

    def _hurry(self, *, closing: bool) -> None:
        """Cut back-offs short for a flush, now and then; while closing, from now on."""
        now = anyio.current_time()
        if closing:
            self.dispatcher.urgent = self.schemas.urgent = True
        elif now < self._hurried_at + HURRY_SECONDS:
            return  # a flush for each request must not become a storm on an Arthur in trouble
        self._hurried_at = now
        self.dispatcher.hurry()
        self.schemas.hurry()

    async def _rest(self) -> None:
        """Wait for a wake-up, or for the next timer."""
        assert self._wakeup is not None
        now = anyio.current_time()
        timers = [self._next_sweep or now + self._sweep_seconds]
        due = self._batcher.next_due()
        if due is not None and self.dispatcher.has_capacity:
            timers.append(due)  # without capacity, the end of a delivery wakes us
        interval, ahead = self.settings.flush_interval_seconds, self._is_ahead()
        idle = not ahead and (self.waiting_bytes == 0 or interval == 0)
        if not (idle or ahead):
            # Rows wait, so captures need not wake us one by one: we look after the interval.
            timers.append(now + interval)
        may_wait = self._is_stalled() or self.inlet.rest(idle=idle, ahead=ahead)
        if may_wait and not (self._controls or self.schemas.has_questions):
            with anyio.move_on_after(max(0.0, min(timers) - now)):
                await self._wakeup.wait()
        else:
            await anyio.lowlevel.checkpoint()

    async def _take_in(self, group: TaskGroup) -> None:
        """Take captures from the inlet: those that wait now, and fit."""
        taken = 0
        left = 0 if self._is_ahead() and not self.inlet.is_half_full else len(self.inlet)
        while left > 0 and not self._is_stalled():
            captures = self.inlet.take(min(left, self._slice()))
            if not captures:
                break
            left -= len(captures)
            taken += len(captures)
            if self.settings.sample_rate < 1.0:
                captures, others = split_sample(captures, self.settings.sample_rate)
                self.ledger.drop(DropReason.SAMPLED, others)
            self._flushes.take(sum([capture.rows for capture in captures]))
            self._accept(captures, group)
            await self._breathe()
        if taken:
            self.inlet.made_room()
        self._flushes.close_epoch(taken, inlet_is_empty=len(self.inlet) == 0)

    async def _breathe(self) -> None:
        """Let the application's threads go on after a slice, and the loop turn now and then."""
        self.pace.breathe(in_a_rush=self.inlet.fullness >= RUSH_FULLNESS)
        self._slices += 1
        if self._slices % SLICES_A_TURN == 0:
            await anyio.lowlevel.checkpoint()

    def _slice(self) -> int:
        """Return how many captures to take at once; one by one where the buffer may refuse them."""
        if self.settings.overflow is Overflow.DROP_OLDEST or self._has_room(0, rows=SLICE_CAPTURES):
            return SLICE_CAPTURES
        return 1

    def _accept(self, captures: Iterable[Capture], group: TaskGroup) -> None:
        """Encode captures, or stage them until their model is known."""
        epoch = self._flushes.epoch
        rows: list[Row] = []
        for capture in captures:
            encoder = self.schemas.encoder(capture.model_id)
            if encoder is not None and not self._staging.holds(capture.model_id):
                rows += self._encode(encoder, capture, epoch)
            elif encoder is not None:  # it has just become known; older ones go first
                self._staging.put(capture, epoch)
            elif not capture.model_id:
                self._refuse("no model id", capture, epoch)
            elif (reason := self.schemas.refusal(capture.model_id)) is not None:
                self._refuse(reason, capture, epoch)
            else:
                while not self._has_room(capture.size) and self._make_room():
                    pass
                self._staging.put(capture, epoch)
                self.schemas.load(group, capture.model_id)
        self._hold(rows)

    async def _encode_staged(self) -> None:
        """Encode, or reject, what was staged for models about which Arthur has told by now."""
        for model_id in self._staging.models():
            encoder = self.schemas.encoder(model_id)
            reason = self.schemas.refusal(model_id)
            if encoder is None and reason is None:
                continue
            while staged := self._staging.take(model_id, SLICE_CAPTURES):
                for capture, epoch in staged:
                    if encoder is not None:
                        self._hold(self._encode(encoder, capture, epoch))
                    elif reason is not None:
                        self._refuse(reason, capture, epoch)
                await self._breathe()

    def _refuse(self, reason: str, capture: Capture, epoch: int) -> None:
        self.ledger.reject(reason, capture.rows)
        self._flushes.settle(capture.rows, epoch)

    def _encode(self, encoder: Encoder, capture: Capture, epoch: int) -> list[Row]:
        try:
            rows = encoder.encode(capture, epoch)
        except Exception:  # noqa: BLE001 - one bad capture must not cost the others
            if not self._told_unencodable:
                self._told_unencodable = True
                # Without the exception, whose text might quote the inference.
                logger.warning("an inference could not be encoded and is dropped")
            self.ledger.drop(DropReason.UNENCODABLE, capture.rows)
            self._flushes.settle(capture.rows, epoch)
            return []
        if len(rows) < capture.rows:
            missing = capture.rows - len(rows)
            self.ledger.drop(DropReason.SKIPPED, missing)
            self._flushes.settle(missing, epoch)
        return rows

    def _hold(self, rows: Sequence[Row]) -> None:
        """Put rows into the buffer, at the cost of older ones where the policy says so."""
        if self.settings.overflow is not Overflow.DROP_OLDEST or self._has_room(
            sum([len(row.body) for row in rows]), rows=len(rows)
        ):
            # What may not be dropped was taken because there was room; it may go a little beyond.
            self.buffer.put(rows)
        else:
            for row in rows:
                while not (fits := self._has_room(len(row.body))) and self._make_room():
                    pass
                if fits:
                    self.buffer.put([row])
                else:
                    self._lose(DropReason.OVERFLOW, [row])
        self._compactor.nudge()

    def _compact(self) -> bool:
        """Make room without a loss. Returns whether there was anything to do."""
        return self.buffer.compact(quickly=self.inlet.fullness >= QUICK_FULLNESS)

    def _make_room(self) -> bool:
        """Compact what waits, else give up the oldest if the policy allows; False when it can't."""
        if self._compact():
            return True
        if self.settings.overflow is not Overflow.DROP_OLDEST:
            return False
        row = self.buffer.evict()
        if row is not None:
            self._lose(DropReason.OVERFLOW, [row])
            return True
        staged = self._staging.evict()
        if staged is None:
            return False
        capture, epoch = staged
        self.ledger.drop(DropReason.OVERFLOW, capture.rows)
        self._flushes.settle(capture.rows, epoch)
        return True

    def _send_off(self, group: TaskGroup) -> None:
        """Form batches of what waits, as far as there is capacity to send them."""
        now = anyio.current_time()
        while self.dispatcher.has_capacity:
            self.pace.breathe(in_a_rush=self.inlet.fullness >= RUSH_FULLNESS)
            if self._ready:
                self.dispatcher.start(group, self._ready.popleft().rows)
            elif rows := self.buffer.lease(self.settings.batch_size):
                self._ready.extend(self._batcher.add(rows, now))
            else:
                hurried = len(self._flushes) > 0 or not self._has_room(1)
                self._ready.extend(self._batcher.flush() if hurried else ())
                self._ready.extend(self._batcher.due(now))
                if not self._ready:
                    return

    def _is_stalled(self) -> bool:
        """Say whether the buffer is full and the policy is to keep what is in it."""
        if self.settings.overflow is Overflow.DROP_OLDEST or self._has_room(1):
            return False
        # While deliveries go well there will be room soon, so it is not worth the work.
        return self.dispatcher.goes_well or not self._compact()

    def _is_ahead(self) -> bool:
        """Say whether rows enough are ready, deliveries go well, and captures need no disk."""
        enough = self.buffer.waiting >= AHEAD_BATCHES * self.settings.batch_size
        return enough and self.dispatcher.goes_well and not self.buffer.is_durable

    def _has_room(self, size: int, *, rows: int = 1) -> bool:
        staging = self._staging
        return self.buffer.has_room(rows=rows + staging.rows, size=size + staging.size)

    def _lose(self, reason: DropReason, rows: Sequence[Row]) -> None:
        self.ledger.drop(reason, len(rows))
        self._settled(rows)

    def _settled(self, rows: Sequence[Row]) -> None:
        self._flushes.settle_all([row.epoch for row in rows])

    def _shrink(self, row: Row) -> Row | None:
        encoder = self.schemas.encoder(row.model_id)
        return encoder.shrink(row) if encoder is not None else None

    def _new_batcher(self) -> Batcher:
        return Batcher(
            max_rows=self.settings.batch_size,
            max_bytes=self.settings.batch_bytes,
            linger_seconds=self.settings.flush_interval_seconds,
        )
