"""What Arthur says of a model: asked once for all who want the same, and remembered for a while."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import anyio
from anyio.abc import TaskGroup

from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.sentences import no_answer_within, unreachable
from arthur_relay.system import native
from arthur_relay.system.clocks import Clock

if TYPE_CHECKING:
    from arthur_relay.destinations import Destination
    from arthur_relay.encoding.model import Schema

ANSWERS_KEPT = 1000
"""Models whose answers are kept, at most: clients may ask for any that there are not."""

REFUSAL_SECONDS = 60.0
"""How long a refusal is believed; then the next inference of the model makes us ask again."""

INQUIRIES_AT_ONCE = 16
"""Questions on their way at the same time, at most, so that deliveries keep their connections."""

_Key = tuple[str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswer:
    """What Arthur said when it was asked for a model.

    Attributes:
        at: When it answered, on the scale of `Clock.monotonic`.
        document: Its description of the model, or None when there is no such model.
        schema: The model, or None when its rows can't be encoded.
        refusal: Why inferences of the model are refused, or "".
        is_ours: Whether the refusal met an inference of this process, not only a client's question.
        is_of_model: Whether it says something of the model, not only that we may not ask.
    """

    at: float
    document: dict[str, Any] | None = None
    schema: Schema | None = None
    refusal: str = ""
    is_ours: bool = False
    is_of_model: bool = True


@runtime_checkable
class DescribesModels(Protocol):
    """A destination that describes any model, also one whose rows could not be encoded here."""

    async def fetch_model(self, model_id: str, *, by_partner_id: bool = False) -> Any:
        """Ask for a model, and return its description; raises what `fetch_schema` does."""
        ...

    def schema_of(self, document: dict[str, Any]) -> Schema:
        """Read a description. Pure.

        Raises:
            ModelError: Rows of such a model can't be encoded.
        """
        ...


class TakesModels(Protocol):
    """Takes in what was found out; see `SchemaRegistry`. Loop's thread."""

    def take(self, schema: Schema) -> None:
        """Take in a model that a client asked for."""
        ...

    def question_ended(self, failure: str) -> None:
        """Take in why a question had no answer, or ""."""
        ...


class ObservesInquiries(Protocol):
    """Observes how each question of a client ended. The worker's thread; must not block."""

    def on_inquiry(self, error: RelayError | None) -> None:
        """Take in why a question had no answer, or None when it had one."""
        ...


class KeepsModels(Protocol):
    """Keeps descriptions of models for others. The worker's loop; must not block."""

    def keep(self, name: str, document: dict[str, Any], *, by_partner_id: bool) -> None:
        """Keep what Arthur says of a model, soon."""
        ...


@dataclass(slots=True, eq=False)
class _Question:
    """A question on its way, or waiting for its turn, and the clients that wait for its answer."""

    seconds: float
    """How long the answer may take, once the question has set off."""
    clients: list[Future[ModelAnswer]] = field(default_factory=list)
    ended: anyio.Event = field(default_factory=anyio.Event)
    limit: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    has_set_off: bool = False
    worker_waits: bool = False
    """Whether the worker waits for it too, which takes note of a failure itself."""
    answer: ModelAnswer | None = None
    """What Arthur said; None where it said nothing of the model."""
    error: RelayError | None = None
    """Why rows of the model can't be encoded; with an answer it is a `ModelError`."""

    def allow(self, seconds: float) -> None:
        """Give the answer so long from now, if it has less."""
        self.seconds = max(self.seconds, seconds)
        if self.has_set_off:
            self.limit.deadline = max(self.limit.deadline, anyio.current_time() + seconds)

    def set_off(self) -> anyio.CancelScope:
        """Begin the time that the answer may take."""
        self.has_set_off = True
        self.limit.deadline = anyio.current_time() + self.seconds
        return self.limit


