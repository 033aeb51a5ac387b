"""Every answer of the Engine, and what it means for rows and for a start."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from arthur_relay import RelaySettings
from arthur_relay.credentials import credentials_from_environment
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.errors import (
    ConfigurationError,
    CredentialsError,
    ModelError,
    UnreachableError,
)
from arthur_relay.row import DELIVERED as TAKEN
from arthur_relay.row import Attempt, Batch, Failure, History, Row, Verdict
from arthur_relay.sandbox import ArthurSandbox

from .conftest import CANARY, KEY, TASK, destination
from .spans import batch, feedback, row, row_id

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = pytest.mark.one_python

DELIVERED, REJECTED = Verdict.DELIVERED, Verdict.REJECTED
RETRY, NOT_YET = Verdict.RETRY, Verdict.NOT_YET
WRITE_KEY = "sandbox-write-key"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SLASH: dict[str, Any] = {"metadata": '{"a/b": 1}'}
NUL: dict[str, Any] = {"input__value": f"{CANARY}\0"}


def used(sandbox: ArthurSandbox, use: Callable[[Any], Awaitable[Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with destination(sandbox, **options) as client:
            return await use(client)

    return anyio.run(run)


def deliver(sandbox: ArthurSandbox, *rows: Row, **options: Any) -> Attempt:
    attempt = used(sandbox, lambda client: client.deliver(batch(*rows)), **options)
    assert isinstance(attempt, Attempt)
    assert len(attempt.outcomes) == len(rows)
    for text in (attempt.reason, *[outcome.reason for outcome in attempt.outcomes]):
        assert CANARY not in text
        assert KEY not in text
    return attempt


def verdicts(attempt: Attempt) -> list[Verdict]:
    return [outcome.verdict for outcome in attempt.outcomes]


def fetch(sandbox: ArthurSandbox, task: str, **options: Any) -> Any:
    return used(sandbox, lambda client: client.fetch_schema(task), **options)


def made(number: int = 1, *, attempts: int = 0, **options: Any) -> Row:
    found = row(number, task=TASK, **options)
    found.history = History(attempts=attempts)
    return found


def paths(sandbox: ArthurSandbox) -> list[tuple[str, str]]:
    return [(request.method, request.path) for request in sandbox.requests]


def test_spans_are_stored_as_they_were_sent(sandbox: ArthurSandbox) -> None:
    rows = [made(1, input__value="hello"), made(2, parent=1, llm__token_count__prompt=7)]
    assert deliver(sandbox, *rows) == Attempt((TAKEN, TAKEN))
    (request,) = sandbox.requests
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert "content-encoding" not in request.headers
    assert [each["task_id"] for each in sandbox.spans] == [TASK, TASK]
    (trace,) = sandbox.traces
    assert trace["input_content"] == "hello"
    assert trace["prompt_token_count"] == 7
    (root,) = trace["root_spans"]
    assert root["span_id"] == row_id(1).partition("-")[2]
    assert [child["span_id"] for child in root["children"]] == [row_id(2).partition("-")[2]]


def test_of_a_206_the_engine_is_asked_which_are_stored(sandbox: ArthurSandbox) -> None:
    rows = [made(1), made(2, **SLASH), made(3), made(4, llm__token_count__total="many")]
    attempt = deliver(sandbox, *rows)
    assert attempt.failure is None
    assert verdicts(attempt) == [DELIVERED, REJECTED, DELIVERED, REJECTED]
    assert paths(sandbox)[-1] == ("GET", "/api/v1/traces/spans")


def test_of_a_206_with_more_spans_than_one_question_takes(sandbox: ArthurSandbox) -> None:
    rows = [made(n, **(SLASH if n % 40 == 0 else {})) for n in range(1, 121)]
    attempt = deliver(sandbox, *rows)
    assert [n + 1 for n, each in enumerate(verdicts(attempt)) if each is REJECTED] == [40, 80, 120]
    assert paths(sandbox).count(("GET", "/api/v1/traces/spans")) == 3


def test_of_a_206_to_a_key_that_may_not_read_nobody_knows_which(sandbox: ArthurSandbox) -> None:
    attempt = deliver(sandbox, made(1), made(2, **SLASH), key=WRITE_KEY)
    assert verdicts(attempt) == [REJECTED, REJECTED], "nothing is lost in the dead letters"
    assert attempt.failure is None, "and nothing is sent twice"
    assert "may not read" in attempt.reason


def test_a_question_without_an_answer_is_asked_again(sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(503, routes=["spans"])
    attempt = deliver(sandbox, made(1), made(2, **SLASH))
    assert verdicts(attempt) == [RETRY, RETRY]
    assert (attempt.failure, attempt.may_have_arrived) == (Failure.UNAVAILABLE, True)


def test_a_422_rejects_each(sandbox: ArthurSandbox) -> None:
    attempt = deliver(sandbox, made(1, **SLASH), made(2, **SLASH))
    assert verdicts(attempt) == [REJECTED, REJECTED]
    assert attempt.failure is None, "each was looked at: there is nothing to search for"


def test_a_422_without_counts_is_for_the_request(sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(422)
    attempt = deliver(sandbox, made(1), made(2))
    assert (attempt.failure, attempt.outcomes[0].status) == (Failure.REFUSED, 422)


def test_a_body_that_is_no_protobuf_is_refused(sandbox: ArthurSandbox) -> None:
    invalid_text = made(1).body.replace(b"call", b"ca\xff\xff")
    attempt = deliver(sandbox, Row(row_id(1), TASK, invalid_text), made(2))
    assert (attempt.failure, attempt.outcomes[0].status) == (Failure.REFUSED, 400)


@pytest.mark.parametrize(
    ("key", "failure", "says"),
    [
        ("wrong", Failure.UNAUTHORISED, "ARTHUR_API_KEY"),
        ("sandbox-read-key", Failure.FORBIDDEN, "may not write"),
        ("sandbox-admin-key", Failure.FORBIDDEN, "TASK-ADMIN"),
    ],
)
def test_keys(key: str, failure: Failure, says: str, sandbox: ArthurSandbox) -> None:
    attempt = deliver(sandbox, made(1), key=key)
    assert (attempt.failure, verdicts(attempt)) == (failure, [RETRY])
    assert says in attempt.reason
    with pytest.raises(CredentialsError, match=says):
        fetch(sandbox, TASK, key=key)


def test_413(sandbox: ArthurSandbox) -> None:
    with ArthurSandbox(task_id=TASK, max_body_bytes=200) as small:
        attempt = deliver(small, made(1), made(2))
    assert (attempt.failure, verdicts(attempt)) == (Failure.TOO_LARGE, [REJECTED, REJECTED])


POISON: dict[str, dict[str, Any]] = {
    "a NUL": NUL,
    "a NUL in JSON": {"metadata": '{"a": "\\u0000"}'},
    "NaN": {"llm__cost__total": float("nan")},
    "infinity in JSON": {"metadata": '{"a": Infinity}'},
    "a lone surrogate in JSON": {"metadata": '{"a": "\\ud800"}'},
    "a count beyond 32 bits": {"llm__token_count__total": 2**31},
    "no times": {"start": 0, "end": 0},
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_a_500_with_a_good_probe_is_for_what_was_sent(
    poison: dict[str, Any], sandbox: ArthurSandbox
) -> None:
    attempt = deliver(sandbox, made(1, **poison), made(2))
    assert (attempt.failure, attempt.outcomes[0].status) == (Failure.REFUSED, 500)
    assert not attempt.may_have_arrived, "a request is one transaction"
    assert sandbox.spans == []
    assert sandbox.requests[1].body == b"\x0a\x00"


def test_a_single_row_is_refused_only_after_a_second_500(sandbox: ArthurSandbox) -> None:
    first = deliver(sandbox, made(1, **NUL))
    assert (first.failure, verdicts(first)) == (Failure.UNAVAILABLE, [RETRY])
    second = deliver(sandbox, made(1, attempts=1, **NUL))
    assert (second.failure, verdicts(second)) == (Failure.REFUSED, [REJECTED])


def test_a_500_with_a_bad_probe_is_for_the_engine(sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(500, times=2)
    attempt = deliver(sandbox, made(1), made(2))
    assert (attempt.failure, verdicts(attempt)) == (Failure.UNAVAILABLE, [RETRY, RETRY])


def test_a_500_for_an_unknown_task_refuses_all_at_once(sandbox: ArthurSandbox) -> None:
    other = TASK.replace("b0d9", "ffff")
    attempt = deliver(sandbox, row(1, task=other), row(2, task=other))
    assert (attempt.failure, attempt.outcomes[0].status) == (Failure.REFUSED, 404)
    attempt = deliver(sandbox, row(1, task=other), row(2, task=other), key=WRITE_KEY)
    assert attempt.outcomes[0].status == 500, "who may not read halves"


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 307])
def test_what_may_pass(status: int, sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(status, retry_after=3)
    attempt = deliver(sandbox, made(1))
    wanted = Failure.THROTTLED if status == 429 else Failure.UNAVAILABLE
    assert (attempt.failure, verdicts(attempt)) == (wanted, [RETRY])
    assert attempt.may_have_arrived == (status >= 500)
    assert attempt.retry_after_seconds == 3


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404, 422, 500])
def test_a_page_of_a_proxy_is_not_the_engines(status: int, sandbox: ArthurSandbox) -> None:
    sandbox.faults.not_json(status=status)
    attempt = deliver(sandbox, made(1), made(2))
    assert (attempt.failure, verdicts(attempt)) == (Failure.UNAVAILABLE, [RETRY, RETRY])
    assert attempt.may_have_arrived == (status in (200, 500))


def test_a_404_means_that_it_is_not_an_engine_or_not_yet(sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(404)
    attempt = deliver(sandbox, made(1))
    assert (attempt.failure, verdicts(attempt)) == (Failure.UNAVAILABLE, [RETRY])


@pytest.mark.parametrize("lost", ["cut", "cut_midbody", "wrong counts"])
def test_a_lost_answer(lost: str, sandbox: ArthurSandbox) -> None:
    match lost:
        case "cut":
            sandbox.faults.cut(store=True)
        case "cut_midbody":
            sandbox.faults.cut_midbody()
        case _:
            sandbox.faults.wrong_counts(-1)
    attempt = deliver(sandbox, made(1), made(2))
    assert (attempt.may_have_arrived, verdicts(attempt)) == (True, [RETRY, RETRY])


def test_nobody_there(sandbox: ArthurSandbox) -> None:
    sandbox.go_away()
    attempt = deliver(sandbox, made(1))
    assert (attempt.failure, attempt.may_have_arrived) == (Failure.UNAVAILABLE, False)
    with pytest.raises(UnreachableError):
        fetch(sandbox, TASK)


def stored(sandbox: ArthurSandbox, *rows: Row, **options: Any) -> Any:
    return used(sandbox, lambda client: client.find_stored(batch(*rows)), **options)


@pytest.mark.parametrize("task", [TASK, "by name"])
def test_which_are_stored(task: str, sandbox: ArthurSandbox) -> None:
    there = [row(n, task=task) for n in range(1, 71)]
    elsewhere = row(71, task=task, trace=OTHER_TRACE)
    deliver(sandbox, *there, elsewhere)
    deliver(sandbox, *there[:3])
    answer = stored(sandbox, *there, row(71, task=task), row(72, task=task))
    assert verdicts(answer) == [DELIVERED] * 70 + [RETRY] * 2, "an id is of a trace and a span"
    assert len(sandbox.spans) == 74, "sent twice is stored twice"


def test_which_are_stored_is_not_said_to_every_key(sandbox: ArthurSandbox) -> None:
    deliver(sandbox, made(1))
    assert stored(sandbox, made(1), key=WRITE_KEY) is None
    sandbox.faults.status(503, routes=["spans"])
    assert stored(sandbox, made(1)).failure is Failure.UNAVAILABLE
    assert stored(sandbox, row(1, task="a name that no task has")) is None


GOOD = b'{"annotation_score": 1, "annotation_description": "yes"}'


def test_feedback(sandbox: ArthurSandbox) -> None:
    deliver(sandbox, made(1))
    attempt = deliver(
        sandbox,
        feedback(1, task=TASK, body=GOOD),
        feedback(2, task=TASK, trace=OTHER_TRACE, body=GOOD),
        feedback(1, task=TASK, body=b'{"annotation_score": 7}'),
    )
    assert attempt.failure is None
    assert verdicts(attempt) == [DELIVERED, NOT_YET, REJECTED]
    (annotation,) = sandbox.traces[0]["annotations"]
    assert (annotation["annotation_score"], annotation["annotation_description"]) == (1, "yes")


def test_feedback_replaces_what_was_sent_before(sandbox: ArthurSandbox) -> None:
    deliver(sandbox, made(1))
    rows = [
        feedback(1, task=TASK, body=json.dumps({"annotation_score": score}).encode())
        for score in (1, 0)
    ]
    assert verdicts(deliver(sandbox, *rows)) == [DELIVERED, DELIVERED]
    (annotation,) = sandbox.traces[0]["annotations"]
    assert annotation["annotation_score"] == 0


@pytest.mark.parametrize(
    ("set_fault", "failure"),
    [
        (lambda faults: faults.status(503, routes=["annotations"]), Failure.UNAVAILABLE),
        (lambda faults: faults.status(429, routes=["annotations"]), Failure.THROTTLED),
        (lambda faults: faults.status(403, routes=["annotations"]), Failure.FORBIDDEN),
        (lambda faults: faults.not_json(status=404, routes=["annotations"]), Failure.UNAVAILABLE),
        (lambda faults: faults.not_json(status=200, routes=["annotations"]), Failure.UNAVAILABLE),
        (lambda faults: faults.cut(routes=["annotations"]), Failure.UNAVAILABLE),
    ],
)
def test_feedback_that_fails_keeps_what_was_taken(
    set_fault: Callable[[Any], None], failure: Failure, sandbox: ArthurSandbox
) -> None:
    deliver(sandbox, made(1))

    async def use(client: Any) -> Attempt:
        await client.deliver(batch(feedback(1, task=TASK, body=GOOD)))
        set_fault(sandbox.faults)
        rows = [feedback(1, task=TASK, body=GOOD) for _ in range(2)]
        found = await client.deliver(Batch(TASK, tuple(rows)))
        assert isinstance(found, Attempt)
        return found

    attempt = used(sandbox, use)
    assert (attempt.failure, verdicts(attempt)) == (failure, [RETRY, RETRY])


def test_a_task_by_its_id(sandbox: ArthurSandbox) -> None:
    task = fetch(sandbox, TASK.upper())
    assert (task.model_id, task.task_id, task.service_name) == (TASK.upper(), TASK, None)
    assert sandbox.spans == [], "the question stores nothing"


def test_a_task_that_the_key_may_not_read_is_taken_as_it_is(sandbox: ArthurSandbox) -> None:
    assert fetch(sandbox, TASK, key=WRITE_KEY).task_id == TASK
    assert fetch(sandbox, "bot", key=WRITE_KEY).service_name == "bot"


def test_an_unknown_task(sandbox: ArthurSandbox) -> None:
    with pytest.raises(ModelError, match="no task with id"):
        fetch(sandbox, TASK.replace("b0d9", "ffff"))


def test_a_task_by_its_name(sandbox: ArthurSandbox) -> None:
    sandbox.add_task("my bot 2")  # the Engine's search is by a part of the name
    assert fetch(sandbox, "my bot").service_name == "my bot"
    found = sandbox.add_task("my bot")
    task = fetch(sandbox, "my bot")
    assert (task.task_id, task.service_name) == (found, None)
    other = sandbox.add_task("my bot")
    with pytest.raises(ModelError, match="several tasks") as caught:
        fetch(sandbox, "my bot")
    assert found in str(caught.value)
    assert other in str(caught.value)


def test_a_task_among_very_many_of_like_names(sandbox: ArthurSandbox) -> None:
    for number in range(300):
        sandbox.add_task(f"bot {number}")
    found = sandbox.add_task("bot")
    assert fetch(sandbox, "bot").task_id == found


@pytest.mark.parametrize("status", [200, 404, 403])
def test_a_start_at_another_address(status: int, sandbox: ArthurSandbox) -> None:
    sandbox.faults.not_json(status=status)
    with pytest.raises(UnreachableError):
        fetch(sandbox, TASK)


def test_a_start_at_something_like_the_engine(sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(404)
    with pytest.raises(ConfigurationError, match="ARTHUR_BASE_URL"):
        fetch(sandbox, TASK)


def test_a_key_that_its_file_holds_by_now_is_taken(sandbox: ArthurSandbox, tmp_path: Any) -> None:
    file = tmp_path / "key"
    file.write_text("old-key\n")
    environment = {"ARTHUR_ENDPOINT_URL": sandbox.url, "ARTHUR_API_KEY_FILE": str(file)}
    credentials = credentials_from_environment(allow_insecure=False, environment=environment)

    async def run() -> Attempt:
        async with EngineDestination.of(credentials, RelaySettings()) as client:
            assert (await client.deliver(batch(made(1)))).failure is Failure.UNAUTHORISED
            file.write_text(f"{KEY}\n")
            return await client.deliver(batch(made(1)))

    assert verdicts(anyio.run(run)) == [DELIVERED]
