"""What a relay and an Engine make of each other: the same tests for a real one and the sandbox."""

from __future__ import annotations

import collections
import gzip
import uuid
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from arthur_relay import ArthurCallbackHandler, CredentialsError, ModelError, Relay, RelaySettings
from arthur_relay.credentials import Credentials
from arthur_relay.destinations.engine.client import PROBE, EngineDestination
from arthur_relay.inference import CapturedRow
from arthur_relay.relay import host_of
from arthur_relay.row import Attempt, Failure, Row, Verdict
from tests.destinations.engine.models import Documents, answer, chat
from tests.destinations.engine.spans import batch, row, row_id

from .conftest import SETTINGS
from .engine import AnswerLoser, Engine, flat, some_number

if TYPE_CHECKING:
    from collections.abc import Callable

UNKNOWN_TASK = "0b8f3c52-6d0b-4d40-9d20-111111111111"
POISON: dict[str, dict[str, Any]] = {
    "NUL, 500": {"input__value": "a\0"},
    "key with a slash, 206": {"metadata": '{"a/b": 1}'},
}


@tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"sunny in {city}"


def a_chain() -> Any:
    first: Any = RunnableLambda(lambda found: weather.invoke({"city": found[0].page_content}))
    return Documents() | first | chat(answer("It is sunny."))


def some_rows(task: str, count: int, **attributes: Any) -> list[Row]:
    trace = uuid.uuid4().hex
    return [row(some_number(), task=task, trace=trace, **attributes) for _ in range(count)]


def submit(relay: Relay, rows: list[Row]) -> None:
    for each in rows:
        host_of(relay).submit(CapturedRow(each))


def deliver(engine: Engine, *rows: Row, key: str | None = None) -> Attempt:
    settings = RelaySettings(**SETTINGS)
    credentials = Credentials(engine.url, api_key=engine.key if key is None else key)

    async def run() -> Attempt:
        async with EngineDestination.of(credentials, settings) as destination:
            return await destination.deliver(batch(*rows))

    return anyio.run(run)


def test_a_whole_trace(engine: Engine, make_handler: Callable[..., ArthurCallbackHandler]) -> None:
    handler = make_handler()
    run_id = uuid.uuid4()
    names = {"session_id": f"s-{run_id}", "user_id": f"u-{run_id}"}
    a_chain().invoke("Ulm?", {"callbacks": [handler], "run_id": run_id, "metadata": names})
    result = handler.flush(30)
    assert (result.delivered, result.rejected, result.pending) == (5, 0, 0)
    trace = engine.trace(run_id.hex)
    (root,) = trace["root_spans"]
    assert root["span_id"] == run_id.hex[16:]
    kinds = collections.Counter(each["span_kind"] for each in flat([root]))
    assert kinds == {"CHAIN": 2, "RETRIEVER": 1, "TOOL": 1, "LLM": 1}
    assert "Ulm?" in trace["input_content"]
    assert "It is sunny." in trace["output_content"]
    spans = engine.spans(each["span_id"] for each in flat([root]))
    assert len(spans) == 5
    assert {each["task_id"] for each in spans} == {engine.task_id}
    assert {each["session_id"] for each in spans} == {names["session_id"]}
    assert {each["user_id"] for each in spans} == {names["user_id"]}
    (model,) = [each for each in spans if each["span_kind"] == "LLM"]
    assert (model["prompt_token_count"], model["completion_token_count"]) == (5, 3)


