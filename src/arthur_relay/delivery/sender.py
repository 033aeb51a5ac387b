"""Batches on their way: attempts, retries, parts, until each row is settled or waits again.

A batch whose request fails while others pass is isolated: it goes on in another lane, with few
requests at once, which takes no slot from healthy batches. There it is divided until the bad rows
are alone. A model of which nothing passes is held: its rows wait in the buffer, and one of them is
sent now and then as a probe. `model_health` decides whom a failure is blamed on.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import DeferringBuffer, DeliveryJournal, LeaseBuffer
from arthur_relay.delivery.authorization import Authorization
from arthur_relay.delivery.batch_sizes import BatchSizes
from arthur_relay.delivery.bisect import STATUSES, Bisector
from arthur_relay.delivery.circuit_breaker import Breaker
from arthur_relay.delivery.concurrency import ConcurrencyLimit
from arthur_relay.delivery.flow_control import FlowControl, Sent
from arthur_relay.delivery.ground_truth import GroundTruthOrder
from arthur_relay.delivery.in_flight import (
    Delivery,
    InFlight,
    Lane,
    note_attempt,
    note_death,
    note_excuse,
    note_survival,
    note_unknown,
    sort_rows,
)
from arthur_relay.delivery.model_health import FAULT_OF_ROWS, Blame
from arthur_relay.delivery.possibly_delivered import PossiblyDelivered
from arthur_relay.delivery.retry import URGENT_SECONDS, FullJitter, StopAfterElapsed, retrying
from arthur_relay.delivery.waiting_models import WaitingModels
from arthur_relay.destinations import Destination
from arthur_relay.errors import safe_traceback
from arthur_relay.row import ABOUT_US, DELIVERED, Attempt, Batch, Failure, Outcome, Row, Verdict
from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import Clock
from arthur_relay.system.randomness import Randomness
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.delivery")

MAX_MALFORMED_ANSWERS = 3
"""Answers not understood before a batch is divided, and what is one row is rejected.

Each may have stored the rows again, so a part goes on with what the whole has used up: one more
for several rows, and two for one row.
"""

BACKING_OFF_PER_SLOT = 3
"""Batches that may back off for each request slot, so that one bad batch does not hold a slot."""

SPARE_BATCHES = 1
"""Batches that are ready when a slot becomes free."""

ISOLATED_BATCHES = 2
ALL_ISOLATED_BATCHES = 20
"""Isolated rows, in full batches: of one model, and of all, before more of them wait."""

MAX_ALONE = 2000
"""Rows of one model that are sent again each by itself, before more of it waits in the buffer."""

MANY_ALONE = 500
ENOUGH_ATTEMPTS = 8
"""Where so many are, one that a whole request failed for so often is bad, and ends."""

MODELS_PER_PROBE = 10
MOST_PROBES = 20
"""While Arthur is away, one of so many held models is asked about at a time, and so many most."""

_AGAIN = Outcome(Verdict.RETRY)


class Settles(Protocol):
    """Takes in what became of rows; see `worker.settlement`."""

    def delivered(self, rows: Sequence[Row]) -> None:
        """Settle rows of one model that the destination has acknowledged."""
        ...

    def rejected(self, row: Row, outcome: Outcome, *, attempts: int, why: str = "") -> None:
        """Settle a row that the destination refused for good, or that can't be handled."""
        ...

    def given_up(
        self, rows: Sequence[Row], *, seconds: float, why: str, status: int | None
    ) -> None:
        """Settle rows of one model that failed for too long."""
        ...


class Shrinks(Protocol):
    """Knows the rows' format."""

    def shrink(self, row: Row) -> Row | None:
        """Return a smaller form of a row that is too large alone, or None."""
        ...


class Wakes(Protocol):
    """The loop."""

    def wake(self) -> None:
        """Make it look around."""
        ...


