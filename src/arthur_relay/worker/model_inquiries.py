"""What Arthur says of a model, for a daemon's clients: asked once for all who want the same."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import anyio
from anyio.abc import TaskGroup

from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.system import native
from arthur_relay.system.clocks import Clock

ANSWERS_KEPT = 1000
"""Models whose answers are kept, at most: clients may ask for any that there are not."""

INQUIRIES_AT_ONCE = 16
"""Questions on their way at the same time, at most, so that deliveries keep their connections."""

_Key = tuple[str, bool]


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What Arthur said when it was asked for a model.

    Attributes:
        document: Its description of the model, or None when there is no such model.
        at: When it answered, on the scale of `Clock.monotonic`.
    """

    document: dict[str, Any] | None
    at: float


@runtime_checkable
class DescribesModels(Protocol):
    """A destination that describes any model, also one whose rows could not be encoded here."""

    async def fetch_model(self, model_id: str, *, by_partner_id: bool = False) -> Any:
        """Ask for a model, and return its description; raises what `fetch_schema` does."""
        ...


class TakesModels(Protocol):
    """Takes in what was found out; see `SchemaRegistry`. Loop's thread."""

    def take(self, document: dict[str, Any]) -> None:
        """Take in the description of a model."""
        ...

    def question_ended(self, failure: str) -> None:
        """Take in why a question had no answer, or ""."""
        ...


class ObservesInquiries(Protocol):
    """Is told how each question ended. The worker's thread; must not block."""

    def on_inquiry(self, error: RelayError | None) -> None:
        """Take in why a question had no answer, or None when it had one."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class ModelInquiries:
    """Asks for models on behalf of others, once each, and remembers the answers.

    Any thread may call `ask`, `latest`, `age_of` and `is_away`; the rest belongs to the worker's
    loop.

    Attributes:
        destination: Is asked.
        models: Takes in what was found out.
        timeout_seconds: How long an answer may take.
        clock: Tells how old an answer is.
        observers: Told how each question ended. Added before the start.
    """

    destination: object
    models: TakesModels
    timeout_seconds: float
    clock: Clock
    observers: list[ObservesInquiries] = field(default_factory=list)
    _asked: deque[tuple[_Key, Future[ModelAnswer]]] = field(default_factory=deque)
    _waiting: dict[_Key, list[Future[ModelAnswer]]] = field(default_factory=dict)
    _answers: dict[_Key, ModelAnswer] = field(default_factory=dict)
    _failed_at: float | None = None
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
        return self._answers.get((name, by_partner_id))

    def age_of(self, answer: ModelAnswer) -> float:
        """Return for how many seconds an answer is known."""
        return self.clock.monotonic() - answer.at

    def is_away(self, seconds: float) -> bool:
        """Return whether Arthur had no answer to the last question, less than so long ago."""
        failed_at = self._failed_at
        return failed_at is not None and self.clock.monotonic() < failed_at + seconds

    @property
    def has_questions(self) -> bool:
        """Whether `turn` has something to do."""
        return bool(self._asked)

    def enter(self) -> None:
        """Get ready for a loop; what an earlier one did not live to hear is asked again."""
        self._limiter = anyio.CapacityLimiter(INQUIRIES_AT_ONCE)
        for key, answers in self._waiting.items():
            self._asked.extend((key, answer) for answer in answers)
        self._waiting.clear()

    def turn(self, group: TaskGroup) -> None:
        """Take up what other threads have asked."""
        while self._asked:
            key, answer = self._asked.popleft()
            if key in self._waiting:
                self._waiting[key].append(answer)
            else:
                self._waiting[key] = [answer]
                group.start_soon(self._inquire, key)

    async def _inquire(self, key: _Key) -> None:
        error: RelayError | None = None
        try:
            self._keep(key, await self._fetch(key))
        except (CredentialsError, UnreachableError) as failure:
            error = failure
        is_away = isinstance(error, UnreachableError)
        self._failed_at = self.clock.monotonic() if is_away else None
        if not isinstance(error, CredentialsError):  # it is there: probes would tell nothing
            self.models.question_ended("" if error is None else str(error))
        for observer in self.observers:
            observer.on_inquiry(error)
        for answer in self._waiting.pop(key):
            if not answer.set_running_or_notify_cancel():
                continue  # whoever asked has gone
            if error is None:
                answer.set_result(self._answers[key])
            else:
                answer.set_exception(error)

    def _keep(self, key: _Key, document: dict[str, Any] | None) -> None:
        while len(self._answers) >= ANSWERS_KEPT:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = ModelAnswer(document, self.clock.monotonic())
        if document is not None:
            self.models.take(document)

    async def _fetch(self, key: _Key) -> dict[str, Any] | None:
        """Return Arthur's description of a model, or None when there is no such model.

        Raises:
            UnreachableError: It can't be asked.
            CredentialsError: It refused us.
        """
        name, by_partner_id = key
        assert self._limiter is not None, "enter comes first"
        assert isinstance(self.destination, DescribesModels), "only such a one is asked"
        try:
            # The wait for a turn is ours: it must not count as Arthur's failure.
            async with self._limiter:
                with anyio.fail_after(self.timeout_seconds):
                    found = await self.destination.fetch_model(name, by_partner_id=by_partner_id)
        except TimeoutError:
            raise UnreachableError("it has not answered in time") from None
        except ModelError:
            return None
        except (CredentialsError, UnreachableError):
            raise
        except ConfigurationError as error:
            raise UnreachableError(str(error)) from None
        except Exception as error:  # a bug must cost its question, not the worker
            raise UnreachableError(f"internal error ({type(error).__name__})") from error
        document: dict[str, Any] = found
        return document