def test_a_run_that_fails(
    engine: Engine, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler()
    run_id = uuid.uuid4()

    def fail(text: str) -> str:
        raise KeyError(text)

    with pytest.raises(KeyError):
        RunnableLambda(fail).invoke("in", {"callbacks": [handler], "run_id": run_id})
    handler.flush(30)
    (span,) = engine.spans([run_id.hex[16:]])
    assert span["status_code"] == "Error"


def test_feedback_replaces_what_was_said_before(
    engine: Engine, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler()
    run_id = uuid.uuid4()
    chat(answer("Good.")).invoke("in", {"callbacks": [handler], "run_id": run_id})
    handler.log_feedback(run_id, True, "helpful")
    assert handler.flush(30).rejected == 0
    assert engine.judgements(run_id.hex) == [(1, "helpful")]
    handler.log_feedback(run_id, False)
    assert handler.flush(30).rejected == 0
    assert engine.judgements(run_id.hex) == [(0, None)]


def test_what_an_engine_chokes_on_is_made_harmless(
    engine: Engine, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler()
    run_id = uuid.uuid4()
    value = {"path/of": {"a/b": "\0"}, "nan": float("nan"), "half": "\ud800", "huge": 2**80}
    step: Any = RunnableLambda(lambda given: given)
    config: Any = {"callbacks": [handler], "run_id": run_id, "metadata": {"x/y": "\0"}}
    step.invoke(value, config)
    result = handler.flush(30)
    assert (result.delivered, result.rejected) == (1, 0)
    assert len(engine.spans([run_id.hex[16:]])) == 1


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_arrives_in_a_reduced_form_once(
    poison: dict[str, Any], engine: Engine, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(flush_interval_seconds=3600.0, batch_size=10)
    good, bad = some_rows(engine.task_id, 9), some_rows(engine.task_id, 1, **poison)
    submit(relay, [*good[:4], *bad, *good[4:]])
    result = relay.flush(60)
    assert (result.delivered, result.rejected, result.pending) == (10, 0, 0)
    wanted = {each.id for each in (*good, *bad)}
    assert engine.stored(wanted) == collections.Counter(wanted), "each of them once"


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON)
def test_poison_that_was_reduced_before_costs_only_itself(
    poison: dict[str, Any], engine: Engine, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(flush_interval_seconds=3600.0, batch_size=10)
    good = some_rows(engine.task_id, 9)
    bad = some_rows(engine.task_id, 1, **poison, arthur_relay__dropped="it is reduced already")
    submit(relay, [*good[:4], *bad, *good[4:]])
    result = relay.flush(60)
    assert (result.delivered, result.rejected, result.pending) == (9, 1, 0)
    wanted = {each.id for each in good}
    assert engine.stored(wanted | {bad[0].id}) == collections.Counter(wanted), "each of them once"


def test_a_span_whose_answer_was_lost_is_not_stored_twice(
    engine: Engine, make_relay: Callable[..., Relay]
) -> None:
    rows = some_rows(engine.task_id, 3)
    with AnswerLoser(engine) as loser:
        relay = make_relay(url=loser.url, flush_interval_seconds=3600.0, batch_size=3)
        submit(relay, rows)
        result = relay.flush(60)
        assert (result.delivered, result.pending) == (3, 0)
        assert (loser.lost, loser.posts) == (1, 1)
        assert loser.questions
    wanted = {each.id for each in rows}
    assert engine.stored(wanted) == collections.Counter(wanted)


def test_an_unknown_task(
    engine: Engine, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    with pytest.raises(ModelError, match="no task with id"):
        make_handler(task_id=UNKNOWN_TASK)
    attempt = deliver(engine, *some_rows(UNKNOWN_TASK, 2))
    assert {outcome.verdict for outcome in attempt.outcomes} == {Verdict.REJECTED}
    assert {outcome.status for outcome in attempt.outcomes} == {404}


def test_a_wrong_key(engine: Engine, make_handler: Callable[..., ArthurCallbackHandler]) -> None:
    with pytest.raises(CredentialsError, match="ARTHUR_API_KEY"):
        make_handler(api_key="wrong")
    attempt = deliver(engine, *some_rows(engine.task_id, 1), key="wrong")
    assert attempt.failure is Failure.UNAUTHORISED


def test_the_probe_stores_nothing(engine: Engine) -> None:
    found = engine.post(PROBE)
    assert found.status_code == 200
    assert found.json()["accepted_spans"] == 0


def test_what_an_engine_answers(engine: Engine) -> None:
    task = engine.task_id
    (good,) = some_rows(task, 1)
    (slash,) = some_rows(task, 1, metadata='{"a/b": 1}')
    (nul,) = some_rows(task, 1, input__value="a\0")
    (timeless,) = some_rows(task, 1, start=0, end=0)
    (lost,) = some_rows(UNKNOWN_TASK, 1)
    assert engine.post(gzip.compress(good.body), Content_Encoding="gzip").status_code == 400
    assert engine.post(b'{"resourceSpans": []}', Content_Type="application/json").status_code == 400
    assert engine.post(slash.body).status_code == 422
    assert engine.post(nul.body).status_code == 500
    assert engine.post(timeless.body).status_code == 500
    assert engine.post(lost.body + good.body).status_code == 500, "one bad resource among good ones"
    assert not engine.stored([each.id for each in (good, slash, nul, timeless)])
    assert engine.post(good.body + slash.body).status_code == 206
    assert engine.post(good.body).status_code == 200
    assert engine.stored([good.id, slash.id]) == {good.id: 2}, "a span sent twice is there twice"


def test_ids_of_rows_are_those_that_an_engine_shows(engine: Engine) -> None:
    number, trace = some_number(), uuid.uuid4().hex
    assert engine.post(row(number, task=engine.task_id, trace=trace).body).status_code == 200
    assert engine.stored([row_id(number, trace)]) == {row_id(number, trace): 1}