class Observes(Protocol):
    """Looks on."""

    def on_attempt(self, batch: Batch, attempt: Attempt, seconds: float) -> None:
        """Take note of an attempt and how long it took. The worker's thread; must not raise."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Sender:
    """Delivers batches until each row is settled. Belongs to the worker's loop.

    Attributes:
        destination: Makes one attempt.
        buffer: Takes back what has to wait.
        journal: Writes down what happened to rows.
        ledger: Counts requests.
        settlement: Settles rows.
        ground_truth: Keeps ground truth whose inference the destination does not know yet.
        settings: Time limits and counts.
        random: The randomness of jitter.
        shrinker: Makes a row smaller that is too large alone.
        wake_up: Woken when there may be capacity again.
        clock: Tells the times that later processes go on with.
        flow: Says when a request may set off.
        sending: Requests that are on their way at this moment. Any thread may read it.
        observers: Are shown each attempt.
    """

    destination: Destination
    buffer: LeaseBuffer
    journal: DeliveryJournal
    deferred: DeferringBuffer
    outlives_us: bool
    ledger: Ledger
    settlement: Settles
    ground_truth: GroundTruthOrder
    settings: RelaySettings
    random: Randomness
    shrinker: Shrinks
    wake_up: Wakes
    clock: Clock
    flow: FlowControl
    sending: int = 0
    observers: list[Observes] = field(default_factory=list)
    _in_flight: InFlight = field(init=False)
    _paused: list["Future[None]"] = field(default_factory=list)
    _bisector: Bisector = field(default_factory=Bisector)
    _batch_sizes: BatchSizes = field(init=False)
    _wall_offset: float = 0.0

    def __post_init__(self) -> None:
        self._batch_sizes = BatchSizes(self.settings.batch_size)
        self._in_flight = self.flow.in_flight

    def enter(self) -> None:
        """Get ready for a loop, also after an earlier one died."""
        self._in_flight.clear()
        self.sending = 0
        self._end_pauses()
        self._wall_offset = self.clock.utc_now().timestamp() - anyio.current_time()
        self.flow.enter()

    @property
    def breaker(self) -> Breaker:
        """Whether Arthur as a whole is away. Any thread may read it."""
        return self.flow.breaker

    @property
    def limit(self) -> ConcurrencyLimit:
        """How many requests may be on their way at once. Any thread may read it."""
        return self.flow.limit

    @property
    def authorization(self) -> Authorization:
        """Whether Arthur takes who we are. Any thread may read it."""
        return self.flow.authorization

    @property
    def last_failure(self) -> str:
        """Why the last request failed, or "". Any thread may read it."""
        return self.flow.last_failure

    @property
    def held_count(self) -> int:
        """How many models are held: nothing of theirs goes through. Any thread may read it."""
        return self.flow.model_health.count

    def is_held(self, model_id: str) -> bool:
        """Say whether nothing of a model goes through, while others' rows may. Loop's thread."""
        return self.flow.model_health.is_held(model_id) and not self.is_down

    @property
    def held_models(self) -> str:
        """What is wrong with models that are held, in a sentence's part, or "". Any thread."""
        count = self.held_count
        if not count:
            return ""
        which = "one model" if count == 1 else f"{count} models"
        return f"nothing of {which} can be delivered ({self.flow.model_failure})"

    @property
    def has_answered(self) -> bool:
        """Whether the destination has answered anything so far. Any thread may read it."""
        return self.flow.has_answered

    @property
    def in_progress(self) -> int:
        """Batches that have set off and are not settled. Any thread may read it."""
        return len(self._in_flight)

    @property
    def is_down(self) -> bool:
        """Whether the destination is known to be away."""
        return self.flow.is_down

    @property
    def is_healthy(self) -> bool:
        """Whether the last request was answered as it should be."""
        return self.breaker.failures_in_a_row == 0

    @property
    def has_capacity(self) -> bool:
        """Whether one more batch may be sent; few may while the destination fails.

        Rows of batches that have set off can't be given up for newer ones.
        """
        slots, in_flight = self.limit.requests, self._in_flight
        if self.flow.is_held:
            return False
        if self.is_down:
            return self.flow.takes_fresh()
        if in_flight.ordinary >= slots * (1 + BACKING_OFF_PER_SLOT):
            return False
        if self.flow.is_clogged:
            return in_flight.ordinary - in_flight.unproven < slots
        if not self.is_healthy:
            return in_flight.ordinary - in_flight.backing_off_alone < slots
        return in_flight.ordinary - in_flight.backing_off < slots + SPARE_BATCHES

    def waiting_models(self) -> WaitingModels:
        """Return the models whose rows have to stay in the buffer for now."""
        parts, alone = self._in_flight.isolated()
        rows = self.settings.batch_size
        most = 1 if parts.total() >= ALL_ISOLATED_BATCHES * rows else ISOLATED_BATCHES * rows
        busy = {model for model, count in parts.items() if count >= most}
        busy |= {model for model, count in alone.items() if count >= MAX_ALONE}
        return WaitingModels(busy, *self.flow.waiting_models())

    def start(self, group: TaskGroup, rows: tuple[Row, ...]) -> None:
        """Send a batch on its way, or back into the buffer if it has to wait; returns at once."""
        delivery = Delivery(rows, possibly_delivered=PossiblyDelivered.of(rows))
        delivery.is_unproven = not self.flow.model_health.is_healthy(delivery.model_id)
        if self.flow.holds(delivery):
            self._give_back(delivery)
            return
        most = self._batch_sizes.of(delivery.model_id)
        if len(rows) > most:
            if not self.is_down:
                self._divide(group, delivery, most)
                return
            self.buffer.release(rows[most:])
            delivery.rows = rows[:most]
        self._start(group, delivery)
        self.flow.announce()

    def start_probes(self, group: TaskGroup) -> None:
        """Send something of each model that is held and may be asked about; returns at once."""
        if self.flow.is_held:
            return
        now, begun = anyio.current_time(), 0
        # While Arthur is away one is enough, whichever model's it is; of very many models most may
        # fail for longer than Arthur does, so that few would be asked about too seldom.
        most = max(1, min(MOST_PROBES, self.held_count // MODELS_PER_PROBE))
        most = 1 if self.authorization.is_unknown else most
        for model_id in self.flow.due_probes(now):
            if rows := self._probe_of(model_id):
                self.flow.model_health.begin_probe(model_id, now)
                probe = Delivery(rows, Lane.PROBE, possibly_delivered=PossiblyDelivered.of(rows))
                self._start(group, probe)
                if self.is_down:
                    probe.leave_at = now if begun else None  # the first has the breaker's leave
                    begun += 1
                    if begun >= most:
                        return
            else:
                self.flow.put_off_probe(model_id)

    def _may_be_bad(self, delivery: Delivery) -> bool:
        """Say of what has failed whether it may be one bad row: no other waits for its back-off."""
        return len(delivery.rows) == 1 and self.flow.model_health.has_passed(delivery.model_id)

    def _probe_of(self, model_id: str) -> tuple[Row, ...]:
        """Lease what to ask about a model with: a row and a batch in turn.

        One row may pass where any batch has a bad one; where all do again, a batch is quicker.
        """
        is_batch = self.flow.model_health.is_batch_next(model_id)
        limit = self._batch_sizes.of(model_id) if is_batch else 1
        rows = self.buffer.lease_of(model_id, limit, most_bytes=self.settings.batch_bytes)
        size, most = 0, 0
        for row in rows:
            size += row.size
            if most and (row.kind is not rows[0].kind or size > self.settings.batch_bytes):
                break
            most += 1
        self.buffer.release(rows[most:])
        return tuple(rows[:most])

    def begin_pause(self, done: "Future[None]") -> None:
        """Let no more requests set off: what waits stays in the buffer.

        Args:
            done: Gets None when no request is on its way.
        """
        self.flow.is_held = True
        self._paused.append(done)
        self._end_pauses()

    def _end_pauses(self) -> None:
        while self._paused and not self.sending:
            done = self._paused.pop()
            if done.set_running_or_notify_cancel():
                done.set_result(None)

    def hurry(self) -> None:
        """Cut back-offs short once, for a flush. What the destination asked for is still obeyed."""
        self._in_flight.hurry()
        self.flow.hurry()

    def _start(self, group: TaskGroup, delivery: Delivery) -> None:
        self._in_flight.begin(delivery)
        group.start_soon(self._deliver, group, delivery)

    async def _deliver(self, group: TaskGroup, delivery: Delivery) -> None:
        try:
            if delivery.malformed:  # a part of rows that may just have been stored
                await self._back_off(
                    delivery, self.settings.retry_initial_seconds * self.random.random()
                )
            policy = retrying(
                wait=FullJitter(
                    initial_seconds=self.settings.retry_initial_seconds,
                    max_seconds=self.settings.retry_max_seconds,
                    random=self.random,
                ),
                stop=StopAfterElapsed(deadline=self._end_of(delivery), clock=anyio.current_time),
                sleep=partial(self._back_off, delivery),
            )
            await policy(partial(self._attempt, group, delivery))
            if delivery.status in ABOUT_US:
                self._give_back(delivery)  # nothing that is about us costs a row
            else:
                self._give_up(delivery, delivery.rows)
        except Exception as error:  # noqa: BLE001 - it must cost the row that it is for, no more
            self._isolate(group, delivery, error)
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException:  # the worker's death; if they are what it dies of, it will be again
            note_death(delivery.rows)
            self.journal.note(delivery.rows, at_once=True)
            raise
        finally:
            self._in_flight.end(delivery)
            delivery.let_go()
            if delivery.lane is Lane.PROBE:
                self.flow.model_health.end_probe(delivery.model_id, anyio.current_time())
            self.wake_up.wake()

    async def _attempt(self, group: TaskGroup, delivery: Delivery) -> bool:
        """Make one attempt. Returns True when rows are left for another one."""
        async with self.flow.slot(delivery):
            if self.flow.holds(delivery):
                self._give_back(delivery)
                return False
            if self.is_down:
                self.wake_up.wake()  # another may ask now, in case that this one hangs
            sent = await self._ask(delivery)
            blame = self.flow.judge(delivery, sent)  # before another has the slot
        attempt = sent.attempt
        delivery.possibly_delivered = delivery.possibly_delivered.after(attempt, delivery.rows)
        delivery.reason = attempt.reason
        delivery.refusal = attempt.reason if attempt.failure is Failure.REFUSED else ""
        if attempt.failure is Failure.TOO_LARGE:
            self._make_smaller(group, delivery, attempt.outcomes[0])
            return False
        is_suspect = attempt.failure is Failure.REFUSED and attempt.outcomes[0].status in STATUSES
        if is_suspect and self._searches(group, delivery):
            return False
        if attempt.failure is Failure.MALFORMED:
            delivery.malformed += 1
            self.ledger.malformed_answers += 1
            if delivery.malformed >= MAX_MALFORMED_ANSWERS:
                if self._searches(group, delivery):
                    return False
                attempt = _all(delivery.rows, Outcome(Verdict.REJECTED, "malformed answer"))
        self._sort_out(delivery, attempt)
        if attempt.failure is Failure.UNAVAILABLE and delivery.status == FAULT_OF_ROWS:
            self._note_fault(delivery)
        if attempt.failure in (Failure.UNAUTHORISED, Failure.FORBIDDEN):
            self._excuse(delivery)
            self._give_back(delivery)  # its model is held by now
            return False
        return self._goes_on(group, delivery, blame)

    def _note_fault(self, delivery: Delivery) -> None:
        """Have smaller batches made, where what was sent may have been at fault."""
        model_id = delivery.model_id
        if not self.is_down and self.flow.model_health.has_passed(model_id):
            self._batch_sizes.failed(model_id, len(delivery.rows))

    def _goes_on(self, group: TaskGroup, delivery: Delivery, blame: Blame | None) -> bool:
        """Say whether the rows that are left are to be sent again as they are."""
        if not delivery.rows:
            return False
        self._note_attempt(delivery)
        if delivery.status in ABOUT_US:
            self._excuse(delivery)
        self._give_up_the_old(delivery)
        if not delivery.rows:
            return False
        if self.flow.model_health.is_held(delivery.model_id):
            self._give_back(delivery)
            return False
        rows = len(delivery.rows)
        most = self._batch_sizes.of(delivery.model_id)
        is_sure = blame is Blame.ROWS and self.flow.model_health.may_divide(delivery)
        if rows > 1 and (is_sure or rows > most):
            # By halves, every part above the size that passes would fail once more, so many one
            # after the other that Arthur would seem to be away.
            self._divide(group, delivery, min(most, _part_of(rows, 2)))
            return False
        return not (is_sure and self._ends_early(delivery))

    async def _ask(self, delivery: Delivery) -> Sent:
        self.ledger.requests += 1
        self.ledger.retries += delivery.attempts > 0
        delivery.attempts += 1
        if delivery.seen < 0:
            delivery.seen = self.flow.model_health.passes
        batch = Batch(delivery.model_id, delivery.rows)
        began_in, began_at = self.limit.begin(), anyio.current_time()
        self.sending += 1
        try:
            attempt = await self._send(delivery, batch)
        finally:
            self.sending -= 1
            self._end_pauses()
        seconds = anyio.current_time() - began_at
        for observer in self.observers:
            observer.on_attempt(batch, attempt, seconds)
        attempt = delivery.possibly_delivered.judge(attempt, delivery.rows)
        return Sent(attempt, began_in, seconds, batch.size)

    async def _send(self, delivery: Delivery, batch: Batch) -> Attempt:
        limit = self.settings.request_timeout_seconds
        try:
            with anyio.move_on_after(limit):
                attempt = await delivery.possibly_delivered.deliver(self.destination, batch)
                if len(attempt.outcomes) == len(batch.rows):
                    return attempt
                other = _all(batch.rows, _AGAIN, Failure.MALFORMED, "answer of another length")
                return replace(other, is_unheard=True)
        except anyio.get_cancelled_exc_class():
            self.flow.abandon()
            raise
        except Exception as error:  # noqa: BLE001 - a bug in it must cost its batch, not the worker
            logger.error(  # noqa: TRY400 - the error's text might quote a prompt
                "arthur-relay: a destination raised, which none may: %s", safe_traceback(error)
            )
            reason = f"internal error ({type(error).__name__})"
            failed = _all(batch.rows, _AGAIN, Failure.MALFORMED, reason)
        else:
            reason = f"no answer within {limit:g} s"
            failed = _all(batch.rows, _AGAIN, Failure.UNAVAILABLE, reason)
        return replace(failed, is_unheard=True)

    def _sort_out(self, delivery: Delivery, attempt: Attempt) -> None:
        """Settle what is delivered or rejected, and leave the rows to try again."""
        rows = delivery.rows
        if attempt.outcomes.count(DELIVERED) == len(rows):  # nearly always
            delivery.rows = ()
            self._settle_delivered(delivery, rows)
            return
        found = sort_rows(rows, attempt.outcomes)
        delivery.rows = tuple(found.again)
        if found.again:
            delivery.status = found.status
            if len(found.again) < len(rows):
                self._in_flight.isolate(delivery)
        if found.delivered:
            self._settle_delivered(delivery, tuple(found.delivered))
        unsettled = [pair for pair in found.not_yet if not self._postpone(pair[0])]
        for row, outcome in (*unsettled, *found.rejected):
            attempts = row.history.attempts + 1
            self.settlement.rejected(row, outcome, attempts=attempts, why=delivery.refusal)

    def _postpone(self, row: Row) -> bool:
        """Have ground truth sent again later; returns whether it is to be, and not given up.

        What outlives this process does not end with it.
        """
        now = anyio.current_time()
        wall, since = now + self._wall_offset, row.history.unknown_since
        waited = 0.0 if since is None else max(0.0, wall - since)
        urgent = self.flow.urgent and not self.outlives_us
        if not self.ground_truth.postpone(row, now, waited=waited, urgent=urgent):
            return False
        note_unknown(row, wall)
        self.journal.note([row])
        self.deferred.put_off(self.ground_truth.beyond())
        return True

    def _settle_delivered(self, delivery: Delivery, rows: tuple[Row, ...]) -> None:
        self.settlement.delivered(rows)
        self._bisector.taken(delivery.bisection, delivery.model_id, rows=len(rows))
        self._batch_sizes.passed(delivery.model_id, len(rows))

    def _searches(self, group: TaskGroup, delivery: Delivery) -> bool:
        """Look for the rows that these were refused for. Returns whether there is a need to."""
        rows = len(delivery.rows)
        found = self._bisector.divide(delivery.bisection, delivery.model_id, rows=rows)
        if found is None:
            return False
        delivery.bisection, parts = found
        self._note_attempt(delivery)
        self._divide(group, delivery, _part_of(rows, parts))
        return True

    def _divide(self, group: TaskGroup, delivery: Delivery, size: int) -> None:
        """Send the rows on in isolated parts of so many rows."""
        rows, delivery.rows = delivery.rows, ()
        for at in range(0, len(rows), size):
            part = delivery.part(rows[at : at + size])
            part.malformed = max(0, delivery.malformed - (1 if len(part.rows) > 1 else 2))
            self._start(group, part)

    def _make_smaller(self, group: TaskGroup, delivery: Delivery, outcome: Outcome) -> None:
        """Send what is too large in two parts, or one row with its texts cut."""
        self._note_attempt(delivery)
        if (rows := len(delivery.rows)) > 1:
            self._divide(group, delivery, _part_of(rows, 2))
            return
        (row,) = delivery.rows
        smaller = self._cut(row)
        delivery.rows = ()
        if smaller is None:
            self.settlement.rejected(row, outcome, attempts=row.history.attempts)
            return
        smaller.history = row.history
        self.buffer.replace(row, smaller)
        self.journal.note([smaller])
        self._start(group, delivery.part((smaller,)))

    def _cut(self, row: Row) -> Row | None:
        """Return a smaller form of a row. Only here a row is decoded again, so with care."""
        note_death([row])  # should it be one, the next process knows what it died of
        self.journal.note([row], at_once=True)
        try:
            return self.shrinker.shrink(row)
        except Exception as error:  # noqa: BLE001 - a row that can't be read can't be cut, no more
            logger.warning("arthur-relay: a row could not be read: %s", safe_traceback(error))
            return None
        finally:
            note_survival([row])

    def _isolate(self, group: TaskGroup, delivery: Delivery, error: Exception) -> None:
        """Find the row that can't be handled: it is rejected, and the others go on."""
        logger.error("arthur-relay: rows could not be handled: %s", safe_traceback(error))
        self.flow.abandon()
        if (rows := len(delivery.rows)) > 1:
            self._divide(group, delivery, _part_of(rows, 2))
        elif delivery.rows:
            (row,), delivery.rows = delivery.rows, ()
            outcome = Outcome(Verdict.REJECTED, f"internal error ({type(error).__name__})")
            self.settlement.rejected(row, outcome, attempts=row.history.attempts)

    def _note_attempt(self, delivery: Delivery) -> None:
        """Have it known later that the rows were sent in vain, also by another process."""
        note_attempt(delivery.rows, anyio.current_time() + self._wall_offset)
        self.journal.note(delivery.rows)

    def _excuse(self, delivery: Delivery) -> None:
        """Have the time not counted that rows wait because of who we are."""
        note_excuse(delivery.rows)
        self.journal.note(delivery.rows)

    def _give_up_the_old(self, delivery: Delivery) -> None:
        now = anyio.current_time() + self._wall_offset
        oldest = now - self.settings.retry_max_elapsed_seconds
        over = tuple(row for row in delivery.rows if (row.history.since or now) <= oldest)
        self._give_up(delivery, over)

    def _give_up(self, delivery: Delivery, rows: tuple[Row, ...]) -> None:
        """Drop what failed for too long."""
        if rows:
            delivery.rows = tuple(row for row in delivery.rows if row not in rows)
            self.settlement.given_up(
                rows,
                seconds=self.settings.retry_max_elapsed_seconds,
                why=delivery.reason,
                status=delivery.status,
            )

    def _ends_early(self, delivery: Delivery) -> bool:
        """Reject a bad row that was sent often enough, where too many others wait like it."""
        (row,) = delivery.rows
        if row.history.attempts < ENOUGH_ATTEMPTS:
            return False
        _, alone = self._in_flight.isolated()
        if alone[delivery.model_id] < MANY_ALONE:
            return False
        delivery.rows = ()
        outcome = Outcome(Verdict.REJECTED, delivery.reason, delivery.status)
        self.settlement.rejected(row, outcome, attempts=row.history.attempts)
        return True

    def _give_back(self, delivery: Delivery) -> None:
        """Let rows wait in the buffer, where they hold no slot."""
        rows, delivery.rows = delivery.rows, ()
        self.buffer.release(rows)

    async def _back_off(self, delivery: Delivery, seconds: float) -> None:
        in_flight = self._in_flight
        is_ordinary = delivery.lane is Lane.ORDINARY
        is_alone = is_ordinary and self._may_be_bad(delivery)
        in_flight.backing_off += is_ordinary
        in_flight.backing_off_alone += is_alone
        self.wake_up.wake()
        delivery.hurry = anyio.Event()
        urgent = self.flow.urgent
        try:
            with anyio.move_on_after(min(seconds, URGENT_SECONDS) if urgent else seconds):
                await delivery.hurry.wait()
            if not self.flow.holds(delivery):
                # What was asked for is obeyed, whoever is in a hurry.
                await anyio.sleep_until(delivery.not_before)
        finally:
            in_flight.backing_off -= is_ordinary
            in_flight.backing_off_alone -= is_alone

    def _end_of(self, delivery: Delivery) -> float:
        """Return when the last row of a delivery will have failed for too long."""
        now = anyio.current_time()
        wall = now + self._wall_offset
        ages = [wall - at for row in delivery.rows if (at := row.history.since) is not None]
        age = max(0.0, min(ages)) if len(ages) == len(delivery.rows) else 0.0
        return now - age + self.settings.retry_max_elapsed_seconds


def _part_of(rows: int, parts: int) -> int:
    """Return how many rows each part has, rounded up."""
    return -(-rows // parts)


def _all(
    rows: tuple[Row, ...], outcome: Outcome, failure: Failure | None = None, reason: str = ""
) -> Attempt:
    return Attempt((outcome,) * len(rows), failure=failure, reason=reason)
