"""The schemas of the models: asked for once, again and again while Arthur is away."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import anyio
from anyio.abc import TaskGroup
from tenacity import AsyncRetrying, retry_if_exception_type, stop_never

from arthur_relay.accounting import Ledger
from arthur_relay.buffers.schema_cache import SchemaCache
from arthur_relay.delivery.flow_control import FlowControl
from arthur_relay.delivery.retry import URGENT_SECONDS, FullJitter
from arthur_relay.destinations import (
    Destination,
    HasRowFormat,
    ReducesRows,
    RowEncoder,
    RowFormat,
    TakesTraces,
)
from arthur_relay.destinations.scope.encoder import ScopeRowFormat
from arthur_relay.encoding.model import MAX_MODEL_CHARACTERS, Schema
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.encoding.product import RowWords
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.row import Row
from arthur_relay.settings import RelaySettings
from arthur_relay.system import native
from arthur_relay.system.clocks import Clock
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.randomness import Randomness
from arthur_relay.system.worker_logs import WorkerLogger
from arthur_relay.worker.awaiting_schema import AwaitingSchema
from arthur_relay.worker.model_inquiries import ModelInquiries
from arthur_relay.worker.wake_up import WakeUp

logger = WorkerLogger("arthur_relay.delivery")

TROUBLES_KEPT = 1000
"""Models whose trouble is remembered; inferences may name any number that do not exist."""

MODELS_AT_ONCE = 16
"""Models that are asked for again and again at the same time, at most; a task of one costs 11 KB.
Others wait for their turn, and one that finds no answer lets them go before it."""

MODELS_PRESUMED = 1000
"""Models that are encoded for before the destination has answered, at most; each has an encoder,
and inferences may name any number of models. Those of others wait for the answer."""

QUESTIONS_AT_ONCE = 2
"""Models asked for at the same time, at most, so that deliveries keep their connections."""


def _log_once() -> LogOnce:
    return LogOnce(TROUBLES_KEPT)


class LearnsModels(Protocol):
    """Wants to know what Arthur says of models."""

    def on_learned(self, model_id: str, schema: Schema) -> None:
        """Take in a model that became known. The worker's thread."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class SchemaRegistry:
    """Knows the encoders of the models, and loads those it does not know.

    `ask` and `give` may be called from any thread, and take effect when the worker looks; the rest
    belongs to the worker's loop. `inquiries` asks, also for a daemon's clients, and remembers what
    was answered.

    Attributes:
        destination: Is asked for models, and says how it wants their rows.
        cache: Keeps models for a start while Arthur is away.
        awaiting: Holds captures that wait for a model: without any, it is not asked for.
        settings: Time limits and back-off.
        random: The randomness of jitter.
        ledger: Counts values that an encoder leaves out.
        privacy: Given to each encoder.
        host: Learns each model that becomes known.
        wake_up: Woken when a model became known, or was refused.
        flow: Takes each question's end as it takes a delivery's.
        clock: Measures how old answers are.
        words: What the log calls a model.
        urgent: Whether the relay is closing, and waits have to be short.
        answered: Models that became known, or were refused, until somebody takes note.
        inquiries: Asks the destination, once for all who want the same.
    """

    destination: Destination
    cache: SchemaCache
    awaiting: AwaitingSchema
    settings: RelaySettings
    random: Randomness
    ledger: Ledger
    privacy: Privacy | None
    host: LearnsModels
    wake_up: WakeUp
    flow: FlowControl
    clock: Clock
    words: RowWords
    urgent: bool = False
    answered: deque[str] = field(default_factory=deque)
    _unreachable: dict[str, str] = field(default_factory=dict)
    _encoders: dict[str, RowEncoder] = field(default_factory=dict)
    _presumed: set[str] = field(default_factory=set)
    _loading: set[str] = field(default_factory=set)
    _queued: dict[str, int] = field(default_factory=dict)
    _questions: deque[tuple[str, "Future[None]"]] = field(default_factory=deque)
    _once: LogOnce = field(default_factory=_log_once)
    _not_before: dict[str, float] = field(default_factory=dict)
    _waiting: list[tuple[str, "Future[None]"]] = field(default_factory=list)
    _given: deque[Schema] = field(default_factory=deque)
    _hurry: anyio.Event | None = None
    _last_presumed: RowEncoder | None = None
    _limiter: anyio.CapacityLimiter | None = None
    _row_format: RowFormat[Any] = field(init=False)
    inquiries: ModelInquiries = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.destination, HasRowFormat):
            self._row_format = self.destination.row_format
        else:
            self._row_format = ScopeRowFormat()
        self.inquiries = ModelInquiries(
            destination=self.destination,
            models=self,
            timeout_seconds=self.settings.connect_timeout_seconds,
            clock=self.clock,
        )

    def ask(self, model_id: str) -> "Future[None]":
        """Ask for a model at once. Any thread; wake the worker afterwards.

        Returns:
            A future: None when the model is known, else the error of the first answer.
        """
        answer: Future[None] = native.new_future()
        self._questions.append((model_id, answer))
        return answer

    def give(self, schema: Schema) -> None:
        """Make a model known that need not be asked for. Any thread."""
        self._given.append(schema)

    def take(self, schema: Schema) -> None:
        """Make a model known that a client has asked for."""
        self._learn_and_keep(schema.model_id, schema)

    @property
    def unreachable(self) -> str:
        """Why a model could not be asked for lately, or "" when all could be. Any thread."""
        return next(iter(list(self._unreachable.values())), "")

    @property
    def refused(self) -> str:
        """Why a model was refused lately, or "" when none was. Any thread."""
        return self.inquiries.refused

    @property
    def has_questions(self) -> bool:
        """Whether `turn` has something to do."""
        return bool(self._questions or self._given or self.inquiries.has_questions)

    @property
    def is_asking(self) -> bool:
        """Whether anything is asked for, or is to be."""
        return self.has_questions or bool(self._waiting or self._loading)

    def enter(self) -> None:
        """Get ready for a loop, also after an earlier one died."""
        self._loading.clear()
        self._queued.clear()
        self._hurry = anyio.Event()
        self._limiter = anyio.CapacityLimiter(QUESTIONS_AT_ONCE)
        self.inquiries.enter()

    def turn(self, group: TaskGroup) -> None:
        """Take up what other threads have asked and given."""
        self.inquiries.turn(group)
        while self._given:
            schema = self._given.popleft()
            self._learn_and_keep(schema.model_id, schema)
        while self._questions:
            model_id, answer = self._questions.popleft()
            if model_id in self._encoders and model_id not in self._presumed:
                _resolve(answer, None)
            else:
                self.inquiries.forget_refusal(model_id)
                self._waiting.append((model_id, answer))
                self.load(group, model_id)

    def resume(self, group: TaskGroup) -> None:
        """Ask again what an earlier run did not live to hear, and what is only remembered."""
        for model_id, text in self.cache.texts().items():
            schema = self._row_format.schema_from_text(model_id, text)
            if schema is not None and model_id not in self._encoders:
                self._learn(model_id, schema)
                self._presumed.add(model_id)
        for model_id in [*self._presumed, *(asked for asked, _ in self._waiting)]:
            self.load(group, model_id)

    def presume(self, group: TaskGroup, model_id: str) -> None:
        """Ask for a model, and have it encoded at once where no answer is needed for that.

        So what is captured while the destination is away is in the spool before it ever answers.
        Without a spool it waits as it is, so that a refusal finds it before it is sent.
        """
        if (
            self.settings.spool_dir is not None
            and isinstance(self.destination, TakesTraces)
            and model_id not in self._encoders
            and len(self._presumed) < MODELS_PRESUMED
            and clean_text(model_id) == model_id
        ):
            self._learn(model_id, self._row_format.usual_schema(model_id))
            self._presumed.add(model_id)
            self.load(group, model_id)

    def encoder(self, model_id: str) -> RowEncoder | None:
        """Return the model's encoder, or None when it is not known (yet)."""
        return self._encoders.get(model_id)

    def presumed_encoder(self, model_id: str) -> RowEncoder:
        """Return an encoder for a model that Arthur refuses, with the usual attributes.

        What it makes is for people, and for another try once the model is there.
        """
        model_id = clean_text(model_id)
        if self._last_presumed is None or self._last_presumed.schema.model_id != model_id:
            self._last_presumed = self._row_format.encoder(
                self._row_format.usual_schema(model_id),
                omissions=NoOmissions(),
                privacy=self.privacy,
            )
        return self._last_presumed

    def known(self) -> list[Schema]:
        """Return the models that are known. Any thread."""
        return [encoder.schema for encoder in list(self._encoders.values())]

    def refusal(self, model_id: str) -> str | None:
        """Return why Arthur refused the model lately, or None.

        What no model's id can be is not asked for, and not remembered.
        """
        if len(model_id) > MAX_MODEL_CHARACTERS:
            return "unknown model"
        return self.inquiries.refusal(model_id)

    def load(self, group: TaskGroup, model_id: str) -> None:
        """Begin to ask for a model, unless that is under way. Returns at once."""
        if model_id in self._loading or model_id in self._queued:
            return
        self._queued[model_id] = 0
        self._start_next(group)

    def _start_next(self, group: TaskGroup) -> None:
        """Ask for those that have waited longest, as far as there may be more at the same time."""
        while self._queued and len(self._loading) < MODELS_AT_ONCE:
            model_id = next(iter(self._queued))
            attempts = self._queued.pop(model_id)
            if self._is_wanted(model_id):
                self._loading.add(model_id)
                group.start_soon(self._load, group, model_id, attempts)

    def _is_wanted(self, model_id: str) -> bool:
        """Say whether anything waits for a model, or goes by what may no longer be so."""
        return (
            self.awaiting.holds(model_id)
            or model_id in self._presumed
            or any(asked == model_id for asked, _ in self._waiting)
        )

    def hurry(self) -> None:
        """Cut the wait before the next question short, once."""
        assert self._hurry is not None
        self._hurry.set()
        self._hurry = anyio.Event()

    async def _load(self, group: TaskGroup, model_id: str, attempts_before: int) -> None:
        attempts = 0

        async def fetch() -> Schema:
            nonlocal attempts
            if attempts and self._queued:
                raise _MakeWayError
            attempts += 1
            return await self._fetch(group, model_id)

        policy = AsyncRetrying(
            retry=retry_if_exception_type(UnreachableError),
            wait=FullJitter(
                initial_seconds=self.settings.retry_initial_seconds,
                max_seconds=self.settings.retry_max_seconds,
                random=self.random,
                attempts_before=attempts_before,
            ),
            stop=stop_never,
            sleep=self._back_off,
            reraise=True,
        )
        try:
            schema: Schema = await policy(fetch)
        except _MakeWayError:
            self._loading.discard(model_id)
            self._queued[model_id] = attempts_before + attempts
            self._start_next(group)
            return
        except ConfigurationError as error:
            self.question_ended("")
            self._refuse(model_id, error)
            self._answer(model_id, error)
        else:
            self._learn_and_keep(model_id, schema)
            if self._unreachable.pop(model_id, "") and not self._unreachable:
                logger.info("arthur-relay: Arthur answers again; delivery goes on")
            self._answer(model_id, None)
        self._presumed.discard(model_id)
        self._unreachable.pop(model_id, None)
        self._not_before.pop(model_id, None)
        self._loading.discard(model_id)
        self._start_next(group)
        self.wake_up.wake()

    async def _fetch(self, group: TaskGroup, model_id: str) -> Schema:
        assert self._limiter is not None
        # What Arthur asked for is obeyed, whoever is in a hurry.
        await anyio.sleep_until(self._not_before.get(model_id, 0.0))
        try:
            async with self._limiter:
                return await self.inquiries.fetch(
                    group, model_id, timeout_seconds=self.settings.request_timeout_seconds
                )
        except RelayError as error:
            reason = str(error)
            if isinstance(error, CredentialsError) and self.settings.spool_dir is not None:
                # What can be kept waits until they are put right; who asked gets the answer.
                self._answer(model_id, error)
                self.question_ended(reason)
            elif isinstance(error, ConfigurationError):
                raise
            elif isinstance(error, UnreachableError) and error.retry_after_seconds is not None:
                not_before = anyio.current_time() + error.retry_after_seconds
                _forget_oldest(self._not_before)
                self._not_before[model_id] = not_before
            if not self._unreachable:
                logger.warning(
                    "arthur-relay: the %s is not known yet, as %s; Arthur is asked again",
                    self.words.model,
                    reason.rstrip("."),
                )
            if model_id not in self._unreachable:
                _forget_oldest(self._unreachable)
            self._unreachable[model_id] = reason  # first: a failed request has a milder word
            if isinstance(error, UnreachableError) and not error.throttled:
                self.question_ended(reason)
            failure = UnreachableError(reason)
            self._answer(model_id, failure)
            raise failure from error

    def question_ended(self, failure: str) -> None:
        """Take in why a question had no answer, or "": for the breaker, as a delivery's end."""
        if self.flow.asked(failure):
            self.wake_up.wake()

    def shrink(self, row: Row) -> Row | None:
        """Return a smaller form of a row that is too large alone, or None."""
        encoder = self._encoders.get(row.model_id)
        if encoder is None and isinstance(self.destination, TakesTraces):
            encoder = self.presumed_encoder(row.model_id)  # a span is cut by itself
        return encoder.shrink(row) if encoder is not None else None

    @property
    def reduces(self) -> bool:
        """Whether rows have a form that the destination takes whatever is in it."""
        return isinstance(self._row_format, ReducesRows)

    def reduce(self, row: Row) -> Row | None:
        """Return a form of a row that the destination takes whatever is in it, or None."""
        if not isinstance(self._row_format, ReducesRows):
            return None
        return self._row_format.reduced(row, self.ledger)

    def _refuse(self, model_id: str, error: ConfigurationError) -> None:
        """Remember for a while that Arthur has refused a model."""
        match error:
            case ModelError():
                reason = error.reason
                self.cache.forget(model_id)
            case CredentialsError():
                reason = "credentials refused"
            case _:
                reason = "model refused"
        self.inquiries.refuse(model_id, reason, is_of_model=isinstance(error, ModelError))
        self._encoders.pop(model_id, None)
        self.answered.append(model_id)
        if self._once.is_first(model_id):
            logger.warning("arthur-relay: %s", error)

    def _learn_and_keep(self, model_id: str, schema: Schema) -> None:
        self._learn(model_id, schema)
        self.cache.keep(schema.model_id, self._row_format.schema_to_text(schema))

    def _learn(self, model_id: str, schema: Schema) -> None:
        self._encoders[model_id] = self._row_format.encoder(
            schema, omissions=self.ledger, privacy=self.privacy
        )
        self.answered.append(model_id)
        self.host.on_learned(model_id, schema)

    async def _back_off(self, seconds: float) -> None:
        assert self._hurry is not None
        with anyio.move_on_after(min(seconds, URGENT_SECONDS) if self.urgent else seconds):
            await self._hurry.wait()

    def _answer(self, model_id: str, error: Exception | None) -> None:
        for asked, answer in self._waiting:
            if asked == model_id:
                _resolve(answer, error)
        self._waiting = [pair for pair in self._waiting if pair[0] != model_id]


class _MakeWayError(Exception):
    """A model has found no answer, and others wait for their turn."""


def _forget_oldest(by_model: dict[str, Any]) -> None:
    """Make room for one more, if there is none."""
    while len(by_model) >= TROUBLES_KEPT:
        del by_model[next(iter(by_model))]


def _resolve(answer: "Future[None]", error: Exception | None) -> None:
    if not answer.set_running_or_notify_cancel():
        return  # whoever asked has gone
    if error is None:
        answer.set_result(None)
    else:
        answer.set_exception(error)
