"""Batches on their way: concurrency, attempts, retries, splits, the breaker, and who is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import anyio
from anyio.abc import TaskGroup

from arthur_relay.buffers import Buffer
from arthur_relay.destinations import Destination
from arthur_relay.errors import without_texts
from arthur_relay.pipeline.breaker import Breaker, BreakerState
from arthur_relay.pipeline.concurrency import ConcurrencyLimit
from arthur_relay.pipeline.entry import Entry
from arthur_relay.pipeline.ledger import Ledger
from arthur_relay.pipeline.repeats import Unheard
from arthur_relay.pipeline.retry import URGENT_SECONDS, FullJitter, StopAfterElapsed, retrying
from arthur_relay.pipeline.suspects import STATUSES, Search, Suspects
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Row, Verdict
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.delivery")

MAX_MALFORMED_ANSWERS = 3
"""Answers not understood before a batch's rows are rejected; each may have stored them again."""

PARKED_PER_SLOT = 3
"""Batches that may back off for each request slot, so that one bad batch does not hold a slot."""

SPARE_BATCHES = 1
"""Batches that are ready when a slot becomes free."""


@dataclass(slots=True, eq=False)
class _Delivery:
    """A batch on its way, and what happened to it so far."""

    rows: tuple[Row, ...]
    deadline: float
    attempts_before: int = 0
    """Those of the batch that it was split off."""
    attempts: int = 0
    malformed: int = 0
    last_reason: str = ""
    refusal: str = ""
    """Why the whole of it was refused, in a sentence, or ""."""
    last_status: int | None = None
    search: Search | None = None
    """For the rows that a batch was refused for, of which this is a part."""
    unheard: Unheard = field(default_factory=Unheard)
    """The rows that Arthur may have without our having heard it."""

    began_at: float = 0.0
    excused_seconds: float = 0.0
    """The time that does not count, because Arthur did not take who we are."""
    is_excused: bool = False

    @property
    def all_attempts(self) -> int:
        return self.attempts_before + self.attempts

    def note(self, attempt: Attempt, now: float) -> None:
        """Note what an attempt says of the next ones."""
        self.unheard = self.unheard.after(attempt, self.rows)
        self.is_excused = attempt.failure is Failure.UNAUTHORISED
        if self.is_excused:
            self.excused_seconds = now - self.began_at

    def time(self) -> float:
        """Return the time as it counts against the deadline."""
        if self.is_excused:
            return float("-inf")
        return anyio.current_time() - self.excused_seconds


