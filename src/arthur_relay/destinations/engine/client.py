"""Arthur Engine: one attempt to post spans or feedback, and the questions about tasks and spans."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote, urlencode

import anyio

from arthur_relay.credentials import Credentials
from arthur_relay.destinations.answers import (
    RETRY,
    described_success,
    is_json,
    may_pass,
    refused,
    whole,
)
from arthur_relay.destinations.engine.encoder import EngineRowFormat
from arthur_relay.destinations.engine.feedback import NewestFeedback, read_feedback
from arthur_relay.destinations.engine.interpret import (
    MAY_NOT_WRITE,
    REFUSED_KEY,
    Counts,
    counts_of,
    described,
    document,
    interpret,
    interpret_failure,
    interpret_feedback,
    interpret_partial,
    is_engines,
)
from arthur_relay.destinations.engine.libraries import check_libraries
from arthur_relay.destinations.engine.row_ids import RowId
from arthur_relay.destinations.engine.rows import joined, resource_in
from arthur_relay.destinations.engine.task import Task, is_task_id, is_unresolved
from arthur_relay.destinations.http import (
    Answer,
    HttpClient,
    HttpOptions,
    TransportError,
    retry_after_seconds,
)
from arthur_relay.encoding.product import TRACES_PATH as TRACES
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    RelayError,
    UnreachableError,
)
from arthur_relay.row import (
    DELIVERED,
    Attempt,
    Batch,
    Failure,
    Outcome,
    Row,
    RowKind,
    RowOwner,
    Verdict,
)
from arthur_relay.sentences import answered, unreachable
from arthur_relay.settings import RelaySettings
from arthur_relay.system.clocks import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from types import TracebackType

TASKS = "/api/v2/tasks"

PROBE = b"\x0a\x00"
"""One resource without spans: the Engine answers 200 if key, role and database are well, and stores
nothing. Its `/health` is 200 also while the database is away."""

SPANS_PER_QUESTION = 50

TASKS_PER_PAGE = 250
MOST_PAGES = 20
"""Of tasks whose names contain one that is looked for; their order is the Engine's."""

TASKS_KEPT = 1000
"""Tasks whose ids are remembered by their names, at most."""

MOST_IDS = 10
"""Tasks of one name that are asked about, at most."""

_NO_TASK = "00000000-0000-0000-0000-000000000000"
_NO_SPAN = "0000000000000000"
"""Ids that no task and no span has, to ask about rights alone."""

_PROTOBUF = {"Content-Type": "application/x-protobuf"}


def engine_owner(credentials: Credentials) -> RowOwner:
    """Return the owner of the rows that are captured with an Engine's key."""
    return RowOwner(f"{credentials.url}{TRACES}", principal=credentials.owner.principal)


