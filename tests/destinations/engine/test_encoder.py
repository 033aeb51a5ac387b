"""Runs, inferences and feedback as Arthur Engine's rows."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from arthur_relay import Inference
from arthur_relay.destinations.engine.encoder import EngineRowFormat, SpanEncoder
from arthur_relay.destinations.engine.hiding import Hiding
from arthur_relay.destinations.engine.task import Task
from arthur_relay.inference import (
    CapturedGroundTruth,
    CapturedInference,
    ObjectSnapshot,
    Run,
    RunKind,
    RunOutcome,
    TraceContext,
)
from arthur_relay.row import Row, RowKind
from tests.omissions import Omitted

from .models import answer
from .stage import ERROR, OK, TASK, Span, span_of


def encoder(**more: Any) -> tuple[SpanEncoder, list[str]]:
    omitted = Omitted()
    return SpanEncoder(Task.named(TASK), omitted, **more), omitted


def run(kind: RunKind = RunKind.CHAIN, **fields: Any) -> Run:
    found = Run(0, uuid4(), TASK, None, 0, 0.0)
    found.kind = kind
    found.name = "step"
    found.began_at, found.duration, found.ended_at = 1_000.0, 0.5, 2_000.0
    for name, value in fields.items():
        setattr(found, name, value)
    return found


def encoded(found: Run, **more: Any) -> Span:
    (row,) = encoder(**more)[0].encode(found, 7)
    assert row.epoch == 7
    assert row.kind is RowKind.INFERENCE
    assert row.model_id == TASK
    return span_of(row)


def test_a_run_has_its_place_and_its_times() -> None:
    place = TraceContext(b"t" * 16, b"p" * 8, is_root=False)
    found = run(trace=place)
    span = encoded(found)
    assert span.trace_id == (b"t" * 16).hex()
    assert span.parent_id == (b"p" * 8).hex()
    assert span.span_id == found.run_id.hex[16:]
    assert span.row_id == f"{span.trace_id}-{span.span_id}"
    assert (span.start, span.end) == (1_000_000_000_000, 1_000_500_000_000)
    assert (span.status, span.message) == (OK, "")


@pytest.mark.parametrize(
    "times",
    [
        {"began_at": 0.0, "duration": None, "ended_at": 0.0},
        {"began_at": 0.0},
        {"duration": None},
        {"duration": -1.0},
        {"began_at": 5.0, "duration": None, "ended_at": 1.0},
    ],
)
def test_there_are_always_times(times: dict[str, Any]) -> None:
    span = encoded(run(**times))
    assert 0 < span.start <= span.end


def test_an_id_that_is_used_twice_at_once_makes_two_spans() -> None:
    first, second = run(), run(repeat=1)
    second.run_id = first.run_id = UUID(int=2**128 - 1)
    assert encoded(first).span_id != encoded(second).span_id


@pytest.mark.parametrize(
    ("value", "text", "mime"),
    [
        ({"input": "hello"}, "hello", None),
        ({"question": "hello"}, "hello", None),
        ({"input": '{"a": 1}'}, '{"a": 1}', "application/json"),
        ({"input": '{"a/b": 1}'}, '{"a/b": 1}', None),
        ({"input": '{"a": "\\u0000"}'}, '{"a": "\\u0000"}', None),
        ({"input": '{"a": NaN}'}, '{"a": NaN}', None),
        ({"input": "{no json}"}, "{no json}", None),
        ({"input": ""}, "", None),
        ({"input": 5}, "5", None),
        ({"input": None}, "null", None),
        ({"input": [1, 2]}, "[1,2]", "application/json"),
        ({"a": 1, "b": "x\x00y"}, '{"a":1,"b":"xy"}', "application/json"),
        ({"a": float("nan"), "b": 1}, '{"a":"nan","b":1}', "application/json"),
        ({"a": "\ud800", "b": 1}, '{"a":"�","b":1}', "application/json"),
        ({"a": 2**70, "b": 1}, f'{{"a":"{2**70}","b":1}}', "application/json"),
        ({"files": {"/a/b.py": "x"}, "b": 1}, '{"files":{"/a/b.py":"x"},"b":1}', None),
        ({"a": {"b.c": 1}, "b": 1}, '{"a":{"b.c":1},"b":1}', None),
        ({}, None, None),
        (None, None, None),
    ],
)
def test_inputs_and_outputs(value: Any, text: str | None, mime: str | None) -> None:
    span = encoded(run(inputs=value, outputs=value))
    for place in ("input", "output"):
        assert span.attributes.get(f"{place}.value") == text
        assert span.attributes.get(f"{place}.mime_type") == mime


def test_what_is_sent_in_another_form_is_counted() -> None:
    makes, omitted = encoder()
    makes.encode(run(inputs={"a": {"/": 1}, "b": float("inf")}), 0)
    assert omitted == ["input.value", "input.value"]


def test_deep_values_end() -> None:
    deep: Any = "leaf"
    for _ in range(5_000):
        deep = [deep]
    span = encoded(run(inputs={"a": deep, "b": 1}))
    assert "left out by arthur-relay" in span.attributes["input.value"]
    assert span.attributes["input.mime_type"] == "application/json"
    json.loads(span.attributes["input.value"])


def test_huge_values_are_cut_and_stay_json() -> None:
    makes, omitted = encoder()
    (row,) = makes.encode(run(inputs={"list": [1] * 1_000_000, "text": "x" * 3_000_000}), 0)
    found = json.loads(span_of(row).attributes["input.value"])
    assert len(found["list"]) < 25_000
    assert "cut by arthur-relay" in found["list"][-1]
    assert "input.value" in omitted


class Odd:
    """A live object that raises whenever it is looked at."""

    def __str__(self) -> str:
        raise RuntimeError("don't")

    def model_dump(self) -> Any:
        raise RuntimeError("don't")


def test_objects_that_raise_cost_themselves_only() -> None:
    span = encoded(run(inputs={"odd": Odd(), "b": 1}))
    assert span.json("input.value") == {"odd": "<Odd>", "b": 1}


METADATA = {
    "session_id": "s-1",
    "user_id": "u-1",
    "ls_provider": "openai",
    "paths": {"/a": 1, "b": {"c.d": 2}},
    "x/y": float("nan"),
}


def test_metadata_stays_json_that_the_engine_takes() -> None:
    makes, omitted = encoder()
    (row,) = makes.encode(run(metadata=METADATA), 0)
    span = span_of(row)
    found = span.json("metadata")
    assert json.loads(found["paths"]) == {"/a": 1, "b": {"c.d": 2}}
    assert json.loads(found["unparsed"]) == {"x/y": "nan"}
    assert "x/y" not in found
    assert "metadata" in omitted
    assert span.attributes["session.id"] == "s-1"
    assert span.attributes["user.id"] == "u-1"


@pytest.mark.parametrize(
    ("metadata", "session"),
    [
        ({"thread_id": "t"}, "t"),
        ({"thread_id": "t", "conversation_id": "c"}, "c"),
        ({"thread_id": "t", "session_id": "s"}, "s"),
        ({"thread_id": 7}, "7"),
        ({"other": "x"}, None),
    ],
)
def test_the_session(metadata: dict[str, Any], session: str | None) -> None:
    assert encoded(run(metadata=metadata)).attributes.get("session.id") == session


def test_tags_without_those_of_langchain() -> None:
    span = encoded(run(tags=["mine", "seq:step:1", "graph:step:2", "langsmith:hidden"]))
    assert span.attributes["tag.tags"] == ["mine"]
    assert "tag.tags" not in encoded(run(tags=["seq:step:1"])).attributes


def llm(**fields: Any) -> Run:
    message = answer("It is sunny.")
    generation = {
        "text": "It is sunny.",
        "generation_info": None,
        "type": "ChatGeneration",
        "message": ObjectSnapshot(type(message), dict(message.__dict__)),
    }
    outputs = {"generations": [[ObjectSnapshot(object, generation)]], "llm_output": None}
    return run(RunKind.LLM, **{"outputs": outputs, **fields})


def test_counts() -> None:
    span = encoded(llm())
    assert {
        name: value for name, value in span.attributes.items() if name.startswith("llm.token_count")
    } == {
        "llm.token_count.prompt": 5,
        "llm.token_count.completion": 3,
        "llm.token_count.total": 8,
        "llm.token_count.prompt_details.cache_read": 2,
        "llm.token_count.completion_details.reasoning": 1,
    }


@pytest.mark.parametrize("count", [2**31, 2**70, -1])
def test_a_count_that_the_engine_can_not_store_is_left_out(count: int) -> None:
    found = llm()
    fields = found.outputs["generations"][0][0].fields["message"].fields
    fields["usage_metadata"] = {"input_tokens": count, "output_tokens": 3, "total_tokens": 8}
    makes, omitted = encoder()
    (row,) = makes.encode(found, 0)
    assert "llm.token_count.prompt" not in span_of(row).attributes
    assert span_of(row).attributes["llm.token_count.completion"] == 3
    assert omitted == ["llm.token_count.prompt"]


def test_counts_of_a_provider_that_langchain_has_not_read() -> None:
    found = llm()
    fields = found.outputs["generations"][0][0].fields["message"].fields
    fields["usage_metadata"] = None
    fields["response_metadata"] = {"usage": {"prompt_eval_count": 4, "eval_count": 2}}
    span = encoded(found)
    assert span.attributes["llm.token_count.prompt"] == 4
    assert span.attributes["llm.token_count.total"] == 6


def test_settings_of_a_call_without_its_key() -> None:
    params = {"model": "m", "temperature": 0.5, "api_key": "secret", "extra_headers": {"k": "v"}}
    span = encoded(llm(parameters={**params, "tools": [{"type": "function", "name": "f"}]}))
    assert span.json("llm.invocation_parameters") == {
        "model": "m",
        "temperature": 0.5,
        "tools": [{"type": "function", "name": "f"}],
    }
    assert json.loads(span.attributes["llm.tools.0.tool.json_schema"])["name"] == "f"
    assert "secret" not in span.texts()


def test_a_tool_that_needs_care_beside_one_that_does_not() -> None:
    good, odd = {"name": "f", "n": 1}, {"name": "g", "examples": [float("nan"), "\x00"]}
    made, omitted = encoder()
    (row,) = made.encode(llm(parameters={"model": "m", "tools": [good, odd]}), 0)
    span = span_of(row)
    cleaned = {"name": "g", "examples": ["nan", ""]}
    assert span.json("llm.tools.0.tool.json_schema") == good
    assert span.json("llm.tools.1.tool.json_schema") == cleaned
    assert span.json("llm.invocation_parameters") == {"model": "m", "tools": [good, cleaned]}
    assert omitted == ["llm.tools", "llm.invocation_parameters"]


def test_arguments_that_the_engine_would_reject() -> None:
    message = answer("", tool_calls=[{"name": "write", "args": {"/etc": "x"}, "id": "1"}])
    found = llm()
    found.outputs["generations"][0][0].fields["message"] = ObjectSnapshot(
        type(message), dict(message.__dict__)
    )
    span = encoded(found)
    name = "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments"
    assert json.loads(span.json(name)["unparsed"]) == {"/etc": "x"}


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ('{"a": 1}', '{"a":1}'),
        ('{"a": ', '{"a": '),
        ('{"a": NaN}', '"{\\"a\\": NaN}"'),
        ('{"a": "\\ud800"}', '"{\\"a\\": \\"\\\\ud800\\"}"'),
        ('{"a": "\\u0000b"}', '{"a":"b"}'),
    ],
)
def test_arguments_as_a_model_wrote_them(written: str, sent: str) -> None:
    calls = [{"id": "1", "function": {"name": "f", "arguments": written}}]
    message = answer("", additional_kwargs={"tool_calls": calls})
    found = llm()
    found.outputs["generations"][0][0].fields["message"] = ObjectSnapshot(
        type(message), dict(message.__dict__)
    )
    name = "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments"
    assert encoded(found).attributes[name] == sent


def test_the_kind_is_an_agents_by_its_name() -> None:
    assert encoded(run(name="My Agent")).kind == "AGENT"
    assert encoded(run()).kind == "CHAIN"
    assert encoded(run(RunKind.EMBEDDING)).kind == "EMBEDDING"
    assert encoded(run(name=None)).name == "Unnamed"


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (RunOutcome.ERROR, "error"),
        (RunOutcome.CANCELLED, "cancelled"),
        (RunOutcome.DISCONNECTED, "disconnected: the consumer of the stream went away"),
        (RunOutcome.ABANDONED, "abandoned: no end event came"),
    ],
)
def test_how_a_run_ended_is_its_status(outcome: RunOutcome, message: str) -> None:
    span = encoded(run(outcome=outcome))
    assert (span.status, span.message) == (ERROR, message)


def test_a_stream_that_was_closed_after_its_end_is_well() -> None:
    assert encoded(llm(outcome=RunOutcome.DISCONNECTED)).status == OK
    assert encoded(llm(outcome=RunOutcome.DISCONNECTED, outputs=None)).status == ERROR


def test_an_inference_of_code() -> None:
    moment = datetime(2026, 11, 28, tzinfo=UTC)
    inference = Inference(input_text="in", output_text="out", timestamp=moment, duration=2.0)
    captured = CapturedInference(inference, "my-id", TASK, 5.0)
    captured.attributes = {"user_id": "u-1", "model_name": "gpt-5", "prompt_tokens": 4}
    (row,) = encoder()[0].encode(captured, 0)
    span = span_of(row)
    assert span.is_root
    assert span.kind == "LLM"
    assert span.attributes["input.value"] == "in"
    assert span.attributes["output.value"] == "out"
    assert span.attributes["llm.input_messages.0.message.role"] == "user"
    assert span.attributes["llm.input_messages.0.message.content"] == "in"
    assert span.attributes["llm.output_messages.0.message.content"] == "out"
    assert span.attributes["llm.model_name"] == "gpt-5"
    assert span.attributes["llm.token_count.prompt"] == 4
    assert span.attributes["user.id"] == "u-1"
    assert span.end == int(moment.timestamp()) * 10**9
    assert span.start == int((moment - timedelta(seconds=2)).timestamp()) * 10**9
    (again,) = encoder()[0].encode(CapturedInference(inference, "my-id", TASK, 6.0), 0)
    assert again.id == row.id


def test_an_inference_without_a_time_has_that_of_its_capture() -> None:
    inference = Inference(input_text="in", output_text="out")
    captured = CapturedInference(inference, str(uuid4()), TASK, 5.0)
    (row,) = encoder()[0].encode(captured, 0)
    assert span_of(row).trace_id == UUID(captured.id).hex
    assert span_of(row).end == 5 * 10**9


@pytest.mark.parametrize(
    ("values", "score", "description"),
    [
        ({"annotation_score": 1, "annotation_description": "good"}, 1, "good"),
        ({"annotation_score": 0, "more": "x"}, 0, None),
        ({"liked": True}, 1, None),
        ({"liked": False, "annotation_description": "bad"}, 0, "bad"),
        ({"liked": 1.0}, 1, None),
    ],
)
def test_feedback(values: dict[str, Any], score: int, description: str | None) -> None:
    run_id = uuid4()
    (row,) = encoder()[0].encode(CapturedGroundTruth(str(run_id), TASK, values, 0, 1.0), 3)
    assert row.kind is RowKind.GROUND_TRUTH
    assert row.id == f"{run_id.hex}-{run_id.hex[16:]}"
    assert json.loads(row.body) == {
        "annotation_score": score,
        "annotation_description": description,
        "known_at": 1.0,
    }


@pytest.mark.parametrize("values", [{}, {"liked": 2}, {"a": 1, "b": 1}, {"label": "positive"}])
def test_what_is_no_judgement_makes_no_row(values: dict[str, Any]) -> None:
    assert encoder()[0].encode(CapturedGroundTruth(str(uuid4()), TASK, values, 0, 1.0), 0) == []


def test_a_row_that_is_too_large_is_cut() -> None:
    makes, _ = encoder()
    (row,) = makes.encode(run(inputs={"a": "x" * 10_000, "b": 1}, outputs={"output": "short"}), 0)
    smaller = makes.shrink(row)
    assert smaller is not None
    assert smaller.id == row.id
    assert smaller.shrunk == 1
    assert len(smaller.body) < 0.6 * len(row.body)
    span = span_of(smaller)
    assert "cut by arthur-relay" in span.attributes["input.value"]
    assert "input.mime_type" not in span.attributes  # it is no JSON any more
    assert span.attributes["output.value"] == "short"
    steps = 0
    while (smaller := makes.shrink(smaller)) is not None:
        steps += 1
        assert steps < 10


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\x0a\x00"])
def test_rows_of_others_that_can_not_be_cut(body: bytes) -> None:
    makes, _ = encoder()
    assert makes.shrink(Row("id", TASK, body)) is None
    assert makes.shrink(Row("id", TASK, body, kind=RowKind.GROUND_TRUTH)) is None


def test_the_format_of_rows() -> None:
    form = EngineRowFormat(Hiding())
    task = form.usual_schema(TASK)
    assert form.schema_from_text(TASK, form.schema_to_text(task)) == task
    assert form.schema_from_text("other", form.schema_to_text(task)) is None
    made = form.encoder(task, omissions=Omitted(), privacy=None)
    assert made.schema == task