@dataclass(slots=True, eq=False, kw_only=True)
class ModelInquiries:
    """Asks for models, and remembers the answers: for the worker, and for a daemon's clients.

    There is one question at a time for a model, whoever wants to know. Any thread may call `ask`,
    `latest`, `age_of`, `is_away`, `waited_in_vain` and `refused`; the rest belongs to the worker's
    loop.

    Attributes:
        destination: Is asked.
        models: Takes in what was found out.
        timeout_seconds: How long an answer to a client may take.
        clock: Measures how old an answer is.
        observers: Observe how each question of a client ended. Added before the start.
        others: Gets each description for others; None where there are none.
    """

    destination: Destination | DescribesModels
    models: TakesModels
    timeout_seconds: float
    clock: Clock
    observers: list[ObservesInquiries] = field(default_factory=list)
    others: KeepsModels | None = None
    _asked: deque[tuple[_Key, Future[ModelAnswer]]] = field(default_factory=deque)
    _questions: dict[_Key, _Question] = field(default_factory=dict)
    _answers: dict[_Key, ModelAnswer] = field(default_factory=dict)
    _failed_at: float | None = None
    _in_vain_at: float | None = None
    _limiter: anyio.CapacityLimiter | None = None

    def ask(self, name: str, *, by_partner_id: bool) -> Future[ModelAnswer]:
        """Ask for a model, or wait for the answer to whoever has asked. Wake the worker then.

        Args:
            name: Arthur's id of the model, or its partner's.
            by_partner_id: Whether it is the partner's.

        Returns:
            A future with the answer, an `UnreachableError` or a `CredentialsError`. It stays open
            where the worker has ended.
        """
        answer: Future[ModelAnswer] = native.new_future()
        self._asked.append(((name, by_partner_id), answer))
        return answer

    def latest(self, name: str, *, by_partner_id: bool) -> ModelAnswer | None:
        """Return what Arthur said of a model last, or None."""
        answer = self._answers.get((name, by_partner_id))
        return answer if answer is not None and answer.is_of_model else None

    def age_of(self, answer: ModelAnswer) -> float:
        """Return for how many seconds an answer is known."""
        return self.clock.monotonic() - answer.at

    def is_away(self, seconds: float) -> bool:
        """Return whether Arthur had no answer in time, less than so long ago.

        That is so when the last question had none, or a client waited in vain.
        """
        return any(
            at is not None and self.clock.monotonic() < at + seconds
            for at in (self._failed_at, self._in_vain_at)
        )

    def waited_in_vain(self) -> None:
        """Remember that a client could not wait for an answer any longer."""
        self._in_vain_at = self.clock.monotonic()

    @property
    def refused(self) -> str:
        """Why inferences of a model were refused lately, or "" when none were."""
        for answer in list(self._answers.values()):  # one step of C code
            if answer.is_ours and self._is_believed(answer):
                return answer.refusal
        return ""

    def refusal(self, model_id: str) -> str | None:
        """Return why inferences of a model are refused, or None when they were not lately."""
        answer = self._answers.get((model_id, False))
        if answer is None or not answer.refusal or not self._is_believed(answer):
            return None
        return answer.refusal

    def refuse(self, model_id: str, reason: str, *, is_of_model: bool) -> None:
        """Remember for a while that inferences of a model were refused, and why.

        Args:
            model_id: The model.
            reason: Why, in a few words.
            is_of_model: Whether that says something of the model, or only of us.
        """
        found = self.latest(model_id, by_partner_id=False) if is_of_model else None
        self._keep(
            (model_id, False),
            ModelAnswer(
                at=self.clock.monotonic(),
                document=None if found is None else found.document,
                refusal=reason,
                is_ours=True,
                is_of_model=is_of_model,
            ),
        )

    def forget_refusal(self, model_id: str) -> None:
        """Forget that a model is refused, because it is to be asked for again."""
        if self.refusal(model_id) is not None:
            del self._answers[(model_id, False)]

    @property
    def has_questions(self) -> bool:
        """Whether `turn` has something to do."""
        return bool(self._asked)

    def enter(self) -> None:
        """Get ready for a loop; what an earlier one did not live to hear is asked again."""
        self._limiter = anyio.CapacityLimiter(INQUIRIES_AT_ONCE)
        for key, question in self._questions.items():
            self._asked.extend((key, answer) for answer in question.clients)
        self._questions.clear()

    def turn(self, group: TaskGroup) -> None:
        """Take up what other threads have asked."""
        while self._asked:
            key, answer = self._asked.popleft()
            self._question(group, key, self.timeout_seconds).clients.append(answer)

    async def fetch(self, group: TaskGroup, model_id: str, *, timeout_seconds: float) -> Schema:
        """Return a model, or wait for the answer to whoever has asked.

        That it failed is for the caller to take note of, together with what else it knows.

        Raises:
            RelayError: What `Destination.fetch_schema` raises. A bug is an `UnreachableError`.
        """
        question = self._question(group, (model_id, False), timeout_seconds)
        question.worker_waits = True
        await question.ended.wait()
        if isinstance(question.error, _TooLateError):
            raise UnreachableError(unreachable(no_answer_within(timeout_seconds))) from None
        if question.error is not None:
            raise question.error
        assert question.answer is not None, "there is one or the other"
        assert question.answer.schema is not None, "else there is an error"
        return question.answer.schema

    def _question(self, group: TaskGroup, key: _Key, timeout_seconds: float) -> _Question:
        """Return the question that is on its way for a model, or begin one."""
        question = self._questions.get(key)
        if question is None:
            question = self._questions[key] = _Question(timeout_seconds)
            group.start_soon(self._inquire, key, question)
        else:
            question.allow(timeout_seconds)
        return question

    async def _inquire(self, key: _Key, question: _Question) -> None:
        try:
            question.answer, question.error = await self._fetch(key, question)
        except RelayError as error:
            question.error = error
        del self._questions[key]
        self._note(key, question)
        question.ended.set()
        failure = _for_clients(question)
        for client in question.clients:
            if not client.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            if question.answer is not None:
                client.set_result(question.answer)
            else:
                client.set_exception(failure)

    def _note(self, key: _Key, question: _Question) -> None:
        """Remember how a question ended, and pass it on."""
        answer, error = question.answer, _for_clients(question)
        is_away = isinstance(error, UnreachableError)
        self._failed_at = self.clock.monotonic() if is_away else None
        if answer is not None:
            self._keep(key, answer)
            self.models.question_ended("")
            if self.others is not None and answer.document is not None:
                self.others.keep(key[0], answer.document, by_partner_id=key[1])
        elif _is_silence(question) and not question.worker_waits:
            self.models.question_ended(str(error))
        if not question.clients:
            return
        if answer is not None and answer.schema is not None:
            self.models.take(answer.schema)
        for observer in self.observers:
            observer.on_inquiry(error)

    def _is_believed(self, answer: ModelAnswer) -> bool:
        """Return whether a refusal is recent enough to go by."""
        return self.age_of(answer) < REFUSAL_SECONDS

    def _keep(self, key: _Key, answer: ModelAnswer) -> None:
        self._answers.pop(key, None)  # the newest come last
        while len(self._answers) >= ANSWERS_KEPT:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = answer

    async def _fetch(self, key: _Key, question: _Question) -> tuple[ModelAnswer, ModelError | None]:
        """Return what Arthur says of a model, and why its rows can't be encoded.

        Raises:
            UnreachableError: It can't be asked.
            ConfigurationError: It refused us, or the question.
        """
        assert self._limiter is not None, "enter comes first"
        # The wait for a turn is ours: it must not count as Arthur's failure.
        async with self._limiter:
            try:
                with question.set_off():
                    return await self._ask_destination(key)
            except (ConfigurationError, UnreachableError):
                raise
            except TimeoutError:
                pass
            except Exception as error:  # a bug must cost its question, not the worker
                raise UnreachableError(f"internal error ({type(error).__name__})") from error
        raise _TooLateError(unreachable("no answer came in time"))

    async def _ask_destination(self, key: _Key) -> tuple[ModelAnswer, ModelError | None]:
        name, by_partner_id = key
        document: dict[str, Any] | None = None
        schema: Schema | None = None
        refusal: ModelError | None = None
        try:
            if isinstance(self.destination, DescribesModels):
                found = await self.destination.fetch_model(name, by_partner_id=by_partner_id)
                document = found
                schema = self.destination.schema_of(found)
            else:
                assert not by_partner_id, "only who describes models knows such ids"
                schema = await self.destination.fetch_schema(name)
                document = schema.to_json()
        except ModelError as error:
            refusal = error
        answer = ModelAnswer(
            at=self.clock.monotonic(),
            document=document,
            schema=schema,
            refusal="" if refusal is None else refusal.reason,
        )
        return answer, refusal


class _TooLateError(UnreachableError):
    """There was no answer in time."""


def _for_clients(question: _Question) -> RelayError | None:
    """Return why clients have no answer, or None when they have one."""
    error = question.error
    if question.answer is not None:
        return None
    if isinstance(error, ConfigurationError) and not isinstance(error, CredentialsError):
        return UnreachableError(str(error))  # it may be put right without them
    return error


def _is_silence(question: _Question) -> bool:
    """Return whether Arthur did not answer at all, which counts as a failed delivery does."""
    match question.error:
        case UnreachableError(throttled=throttled):
            return not throttled
        case CredentialsError():  # it is there: a probe would find out nothing
            return False
        case _:
            return bool(question.clients)
