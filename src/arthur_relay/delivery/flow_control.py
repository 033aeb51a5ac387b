"""When a delivery may send its request, and what the answer means for other deliveries.

It decides by models, counts and failures, and never sees a row.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import anyio

from arthur_relay.delivery.authorization import Authorization
from arthur_relay.delivery.circuit_breaker import Breaker, BreakerState
from arthur_relay.delivery.concurrency import ConcurrencyLimit
from arthur_relay.delivery.in_flight import DeliveryState, Evidence, InFlight, Lane
from arthur_relay.delivery.model_health import Blame, ModelHealth, Unproven
from arthur_relay.delivery.open_requests import OpenRequests
from arthur_relay.delivery.request_slots import RequestSlots
from arthur_relay.delivery.retry import URGENT_SECONDS
from arthur_relay.encoding.product import RowWords
from arthur_relay.row import Attempt, Failure, Verdict
from arthur_relay.settings import RelaySettings
from arthur_relay.system.randomness import Randomness
from arthur_relay.system.worker_logs import WorkerLogger

logger = WorkerLogger("arthur_relay.delivery")

ANNOUNCE_SECONDS = 0.1
"""The shortest time between requests that are let through because a new batch has come."""

RECENT_SECONDS = 60.0
"""If anything has passed within this time, a 429 holds back its own model and no other."""

LOOK_AGAIN_SECONDS = 1.0
"""How long a held model waits for its next probe while all of its rows are in flight."""


class RequestResult(NamedTuple):
    """How a request ended."""

    attempt: Attempt
    began_in: int
    """See `ConcurrencyLimit.begin`."""
    seconds: float
    size: int
    """The length of its body in bytes."""


@dataclass(slots=True, eq=False, kw_only=True)
class FlowControl:
    """Lets deliveries send their requests: slots, the breaker, and models that are held.

    Belongs to the worker's loop, except for what any thread may read.

    Attributes:
        settings: Time limits and counts.
        random: The randomness of jitter.
        in_flight: The deliveries that were started.
        words: What the log calls rows and models.
        breaker: Whether Arthur as a whole is down. Any thread may read it.
        limit: How many requests may be sent at once. Any thread may read it.
        model_health: Which models are held.
        urgent: Whether the relay is closing, and waits have to be short.
        is_paused: Whether no more requests are sent: those in flight end, all other rows stay
            in the buffer. Any thread may set it.
        gives_up_slots: Whether rows that failed go back to the buffer while Arthur is down, where
            somebody else may have them; else they wait in their batches.
        authorization: Whether Arthur accepts our credentials. Any thread may read it.
        last_failure: Why the last request failed, or "". Any thread may read it.
        model_failure: Why a model was held lately, or "". Any thread may read it.
        has_answered: Whether Arthur has answered anything so far. Any thread may read it.
    """

    settings: RelaySettings
    random: Randomness
    in_flight: InFlight
    words: RowWords
    breaker: Breaker = field(init=False)
    limit: ConcurrencyLimit = field(init=False)
    model_health: ModelHealth = field(init=False)
    urgent: bool = False
    is_paused: bool = False
    gives_up_slots: bool = False
    authorization: Authorization = field(default_factory=Authorization)
    last_failure: str = ""
    model_failure: str = ""
    has_answered: bool = False
    _questions_only: bool = False
    _slots: RequestSlots = field(init=False)
    _open_requests: OpenRequests = field(default_factory=OpenRequests)
    _gate: anyio.Event = field(init=False)
    _failing: Evidence | None = None
    _throttles: bool = False
    _passed_at: float = float("-inf")
    _many_fail: bool = False
    _announced_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.breaker = Breaker(
            failures=self.settings.breaker_failures,
            first_wait_seconds=min(1.0, self.settings.breaker_max_seconds),
            max_wait_seconds=self.settings.breaker_max_seconds,
            random=self.random,
        )
        self.limit = ConcurrencyLimit(self.settings.max_in_flight)
        self.model_health = ModelHealth(self.breaker)

    def enter(self) -> None:
        """Get ready for a loop, also after an earlier one died."""
        self._slots = RequestSlots()
        self._set_slot_counts()
        self._open_requests.clear()
        self._gate = anyio.Event()
        self.breaker.abandoned(0.0)
        self.model_health.abandon_all()

    @property
    def is_down(self) -> bool:
        """Whether Arthur is known to be down."""
        return self.breaker.state is not BreakerState.CLOSED

    def holds(self, delivery: DeliveryState) -> bool:
        """Return whether a delivery's rows have to go back to the buffer, as their model waits."""
        if delivery.lane is Lane.PROBE:
            return False
        model_id, throttling = delivery.model_id, self.model_health.throttling
        if self.model_health.is_held(model_id) or model_id in self._open_requests.stalled:
            return True
        if delivery.is_unproven and delivery not in self.in_flight and self.is_clogged:
            return True
        if self.gives_way(delivery):
            return True
        return delivery.attempts == 0 and throttling.wait(model_id, anyio.current_time()) > 0

    def gives_way(self, delivery: DeliveryState) -> bool:
        """Return whether a delivery's rows go back to the buffer because Arthur is down."""
        return self.gives_up_slots and self.is_down and delivery.failures > 0

    def announce(self) -> None:
        """Take note that a batch was started which has not failed so far.

        While Arthur seems to be down, and only ever the same rows have failed, the batch need not
        wait for the next probe.
        """
        if self.is_down and not self.authorization.is_unknown and not self._many_fail:
            self.breaker.probe_now(self._next_leave())
        self._set_slot_counts()
        self.open_gate()

    def _may_ask(self, delivery: DeliveryState) -> bool:
        """Return whether a delivery may be sent although Arthur seems to be down.

        It may when its model has not failed, however many others have: its answer is news. It is
        sent beside the probes, so that a probe that hangs does not keep it waiting.
        """
        if not self.is_down or self.authorization.is_unknown:
            return False
        if delivery.lane is Lane.PROBE:
            return delivery.leave_at is not None
        if not delivery.is_fresh:
            return False
        if not self.model_health.is_clear(delivery.model_id):
            return False
        if delivery.leave_at is None:
            delivery.leave_at = self._next_leave()
        return True

    def _next_leave(self) -> float:
        self._announced_at = max(anyio.current_time(), self._announced_at + ANNOUNCE_SECONDS)
        return self._announced_at

    def due_probes(self, now: float) -> list[str]:
        """Return the held models that may be probed now, those first that waited longest."""
        if not self.model_health.count:  # nearly always
            return []
        if self.is_down and (self._is_asking or self.breaker.wait(now) > 0):
            return []
        return self.model_health.due(now, self.in_flight.probed(), is_down=self.is_down)

    @property
    def _is_asking(self) -> bool:
        """Whether a request is in flight that will show whether Arthur is back."""
        if self.in_flight.probed(but=self._open_requests.hanging):
            return True
        return self.in_flight.has_fresh(but=self._open_requests)

    def put_off_probe(self, model_id: str) -> None:
        """Take note that no row of a held model waits. If some are in flight, probe it later."""
        if model_id in self.in_flight.models():
            self.model_health.put_off(model_id, anyio.current_time() + LOOK_AGAIN_SECONDS)
        else:
            self.model_health.forget(model_id)

    def next_probe(self, now: float) -> float | None:
        """Return when `look` may find something, or rows may be leased; None if never."""
        times = [self.model_health.throttling.next_end(now), self._open_requests.next_look()]
        if self.model_health.count and not (self.is_down and self._is_asking):  # seldom
            wait = self.model_health.next_due(now, self.in_flight.probed(), is_down=self.is_down)
            times.append(now + max(wait, self.breaker.wait(now) if self.is_down else 0.0))
        return min((each for each in times if each is not None), default=None)

    def look(self) -> None:
        """Free the slots of requests that hang by now; their models wait."""
        open_requests = self._open_requests
        if not (open_requests.waiting or open_requests.hanging):
            return
        news = open_requests.look(anyio.current_time())
        if any(each.leave_at is None for each in news):
            self.breaker.overdue(anyio.current_time())
        freed = [each for each in open_requests.hanging if self._slots.hang(each)]
        for delivery in freed:
            self.in_flight.set_hanging(delivery, hangs=True)
        if news or freed:
            self._set_slot_counts()
            self.open_gate()

    @property
    def is_clogged(self) -> bool:
        """Whether unproven models hold all the slots that they may have; the others wait."""
        if not self._open_requests.hanging:  # nearly always
            return False
        return self.in_flight.unproven > self._slots.for_unproven

    def takes_fresh(self) -> bool:
        """Return whether one more batch may be started while Arthur is down, to see if it is."""
        is_full = len(self._open_requests.waiting) >= self.settings.max_in_flight
        return not is_full and not self.in_flight.has_fresh(but=self._open_requests)

    def waiting_models(self) -> list[Collection[str]]:
        """Return the models whose rows have to stay in the buffer, in several collections."""
        model_health, open_requests = self.model_health, self._open_requests
        parts: list[Collection[str]] = [
            model_health.held,
            model_health.crowd,
            open_requests.stalled,
        ]
        parts.append(model_health.throttling.waiting(anyio.current_time()))
        if self.is_down:
            parts.append(open_requests.models())  # more of their rows would show nothing new
        if self.is_clogged:
            parts.append(Unproven(model_health))
        return parts

    @asynccontextmanager
    async def slot(self, delivery: DeliveryState) -> AsyncIterator[None]:
        """Wait until a delivery may send, or has to be given back, and hold a slot for it."""
        while True:
            await self._turn_of(delivery)
            async with self._slots.take(delivery):
                if not self._admit(delivery):
                    continue
                try:
                    yield
                finally:
                    self._open_requests.end(delivery)
                    if delivery.is_hanging:
                        self.in_flight.set_hanging(delivery, hangs=False)
                return

    def asked(self, failure: str) -> bool:
        """Take in how a request for a model's schema ended: it counts like a delivery.

        An answer closes the breaker only when such requests opened it: Arthur may return schemas
        and still not accept rows.

        Args:
            failure: Why there was no answer, or "". The caller logs it.

        Returns:
            Whether it closed the breaker.
        """
        if failure:
            self._questions_only = self._questions_only or self.breaker.failures_in_a_row == 0
            self.last_failure = failure
            self.breaker.failed(anyio.current_time())
            return False
        self.has_answered = True
        if not self._questions_only:
            return False
        self._questions_only = False
        self.last_failure = ""
        self.breaker.succeeded()
        self.open_gate()
        return True

    def hurry(self) -> None:
        """Make the next probes due at once. `Retry-After` is still obeyed."""
        now = anyio.current_time()
        self.breaker.probe_now(now)
        self.model_health.probe_all_now(now)
        self.open_gate()

    def abandon(self) -> None:
        """Take note that a request was cancelled before there was an answer."""
        self.breaker.abandoned(anyio.current_time())
        self.open_gate()

    def open_gate(self) -> None:
        """Make all deliveries that wait check again."""
        self._gate.set()
        self._gate = anyio.Event()

    def judge(self, delivery: DeliveryState, result: RequestResult) -> Blame | None:
        """Take in how a request ended. Returns what its failure is blamed on, if it failed."""
        now, attempt = anyio.current_time(), result.attempt
        self.last_failure = attempt.reason
        self._questions_only = False
        self.has_answered |= attempt.failure is not Failure.UNAVAILABLE
        until = now + (attempt.retry_after_seconds or 0.0)
        blame: Blame | None
        is_refused = self.authorization.note(attempt)
        if attempt.failure is not Failure.UNAVAILABLE:
            self._open_requests.answered(result.seconds)
        if attempt.failure is Failure.UNAUTHORISED:
            blame = self._judge_refusal(delivery, attempt, now, is_logged=is_refused)
        elif attempt.failure is Failure.UNAVAILABLE:
            blame = self._judge_failure(delivery, attempt, now, until)
        elif attempt.failure is Failure.THROTTLED:
            blame = self._judge_throttling(delivery, now, until)
        elif attempt.failure is Failure.FORBIDDEN:
            blame = self._judge_prohibition(delivery, now)
        else:
            blame = self._judge_answer(delivery, attempt, now)
            if until > now:
                self.model_health.throttling.ask(delivery.model_id, until)
        if blame is Blame.ARTHUR:
            self.limit.failed(result.began_in)
        elif attempt.failure is None:
            self.limit.succeeded(result.began_in, seconds=result.seconds, size=result.size)
        if self.urgent:
            self.breaker.probe_now(now + URGENT_SECONDS)
            self.model_health.probe_all_now(now + URGENT_SECONDS)
        self._set_slot_counts()
        self.open_gate()
        return blame

    def _judge_refusal(
        self, delivery: DeliveryState, attempt: Attempt, now: float, *, is_logged: bool
    ) -> Blame | None:
        """Send only probes to an Arthur that refuses our credentials."""
        self._many_fail = True  # another batch would be refused as well
        self.breaker.failed(now, at_once=True)
        self._fail_model(delivery, now, at_once=True, is_logged=False)
        if is_logged:
            logger.warning(
                "arthur-relay: %s %s wait until Arthur lets us in again; a key or a password in a"
                " file is read again by itself",
                attempt.reason,
                self.words.many.capitalize(),
            )
        return None

    def _judge_prohibition(self, delivery: DeliveryState, now: float) -> Blame:
        """Hold a model that we may not write to; Arthur works, so other models go on."""
        self._failing, self._many_fail = None, False
        self._answers_again(now)
        self._fail_model(delivery, now, at_once=True, is_logged=True)
        return Blame.MODEL

    def _judge_failure(
        self, delivery: DeliveryState, attempt: Attempt, now: float, until: float
    ) -> Blame:
        delivery.failures += 1
        delivery.status = attempt.outcomes[0].status
        was_down = self.is_down
        blame = self.model_health.blame(delivery, is_down=was_down)
        if blame is Blame.ARTHUR:
            self.breaker.hold(until)
            self._many_fail |= self._failing not in (None, delivery.evidence)
            self._failing = delivery.evidence
            if self.breaker.failed(now):
                logger.warning(
                    "arthur-relay: %s; %s wait, and are sent again until Arthur takes them",
                    attempt.reason.rstrip("."),
                    self.words.many,
                )
                if self.gives_up_slots:
                    self.in_flight.hurry()
        else:
            delivery.not_before = until
            self.in_flight.isolate(delivery)
        if blame is not Blame.ROWS:
            # A probe that failed must not wait for its next turn in a slot.
            at_once = was_down and (self._many_fail or delivery.row_count > 1)
            # A model that hangs uses up a whole time-out, so it must not do so often.
            is_sure = blame is Blame.MODEL or not self.model_health.passes
            at_once |= is_sure and delivery in self._open_requests.hanging
            self._fail_model(delivery, now, at_once=at_once, is_logged=blame is Blame.MODEL)
        if blame is Blame.MODEL and (breaker := self.model_health.held.get(delivery.model_id)):
            breaker.hold(until)
        return blame

    def _judge_throttling(self, delivery: DeliveryState, now: float, until: float) -> Blame:
        """Hold a model back for as long as Arthur asked, and all models if others get a 429 too.

        If other requests of the same model pass meanwhile, there were only too many at once.
        """
        model_id, model_health = delivery.model_id, self.model_health
        is_news = model_health.throttling.ask(model_id, until)
        delivery.not_before = until
        if self.is_down and not is_news:  # it says nothing about the others
            self.breaker.failed(now)
            self._fail_model(delivery, now, at_once=True, is_logged=False)
            return Blame.ARTHUR
        self._answers_again(now)
        if model_health.passes_beside(delivery):
            return Blame.ARTHUR
        self.in_flight.isolate(delivery)
        if model_health.blame(delivery, is_down=False) is Blame.MODEL:
            self._fail_model(delivery, now, at_once=False, is_logged=True)
            return Blame.MODEL
        if is_news and self._throttles and now - self._passed_at >= RECENT_SECONDS:
            self.breaker.hold(until)
            self._passed_at = float("inf")  # not again before something has passed
        self._throttles = True
        return Blame.ARTHUR

    def _answers_again(self, now: float) -> None:
        if self.breaker.succeeded():
            logger.info("arthur-relay: Arthur answers again; delivery goes on")
            self.model_health.probe_all_now(now)

    def _judge_answer(self, delivery: DeliveryState, attempt: Attempt, now: float) -> Blame | None:
        """Take note that Arthur works, even if each row of a model fails."""
        self._failing, self._many_fail = None, False
        self._answers_again(now)
        if attempt.failure is Failure.MALFORMED:  # which says nothing about the model
            self.model_health.forget(delivery.model_id)
            return None
        self._throttles = False
        self._passed_at = now
        if attempt.failure is None and all(
            outcome.verdict is Verdict.RETRY for outcome in attempt.outcomes
        ):
            is_news = delivery.lane is not Lane.ISOLATED or delivery.row_count > 1
            delivery.failures += 1
            self.in_flight.isolate(delivery)
            if is_news:
                self._fail_model(delivery, now, at_once=False, is_logged=True)
            return Blame.MODEL
        self.model_health.passed(delivery.model_id)
        self._open_requests.passed(delivery.model_id)
        return None

    def _fail_model(
        self, delivery: DeliveryState, now: float, *, at_once: bool, is_logged: bool
    ) -> None:
        if not self.model_health.failed(delivery, now, at_once=at_once):
            return
        self.in_flight.hurry(delivery.model_id)  # its deliveries go back to the buffer
        self.model_failure = self.last_failure
        if is_logged:
            logger.warning(
                "arthur-relay: nothing of a %s can be delivered (%s); its %s wait until it can,"
                " those of others go on",
                self.words.model,
                self.last_failure.rstrip("."),
                self.words.many,
            )

    def _admit(self, delivery: DeliveryState) -> bool:
        """Return, in the slot, whether the request may be sent: things may have changed."""
        if self.holds(delivery):
            return True  # to be given back
        now = anyio.current_time()
        if self.is_paused or self._wait_of(delivery, now) > 0:
            return False
        if not self._may_ask(delivery):
            self.breaker.admit(now)
        self._open_requests.begin(delivery, now)
        return True

    def _wait_of(self, delivery: DeliveryState, now: float) -> float:
        throttling = self.model_health.throttling.wait(delivery.model_id, now)
        if not self._may_ask(delivery):
            return max(self.breaker.wait(now), throttling)
        return max(self.breaker.held(now), throttling, (delivery.leave_at or 0.0) - now)

    async def _turn_of(self, delivery: DeliveryState) -> None:
        """Wait until the breaker lets a delivery pass; those that have not failed go first.

        So while there is another batch, the one that failed last is not the next probe.
        """
        while not self.holds(delivery):
            if self.is_paused:
                await anyio.sleep_forever()  # until it is cancelled
            wait = self._wait_of(delivery, anyio.current_time())
            goes_first = delivery.is_fresh or not self.is_down
            goes_first = goes_first or not self.in_flight.has_fresh(but=self._open_requests.hanging)
            if wait <= 0 and goes_first:
                return
            wait = wait if goes_first else float("inf")
            with anyio.move_on_after(min(wait, URGENT_SECONDS) if self.urgent else wait):
                await self._gate.wait()
            if self.urgent:
                self.breaker.probe_now(anyio.current_time())

    def _set_slot_counts(self) -> None:
        # While Arthur is down the breaker decides who may send; what hangs must not block others.
        most = self.settings.max_in_flight
        count = most if self.is_down else self.limit.requests
        self._slots.set_count(
            count, is_shared=self.in_flight.ordinary > 0, some_go_well=self.model_health.passes > 0
        )