@dataclass(slots=True, eq=False, kw_only=True)
class Dispatcher:
    """Delivers batches until each row is settled. Belongs to the worker's loop.

    Attributes:
        destination: Makes one attempt.
        buffer: Forgets what is settled.
        ledger: Counts it.
        settings: Time limits and counts.
        random: Returns a number in 0..1.
        shrink: Returns a smaller form of a row that is too large alone, or None.
        settled: Told of rows that are done with, however.
        dead: Told of each row that was rejected or given up, why, and after how many attempts.
        postpone: Takes ground truth that is to be sent again later; returns whether it did.
        changed: Told when there may be capacity again.
        urgent: Whether the relay is closing, and waits have to be short.
        sending: Requests that are on their way at this moment. Any thread may read it.
        entry: Whether Arthur takes who we are.
        is_held: Whether no request may set off any more: those on their way end, the rest stays
            in the buffer. Any thread may set it.
        observers: Told of each attempt, and how many seconds it took; must not raise.
    """

    destination: Destination
    buffer: Buffer
    ledger: Ledger
    settings: RelaySettings
    random: Callable[[], float]
    shrink: Callable[[Row], Row | None]
    settled: Callable[[Sequence[Row]], None]
    dead: Callable[[Row, Outcome, int], None]
    postpone: Callable[[Row], bool]
    changed: Callable[[], None]
    breaker: Breaker = field(init=False)
    limit: ConcurrencyLimit = field(init=False)
    entry: Entry = field(default_factory=Entry)
    urgent: bool = False
    last_failure: str = ""
    in_progress: int = 0
    sending: int = 0
    is_held: bool = False
    observers: list[Callable[[Batch, Attempt, float], None]] = field(default_factory=list)
    _parked: int = 0
    _slots: anyio.CapacityLimiter = field(init=False)
    _gate: anyio.Event = field(init=False)
    _hurry: anyio.Event = field(init=False)
    _told_reasons: set[str] = field(default_factory=set)
    _suspects: Suspects = field(default_factory=Suspects)

    def __post_init__(self) -> None:
        self.breaker = Breaker(
            failures=self.settings.breaker_failures,
            first_wait_seconds=min(1.0, self.settings.breaker_max_seconds),
            max_wait_seconds=self.settings.breaker_max_seconds,
            random=self.random,
        )
        self.limit = ConcurrencyLimit(self.settings.max_in_flight)

    def enter(self) -> None:
        """Get ready for a loop, also after an earlier one died."""
        self._slots = anyio.CapacityLimiter(self.limit.requests)
        self._gate = anyio.Event()
        self._hurry = anyio.Event()
        self.in_progress = self._parked = self.sending = 0
        self.breaker.abandoned(0.0)

    @property
    def is_down(self) -> bool:
        """Whether the destination is known to be away."""
        return self.breaker.state is not BreakerState.CLOSED

    @property
    def goes_well(self) -> bool:
        """Whether the last request was answered as it should be."""
        return self.breaker.failures_in_a_row == 0

    @property
    def has_capacity(self) -> bool:
        """Whether one more batch may set off; few while the destination is in trouble.

        Rows of batches that have set off can't be given up for newer ones.
        """
        if self.is_held:
            return False
        if self.is_down:
            return self.in_progress == 0  # the one that will be the probe
        slots = self.limit.requests
        if not self.goes_well:
            return self.in_progress < slots
        return (
            self.in_progress - self._parked < slots + SPARE_BATCHES
            and self.in_progress < slots * (1 + PARKED_PER_SLOT)
        )

    def start(self, group: TaskGroup, rows: tuple[Row, ...]) -> None:
        """Send a batch on its way; returns at once."""
        now = anyio.current_time()
        deadline = now + self.settings.retry_max_elapsed_seconds
        self._start(group, _Delivery(rows, deadline, unheard=Unheard.of(rows), began_at=now))

    def _start(self, group: TaskGroup, delivery: _Delivery) -> None:
        self.in_progress += 1
        group.start_soon(self._deliver, group, delivery)

    def hurry(self) -> None:
        """Cut back-offs short once, for a flush. What the destination asked for is still obeyed."""
        self._hurry.set()
        self._hurry = anyio.Event()
        self.breaker.probe_now(anyio.current_time())
        self._open_gate()

    async def _deliver(self, group: TaskGroup, delivery: _Delivery) -> None:
        policy = retrying(
            wait=FullJitter(
                initial_seconds=self.settings.retry_initial_seconds,
                max_seconds=self.settings.retry_max_seconds,
                random=self.random,
            ),
            stop=StopAfterElapsed(deadline=delivery.deadline, clock=delivery.time),
            sleep=self._back_off,
        )
        try:
            await policy(partial(self._attempt, group, delivery))
            if delivery.rows:
                self._give_up(delivery)
        finally:
            self.in_progress -= 1
            self.changed()

    async def _attempt(self, group: TaskGroup, delivery: _Delivery) -> bool:
        """Make one attempt. Returns True when rows are left for another one."""
        async with self._slots:
            # In the slot: who waited for one has to see a hold that came meanwhile.
            await self._admission()
            attempt = await self._ask(delivery)
        attempt = delivery.unheard.judge(attempt, delivery.rows)
        self._judge_destination(attempt)
        delivery.note(attempt, anyio.current_time())
        delivery.last_reason = attempt.reason
        delivery.refusal = attempt.reason if attempt.failure is Failure.REFUSED else ""
        if attempt.failure is Failure.TOO_LARGE:
            self._split(group, delivery, attempt.outcomes[0])
            return False
        if attempt.failure is Failure.REFUSED and self._searches(delivery, attempt.outcomes[0]):
            self._halve(group, delivery)
            return False
        if attempt.failure is Failure.MALFORMED:
            delivery.malformed += 1
            self.ledger.malformed_answers += 1
            if delivery.malformed >= MAX_MALFORMED_ANSWERS:
                attempt = _all(delivery.rows, Outcome(Verdict.REJECTED, "malformed answer"))
        self._sort_out(delivery, attempt.outcomes)
        return bool(delivery.rows)

    async def _ask(self, delivery: _Delivery) -> Attempt:
        self.ledger.requests += 1
        self.ledger.retries += delivery.attempts > 0
        delivery.attempts += 1
        batch = Batch(delivery.rows[0].model_id, delivery.rows)
        began_in, began_at = self.limit.begin(), anyio.current_time()
        self.sending += 1
        try:
            attempt = await self._send(batch)
        finally:
            self.sending -= 1
        seconds = anyio.current_time() - began_at
        self._adapt(attempt, began_in, seconds=seconds, size=batch.size)
        for observe in self.observers:
            observe(batch, attempt, seconds)
        return attempt

    async def _send(self, batch: Batch) -> Attempt:
        limit = self.settings.request_timeout_seconds
        again = Outcome(Verdict.RETRY)
        try:
            with anyio.move_on_after(limit):
                return await self.destination.deliver(batch)
        except anyio.get_cancelled_exc_class():
            self.breaker.abandoned(anyio.current_time())
            raise
        except Exception as error:  # noqa: BLE001 - a bug in it must cost its batch, not the worker
            logger.error(  # noqa: TRY400 - the error's text might quote a prompt
                "arthur-relay: a destination raised, which none may: %s", without_texts(error)
            )
            reason = f"internal error ({type(error).__name__})"
            return _unheard(_all(batch.rows, again, Failure.MALFORMED, reason))
        reason = f"no answer within {limit:g} s"
        return _unheard(_all(batch.rows, again, Failure.UNAVAILABLE, reason))

    def _judge_destination(self, attempt: Attempt) -> None:
        """Tell the breaker, and the log when something changed."""
        now = anyio.current_time()
        if attempt.retry_after_seconds is not None:
            self.breaker.hold(now + attempt.retry_after_seconds)
        is_first_refusal = self.entry.note(attempt)
        if attempt.failure is Failure.UNAUTHORISED:
            self.last_failure = attempt.reason
            self.breaker.failed(now, at_once=True)
            if is_first_refusal:
                logger.warning(
                    "arthur-relay: %s Inferences wait until Arthur lets us in again; a key or a"
                    " password in a file is read again by itself",
                    attempt.reason,
                )
        elif attempt.failure is Failure.UNAVAILABLE:
            self.last_failure = attempt.reason
            if self.breaker.failed(now):
                logger.warning(
                    "arthur-relay: Arthur can't be reached (%s); inferences wait until it can",
                    attempt.reason,
                )
        else:
            self.last_failure = attempt.reason
            if self.breaker.succeeded():
                logger.warning("arthur-relay: Arthur answers again; delivery goes on")
        self._open_gate()

    def _adapt(self, attempt: Attempt, began_in: int, *, seconds: float, size: int) -> None:
        """Let more requests, or fewer, be on their way from now on."""
        if attempt.failure in (Failure.UNAVAILABLE, Failure.THROTTLED):
            self.limit.failed(began_in)
        elif attempt.failure is None:
            self.limit.succeeded(began_in, seconds=seconds, size=size)
        self._slots.total_tokens = self.limit.requests

    def _sort_out(self, delivery: _Delivery, outcomes: Sequence[Outcome]) -> None:
        """Settle what is delivered or rejected, and leave the rows to try again."""
        rows, delivery.rows = delivery.rows, ()
        if outcomes.count(DELIVERED) == len(rows):  # nearly always
            self._settle(rows)
            self._deliver_rows(delivery, rows[0].model_id, len(rows))
            return
        again, done, rejected = [], [], []
        delivered = 0
        for row, outcome in zip(rows, outcomes, strict=True):
            match outcome.verdict:
                case Verdict.RETRY:
                    again.append(row)
                    delivery.last_status = outcome.status
                    continue
                case Verdict.NOT_YET if self.postpone(row):
                    continue
                case Verdict.DELIVERED:
                    delivered += 1
                case _:
                    rejected.append((row, outcome))
            done.append(row)
        self._settle(done)
        if delivered:
            self._deliver_rows(delivery, rows[0].model_id, delivered)
        for row, outcome in rejected:
            self._reject(row, outcome, delivery)
        delivery.rows = tuple(again)

    def _deliver_rows(self, delivery: _Delivery, model_id: str, count: int) -> None:
        self.ledger.deliver(count, model_id)
        self._suspects.taken(delivery.search, model_id)

    def _searches(self, delivery: _Delivery, outcome: Outcome) -> bool:
        """Say whether to look for the rows that these were refused for."""
        if outcome.status not in STATUSES:
            return False
        rows = delivery.rows
        delivery.search = self._suspects.search(delivery.search, rows[0].model_id, rows=len(rows))
        return delivery.search is not None

    def _halve(self, group: TaskGroup, delivery: _Delivery) -> None:
        """Send the rows in two parts."""
        rows, delivery.rows = delivery.rows, ()
        middle = len(rows) // 2
        for part in (rows[:middle], rows[middle:]):
            self._go_on(group, delivery, part)

    def _go_on(self, group: TaskGroup, delivery: _Delivery, rows: tuple[Row, ...]) -> None:
        """Send some of a batch's rows as a batch of their own, in the time that it has left."""
        part = _Delivery(
            rows,
            delivery.deadline,
            delivery.all_attempts,
            search=delivery.search,
            unheard=delivery.unheard,
            began_at=delivery.began_at,
            excused_seconds=delivery.excused_seconds,
        )
        self._start(group, part)

    def _split(self, group: TaskGroup, delivery: _Delivery, outcome: Outcome) -> None:
        """Send what is too large in two parts, or one row with its texts cut."""
        if len(delivery.rows) > 1:
            self._halve(group, delivery)
            return
        (row,), delivery.rows = delivery.rows, ()
        if smaller := self.shrink(row):
            self.buffer.replace(row, smaller)
            self._go_on(group, delivery, (smaller,))
        else:
            self._settle((row,))
            self._reject(row, outcome, delivery)

    def _reject(self, row: Row, outcome: Outcome, delivery: _Delivery) -> None:
        reason = outcome.reason
        self.ledger.reject(reason, 1, row.model_id)
        self.dead(row, outcome, delivery.all_attempts)
        why = delivery.refusal or reason
        self._tell(f"rejected {reason}", f"Arthur rejected an inference: {why}")

    def _give_up(self, delivery: _Delivery) -> None:
        """Drop what failed for too long."""
        reason, seconds = delivery.last_reason, self.settings.retry_max_elapsed_seconds
        self._settle(delivery.rows)
        model_id = delivery.rows[0].model_id
        self.ledger.drop_held(DropReason.RETRY_TIME_EXCEEDED, len(delivery.rows), model_id)
        self._tell(
            DropReason.RETRY_TIME_EXCEEDED,
            f"gave up rows that could not be delivered for {seconds:g} s: {reason}",
        )
        status = delivery.last_status
        why = Outcome(Verdict.REJECTED, DropReason.RETRY_TIME_EXCEEDED.value, status)
        for row in delivery.rows:
            self.dead(row, why, delivery.all_attempts)

    def _settle(self, rows: Sequence[Row]) -> None:
        """Forget rows; before they are counted, so that no one finds more held than pending."""
        self.buffer.settle(rows)
        self.settled(rows)

    def _tell(self, kind: str, text: str) -> None:
        """Log the first of a kind; a line for each would flood whoever is on call."""
        if kind not in self._told_reasons:
            self._told_reasons.add(kind)
            logger.warning("arthur-relay: %s (more of this kind are counted in stats() only)", text)

    async def _admission(self) -> None:
        if self.is_held:
            await anyio.sleep_forever()  # until it is cancelled
        while (wait := self.breaker.admit(anyio.current_time())) > 0:
            with anyio.move_on_after(min(wait, URGENT_SECONDS) if self.urgent else wait):
                await self._gate.wait()
            if self.urgent:
                self.breaker.probe_now(anyio.current_time())

    async def _back_off(self, seconds: float) -> None:
        self._parked += 1
        self.changed()
        try:
            with anyio.move_on_after(min(seconds, URGENT_SECONDS) if self.urgent else seconds):
                await self._hurry.wait()
        finally:
            self._parked -= 1

    def _open_gate(self) -> None:
        self._gate.set()
        self._gate = anyio.Event()


def _all(
    rows: Sequence[Row], outcome: Outcome, failure: Failure | None = None, reason: str = ""
) -> Attempt:
    return Attempt((outcome,) * len(rows), failure=failure, reason=reason)


def _unheard(attempt: Attempt) -> Attempt:
    return replace(attempt, is_unheard=True)
