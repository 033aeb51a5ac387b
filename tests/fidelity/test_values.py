"""Values of other classes, as they were at the call; an odd one costs itself alone."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult
from pydantic import BaseModel

from arthur_relay.capture.copies import COPY_BYTES, COPY_DEPTH, copy_value
from arthur_relay.encoding.coerce import NotCoercible, coercer

np = pytest.importorskip("numpy")

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fidelity.judged import Judged


class Colour(enum.Enum):
    RED = 3


class Model(BaseModel):
    x: int = 1


@dataclass
class Data:
    x: int = 1


class Odd:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)

FITS: list[tuple[str, Any, Any]] = [
    ("FLOAT", np.float32(0.5), 0.5),
    ("FLOAT", np.int64(3), 3.0),
    ("INTEGER", np.int64(3), 3),
    ("INTEGER", np.uint8(3), 3),
    ("BOOLEAN", np.bool_(True), True),
    ("STRING", np.str_("a"), "a"),
    ("STRING", np.float64(0.5), "0.5"),
    ("FLOAT", np.array(0.5), 0.5),
    ("ARRAY(STRING)", np.array(["a", "b"]), ["a", "b"]),
    ("STRING", np.array([1, 2]), "[1,2]"),
    ("FLOAT", Decimal("0.5"), 0.5),
    ("INTEGER", Decimal(3), 3),
    ("STRING", Decimal("1.10"), "1.10"),
    ("FLOAT", Fraction(1, 2), 0.5),
    ("STRING", date(2026, 1, 2), "2026-01-02"),
    ("STRING", time(3, 4), "03:04:00"),
    ("FLOAT", timedelta(seconds=90), 90.0),
    ("STRING", timedelta(seconds=90), "90.0"),
    ("TIMESTAMP", NOON, NOON.isoformat()),
    ("STRING", {"b", "a"}, '["a","b"]'),
    ("INTEGER", Colour.RED, 3),
    ("FLOAT", Colour.RED, 3.0),
    ("STRING", Colour.RED, "3"),
    ("STRING", Model(), '{"x":1}'),
    ("STRING", Data(), '{"x":1}'),
    ("STRING", {"when": NOON, "n": np.int64(3)}, '{"when":"2026-01-02T12:00:00+00:00","n":3}'),
    ("STRING", ["a", Odd()], '["a"]'),
    ("ARRAY(STRING)", ["a", Odd(), "b"], ["a", "b"]),
    ("STRING", {"a": 1, "b": Odd()}, '{"a":1}'),
]


@pytest.mark.parametrize(("kind", "value", "sent"), FITS, ids=lambda each: type(each).__name__)
def test_what_fits(kind: str, value: Any, sent: Any) -> None:
    found = coercer(kind)(value)
    assert found == sent
    assert type(found) is type(sent)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("STRING", b"bytes"),
        ("FLOAT", np.array([0.5, 1.5])),
        ("FLOAT", np.float32("nan")),
        ("INTEGER", np.float64(0.5)),
        ("INTEGER", Decimal("1e999999")),
        ("INTEGER", np.bool_(True)),
        ("FLOAT", Decimal("NaN")),
        ("TIMESTAMP", date(2026, 1, 2)),
        ("ARRAY(STRING)", [Odd()]),
        ("STRING", object()),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_does_not(kind: str, value: Any) -> None:
    with pytest.raises(NotCoercible):
        coercer(kind)(value)


def test_each_odd_element_is_counted() -> None:
    omitted: list[None] = []
    coerce = coercer("ARRAY(STRING)", lambda: omitted.append(None))
    assert coerce(["a", b"x", "b", object()]) == ["a", "b"]
    assert len(omitted) == 2


def start(arthur: Judged, message: Any = None, **more: Any) -> Any:
    run_id = uuid4()
    messages = [[message or HumanMessage("hi")]]
    arthur.handler.on_chat_model_start({}, messages, run_id=run_id, **more)
    return run_id


def end(arthur: Judged, run_id: Any) -> dict[str, Any]:
    result = LLMResult(generations=[[ChatGeneration(message=AIMessage("answer"))]])
    arthur.handler.on_llm_end(result, run_id=run_id)
    return arthur.only()


@pytest.fixture
def own(make_arthur: Callable[..., Judged]) -> Judged:
    """Logs with two attributes of the application's."""
    from tests.callback.arthur import TEXT_ONLY, extra

    return make_arthur((*TEXT_ONLY, *extra(mine="STRING", other="STRING")))