class EngineDestination:
    """Posts spans to an Arthur Engine.

    Args:
        credentials: Where the Engine is, and the key.
        options: How it is connected to.
        clock: Gives the time with which a date in a `Retry-After` is compared.
        service_version: The version of the application, which spans name, or None.
    """

    takes_traces = True

    def __init__(
        self,
        credentials: Credentials,
        *,
        options: HttpOptions,
        clock: Clock = SYSTEM_CLOCK,
        service_version: str | None = None,
    ) -> None:
        self._credentials = credentials
        self._principal = credentials.owner.principal
        self._timeout = options.timeout_seconds
        self._retry_after_max = options.retry_after_max_seconds
        self._clock = clock
        self._service_version = service_version
        self._row_format = EngineRowFormat(service_version=service_version)
        self._tasks: dict[str, Task] = {}
        self._newest_feedback = NewestFeedback()
        self._http = HttpClient(credentials.url, verify_ssl=credentials.verify_ssl, options=options)

    @classmethod
    def of(
        cls,
        credentials: Credentials,
        settings: RelaySettings,
        *,
        service_version: str | None = None,
    ) -> Self:
        """Return a destination that the settings ask for.

        Raises:
            ConfigurationError: The packages that write spans are not installed.
            SettingsError: The settings name the key of a client certificate, and not the
                certificate.
        """
        check_libraries()
        return cls(credentials, options=HttpOptions.of(settings), service_version=service_version)

    @property
    def row_format(self) -> EngineRowFormat:
        """How the Engine wants its rows."""
        return self._row_format

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.__aexit__(exc_type, exc_value, traceback)

    def renew(self, credentials: Credentials) -> None:
        """Use another key from the next request on, by new connections; the address stays.

        Loop's thread only.
        """
        self._credentials = replace(credentials, url=self._credentials.url)
        self._http.renew()

    @property
    def name(self) -> str:
        """The Engine's address."""
        return self._credentials.url

    @property
    def owner(self) -> RowOwner:
        """Whose the rows are: the key's, because the Engine says to nobody whose that is.

        The address is that of traces, which no rows for Arthur Scope have. A key that is renewed
        while the process runs is its own: the rows stay whose they were.
        """
        return replace(engine_owner(self._credentials), principal=self._principal)

    async def learn_owner(self) -> None:
        """Do nothing: there is nothing more to know."""

    async def fetch_schema(self, model_id: str) -> Task:
        """Ask for a task by its id or its name. See `Destination.fetch_schema`.

        A name that no task has is sent as the service's name, of which the Engine makes a task; so
        is one that the key may not look for.
        """
        await self.check_access()
        task = Task.named(model_id, service_version=self._service_version)
        if task.task_id is not None:
            await self._check_task(task.task_id)
            return task
        return await self._find_task(task)

    async def _find_task(self, task: Task) -> Task:
        """Ask for a task by its name; it is as it was when no task has the name.

        Raises:
            RelayError: As `fetch_schema` does.
        """
        name = task.model_id
        self._tasks.pop(name, None)
        ids = await self._find_tasks(name)
        if len(ids) > 1:
            raise ModelError(
                f"Arthur Engine has several tasks named {name!r}: give the id of the one that"
                f" is meant ({', '.join(ids)}).",
                reason="several tasks of the name",
            )
        found = replace(task, task_id=ids[0], service_name=None) if ids else task
        self._tasks[name] = found
        if len(self._tasks) > TASKS_KEPT:
            del self._tasks[next(iter(self._tasks))]
        return found

    async def _task_of(self, batch: Batch) -> Task | None:
        """Return the task of rows that were encoded before its id was known; None for others.

        Raises:
            RelayError: As `fetch_schema` does.
        """
        name = batch.model_id
        if not name or is_task_id(name):
            return None
        resources = {resource_in(row.body) for row in batch.rows}
        if not any(found is not None and is_unresolved(found, name) for found in resources):
            return None
        known = self._tasks.get(name)
        return known if known is not None else await self._find_task(Task.named(name))

    async def check_access(self) -> None:
        """Ask whether the Engine is there, and the key may write traces; stores nothing.

        Raises:
            CredentialsError: The key is refused, or it may not write.
            ConfigurationError: The Engine refused the question for another reason.
            UnreachableError: It could not be asked.
        """
        answer = await self._ask("POST", TRACES, headers=_PROTOBUF, content=PROBE)
        if answer.status == 200:
            if counts_of(answer) is None:
                raise self._not_the_engine(answer)
            return
        if answer.status == 403 and is_engines(answer):
            raise CredentialsError(f"Arthur Engine refused access (403): {MAY_NOT_WRITE}.")
        raise self._unusable(TRACES, answer)

    async def may_read(self, task_id: str | None) -> bool | None:
        """Ask whether the key may read spans, without which a lost answer may mean a second span.

        Args:
            task_id: The task whose spans it may read, or None for whatever task.

        Returns:
            None when the Engine did not say.

        Raises:
            RelayError: As `fetch_schema` does.
        """
        given = {"task_ids": task_id or _NO_TASK, "span_ids": _NO_SPAN}
        query = urlencode({**given, "page": 0, "page_size": 1})
        answer = await self._ask("GET", f"{TRACES}/spans?{query}")
        if answer.status == 200:
            return True
        return False if answer.status == 403 and is_engines(answer) else None

    async def deliver(self, batch: Batch) -> Attempt:
        """Send a batch once. See `Destination.deliver`."""
        if batch.kind is RowKind.GROUND_TRUTH:
            return await self._annotate(batch)
        try:
            task = await self._task_of(batch)
        except ModelError as error:
            return refused(batch, error.reason, None)
        except RelayError as error:
            return _unanswered(batch, error)
        resource_of = None if task is None else task.resolve
        return await self._post(batch, b"".join(joined((r.body for r in batch.rows), resource_of)))

    async def _post(self, batch: Batch, body: bytes) -> Attempt:
        """Send the request of a batch of spans once."""
        try:
            answer = await self._send("POST", TRACES, headers=_PROTOBUF, content=body)
        except TransportError as error:
            return _not_sent(batch, error)
        counts = counts_of(answer)
        if answer.status == 206 and counts is not None:
            return await self._sort_out(batch, counts)
        if answer.status == 500 and is_engines(answer):
            return await self._find_fault(batch, answer)
        return interpret(
            batch,
            answer,
            secrets=self._secrets,
            retry_after_seconds=self._retry_after(answer),
        )

    async def find_stored(self, batch: Batch) -> Attempt | None:
        """Ask which spans are there already. See `FindsStored`."""
        try:
            found = await self._stored(batch)
        except RelayError as error:
            return _unanswered(batch, error)
        if found is None:
            return None
        return Attempt(tuple(DELIVERED if row in found else RETRY for row in batch.rows))

    async def _sort_out(self, batch: Batch, counts: Counts) -> Attempt:
        """Return what a 206 means: the Engine took some of the rows, and does not say which."""
        try:
            found = await self._stored(batch)
        except RelayError as error:  # the next attempt asks before it sends anything
            return replace(_unanswered(batch, error), may_have_arrived=True)
        return interpret_partial(batch, found, counts, self._secrets)

    async def _find_fault(self, batch: Batch, answer: Answer) -> Attempt:
        """Return what a 500 means, which the Engine says of what was sent as of its database."""
        self._tasks.pop(batch.model_id, None)  # the task may be gone: the next attempt asks
        failed = interpret_failure(
            batch, answer, secrets=self._secrets, wait=self._retry_after(answer)
        )
        try:
            await self.check_access()
        except RelayError:
            return failed
        if is_task_id(batch.model_id):
            try:
                await self._check_task(batch.model_id)
            except ModelError:
                return refused(batch, "the Engine has no such task", 404)
            except RelayError:
                return failed
        if len(batch.rows) == 1 and not batch.rows[0].history.attempts:
            return failed  # once more: nothing but its own second failure is held against a row
        return refused(batch, "http 500 for what was sent, while the Engine is well", 500)

    async def _annotate(self, batch: Batch) -> Attempt:
        """Send feedback, trace by trace; it replaces what was sent for the same trace before.

        What is older than the last that was sent for its trace is settled without being sent.
        """
        outcomes: list[Outcome] = []
        end = anyio.current_time() + self._timeout / 2
        for row in batch.rows:
            if outcomes and anyio.current_time() > end:
                break  # the next attempt goes on with the others
            trace_id = RowId.parse(row.id).trace_id
            async with self._newest_feedback.turn(trace_id):
                found = await self._annotate_one(batch, row, trace_id)
            if isinstance(found, Attempt):
                rest = found.outcomes[len(outcomes) :]
                return replace(found, outcomes=(*outcomes, *rest))
            outcomes.append(found)
        left = len(batch.rows) - len(outcomes)
        reason = next((outcome.reason for outcome in outcomes if outcome.reason), "")
        return Attempt((*outcomes, *[RETRY] * left), reason=reason)

    async def _annotate_one(self, batch: Batch, row: Row, trace_id: str) -> Outcome | Attempt:
        """Send one row's feedback. Returns its outcome, or how the whole request failed."""
        given = read_feedback(row.body)
        if self._newest_feedback.is_outdated(trace_id, given.known_at):
            return DELIVERED
        path = f"{TRACES}/{quote(trace_id, safe='', errors='replace')}/annotations"
        try:
            answer = await self._send("POST", path, content=given.body)
        except TransportError as error:
            return _not_sent(batch, error)
        is_good = 200 <= answer.status < 300
        is_own = bool(document(answer)) if is_good else is_engines(answer)
        if is_own and (is_good or answer.status in (400, 404, 409, 422)):
            outcome = interpret_feedback(answer, row, self._secrets)
            if outcome is DELIVERED:
                self._newest_feedback.sent(trace_id, given.known_at)
            return outcome
        if is_good:
            said = answered(described_success(answer, self._secrets))
            return whole(batch, RETRY, Failure.UNAVAILABLE, said)
        if answer.status == 413:
            return Outcome(Verdict.REJECTED, "http 413", 413)
        wait = self._retry_after(answer)
        return interpret_failure(batch, answer, secrets=self._secrets, wait=wait)

    async def _stored(self, batch: Batch) -> frozenset[Row] | None:
        """Return the rows whose spans the Engine has; None where it can't be asked.

        Raises:
            RelayError: It did not say, and may another time.
        """
        task_ids = await self._task_ids(batch.model_id)
        if task_ids is None:
            return None
        found: set[str] = set()
        for at in range(0, len(batch.rows), SPANS_PER_QUESTION):
            rows = batch.rows[at : at + SPANS_PER_QUESTION]
            ids = await self._stored_ids(task_ids, rows)
            if ids is None:
                return None
            found |= ids
        return frozenset(row for row in batch.rows if row.id in found)

    async def _stored_ids(self, task_ids: Sequence[str], rows: Sequence[Row]) -> set[str] | None:
        """Return the ids of rows whose spans the Engine has; None where it can't be asked."""
        query = urlencode(
            [
                *(("task_ids", each) for each in task_ids),
                *(("span_ids", RowId.parse(row.id).span_id) for row in rows),
            ],
            errors="replace",
        )
        found: set[str] = set()
        for page in range(MOST_PAGES):  # one, unless some were stored several times
            path = f"{TRACES}/spans?{query}&page={page}&page_size={SPANS_PER_QUESTION}"
            answer = await self._ask("GET", path)
            if answer.status != 200:
                if not may_pass(answer.status) and is_engines(answer) and answer.status != 401:
                    return None  # mostly 403: the key may write and not read
                raise self._unusable("/traces/spans", answer)
            spans = document(answer).get("spans")
            if not isinstance(spans, list):
                raise self._not_the_engine(answer)
            known = [span for span in spans if isinstance(span, dict)]
            found |= {
                str(RowId(span.get("trace_id", ""), span.get("span_id", ""))) for span in known
            }
            if len(spans) < SPANS_PER_QUESTION or found.issuperset(row.id for row in rows):
                break
        return found

    async def _task_ids(self, model_id: str) -> Sequence[str] | None:
        """Return the ids of the tasks that a user's name for one may mean, or None."""
        if is_task_id(model_id):
            return [model_id.lower()]
        try:
            return await self._find_tasks(model_id) or None
        except ConfigurationError:
            return None

    async def _check_task(self, task_id: str) -> None:
        """Ask for a task.

        Raises:
            RelayError: As `fetch_schema` does.
        """
        answer = await self._ask("GET", f"{TASKS}/{quote(task_id, safe='')}")
        if answer.status == 200:
            if "id" not in document(answer):
                raise self._not_the_engine(answer)
            return
        if answer.status == 403 and is_engines(answer):
            return  # the key may write and not read
        if answer.status in (400, 404) and is_engines(answer):
            raise ModelError(
                f"Arthur Engine has no task with id {task_id}: make sure that the id is that of a"
                f" task at {self._credentials.url}, or give a name, of which the Engine makes a"
                " task.",
                reason="unknown task",
            )
        raise self._unusable(f"task {task_id}", answer)

    async def _find_tasks(self, name: str) -> list[str]:
        """Return the ids of the tasks of exactly this name; none where the key may not look.

        Raises:
            RelayError: As `fetch_schema` does.
        """
        found: list[str] = []
        for page in range(MOST_PAGES):
            path = f"{TASKS}/search?page={page}&page_size={TASKS_PER_PAGE}"
            answer = await self._ask("POST", path, content=json.dumps({"task_name": name}).encode())
            if answer.status == 403 and is_engines(answer):
                return []
            if answer.status != 200:
                raise self._unusable("the search for the task", answer)
            tasks = document(answer).get("tasks")
            if not isinstance(tasks, list):
                raise self._not_the_engine(answer)
            named = [each for each in tasks if isinstance(each, dict) and each.get("name") == name]
            found += [str(each["id"]) for each in named if each.get("id")]
            if len(tasks) < TASKS_PER_PAGE or len(found) >= MOST_IDS:
                break
        return found[:MOST_IDS]

    async def _ask(
        self, method: str, path: str, *, headers: Any = None, content: bytes | None = None
    ) -> Answer:
        """Make a request that sends no rows.

        Raises:
            UnreachableError: No answer came.
        """
        try:
            return await self._send(method, path, headers=headers, content=content)
        except TransportError as error:
            raise UnreachableError(unreachable(error, self._credentials.url)) from error

    async def _send(
        self, method: str, path: str, *, headers: Any = None, content: bytes | None = None
    ) -> Answer:
        """Make a request, and once more where it is refused and the key's file has another one.

        Raises:
            TransportError: No answer came.
        """
        answer = await self._send_once(method, path, headers, content)
        if answer.status in (401, 403) and is_engines(answer) and self._is_renewed():
            answer = await self._send_once(method, path, headers, content)
        return answer

    async def _send_once(
        self, method: str, path: str, headers: Any, content: bytes | None
    ) -> Answer:
        sent = {**(headers or {}), "Authorization": f"Bearer {self._credentials.api_key or ''}"}
        return await self._http.request(method, path, headers=sent, content=content)

    def _is_renewed(self) -> bool:
        """Take the key that its file holds by now; return whether it is another one."""
        before = self._credentials
        found = before.renewed()
        if found != before:
            self._credentials = found
        return found != before

    @property
    def _secrets(self) -> list[str]:
        """Secrets that an answer may echo, and that must not be logged."""
        return [self._credentials.api_key] if self._credentials.api_key else []

    def _not_the_engine(self, answer: Answer) -> UnreachableError:
        """Return what to raise for a 200 that the Engine has not said."""
        if answer.problem and is_json(answer):
            return UnreachableError(
                answered(f"{answer.status}, but {answer.problem}", self._place(""))
            )
        said = described_success(answer, self._secrets)
        return UnreachableError(
            f"The answer is not the Engine's ({said}): is ARTHUR_BASE_URL the address of an Arthur"
            " Engine?"
        )

    def _unusable(self, what: str, answer: Answer) -> RelayError:
        """Return what to raise for an answer that does not say what was asked."""
        problem = answered(described(answer, self._secrets), self._place(what))
        if may_pass(answer.status) or not is_engines(answer):
            return UnreachableError(
                problem,
                retry_after_seconds=self._retry_after(answer),
                throttled=answer.status == 429,
            )
        if answer.status == 401:
            return CredentialsError(f"Arthur Engine refused access (401): {REFUSED_KEY}")
        return ConfigurationError(
            f"{problem}: make sure that this is the address of an Arthur Engine (ARTHUR_BASE_URL)."
        )

    def _retry_after(self, answer: Answer) -> float | None:
        return retry_after_seconds(
            answer.headers.get("retry-after"),
            now=self._clock.utc_now(),
            maximum=self._retry_after_max,
        )

    def _place(self, what: str) -> str:
        return f"{what} at {self._credentials.url}".lstrip()


def _not_sent(batch: Batch, error: TransportError) -> Attempt:
    unheard = error.may_have_arrived
    return whole(batch, RETRY, Failure.UNAVAILABLE, unreachable(error), may_have_arrived=unheard)


def _unanswered(batch: Batch, error: RelayError) -> Attempt:
    """Return the result of a batch that was not sent, because a question about it failed."""
    match error:
        case CredentialsError():
            again = Outcome(Verdict.RETRY, "http 401", 401)
            return whole(batch, again, Failure.UNAUTHORISED, str(error))
        case UnreachableError(throttled=True):
            wait = error.retry_after_seconds
            return whole(batch, RETRY, Failure.THROTTLED, str(error), wait)
        case UnreachableError():
            wait = error.retry_after_seconds
            return whole(batch, RETRY, Failure.UNAVAILABLE, str(error), wait)
        case _:
            return whole(batch, RETRY, Failure.UNAVAILABLE, str(error))