def test_a_value_that_raises_costs_itself_alone(own: Judged) -> None:
    row = end(own, start(own, metadata={"mine": Odd(), "other": "there"}))
    assert row == {"input_text": "Human: hi", "output_text": "answer", "other": "there"}
    stats = own.stats()
    assert stats.attributes_omitted == 1
    assert stats.capture_errors == 0


def test_nested_metadata_is_as_it_was_at_the_call(own: Judged) -> None:
    value: dict[str, Any] = {"a": [{"b": [1, {"c": "before"}]}], "d": ("x", ["before"])}
    run_id = start(own, metadata={"mine": value})
    value["a"][0]["b"][1]["c"] = "after"
    value["d"][1][0] = "after"
    value["e"] = "after"
    assert json.loads(end(own, run_id)["mine"]) == {
        "a": [{"b": [1, {"c": "before"}]}],
        "d": ["x", ["before"]],
    }


def test_tool_arguments_are_as_they_were_at_the_call(arthur: Judged) -> None:
    arguments = {"where": {"city": "before"}}
    call = {"name": "f", "args": arguments, "id": "1", "type": "tool_call"}
    run_id = start(arthur, AIMessage("", tool_calls=[call]))
    message = AIMessage("", tool_calls=[call])
    result = LLMResult(generations=[[ChatGeneration(message=message)]])
    arthur.handler.on_llm_end(result, run_id=run_id)
    message.tool_calls[0]["args"]["where"]["city"] = "after"
    arguments["where"]["city"] = "after"
    row = arthur.only()
    assert json.loads(row["tool_calls"])[0]["args"] == {"where": {"city": "before"}}
    assert "after" not in row["input_text"]


def test_copies_are_bounded_in_depth_and_bytes() -> None:
    deep: Any = "end"
    for _ in range(COPY_DEPTH + 3):
        deep = [deep]
    copied, _ = copy_value(deep)
    inner, beyond = copied, deep
    for _ in range(COPY_DEPTH):
        assert inner is not beyond
        inner, beyond = inner[0], beyond[0]
    assert inner is beyond
    wide = [["x" * 1000] for _ in range(2 * COPY_BYTES // 1000)]
    copied, size = copy_value(wide)
    assert size > 2 * COPY_BYTES
    assert copied[0] is not wide[0]
    assert copied[-1] is wide[-1]


def test_a_circle_and_a_huge_value_take_no_time() -> None:
    circle: list[Any] = []
    circle.append(circle)
    copy_value(circle)
    shared: Any = ["x"] * 100
    for _ in range(COPY_DEPTH - 1):
        shared = [shared] * 100
    copy_value(shared)  # 100 to the power of 8 elements, if each were looked at


def test_ground_truth_of_numpy() -> None:
    from arthur_relay import ArthurCallbackHandler, Relay
    from arthur_relay.destinations.scope.schema import Attribute
    from arthur_relay.testing import MemoryDestination

    destination = MemoryDestination(
        [
            Attribute("in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
            Attribute("out", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
            Attribute("score", "FLOAT", "GROUND_TRUTH"),
        ]
    )
    with Relay(destination, model_id="m") as relay:
        handler = ArthurCallbackHandler(relay=relay)
        run_id = uuid4()
        handler.on_llm_start({}, ["hi"], run_id=run_id)
        handler.log_ground_truth(run_id, {"score": np.float32(0.5)})
        result = LLMResult(generations=[[ChatGeneration(message=AIMessage("answer"))]])
        handler.on_llm_end(result, run_id=run_id)
        assert not relay.flush(30).timed_out
        stats = relay.stats()
    assert (stats.delivered, stats.rejected, stats.attributes_omitted) == (2, 0, 0)
