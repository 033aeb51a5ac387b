"""Metadata, tags and ids: what the model has registered arrives in its type, nothing else does."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import FakeListChatModel, FakeListLLM
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from arthur_relay.sandbox import attribute

from .arthur import TEXT_ONLY, extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from .arthur import Arthur

    Make = Callable[..., Arthur]

pytestmark = pytest.mark.one_python

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)


class Tier(enum.Enum):
    GOLD = "gold"


def model() -> FakeListChatModel:
    return FakeListChatModel(responses=["ok"])


def config(arthur: Arthur, **more: Any) -> Any:
    return {"callbacks": [arthur.handler], **more}


def others(arthur: Arthur) -> dict[str, Any]:
    """The attributes of the only row, without its texts."""
    row = arthur.only()
    assert (row.pop("input_text"), row.pop("output_text")) == ("Human: hi", "ok")
    return row


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["invoke", "stream", "batch", "ainvoke", "astream", "abatch"])
@pytest.mark.parametrize("place", ["with_config", "config", "model"])
async def test_metadata_and_tags(make_arthur: Make, how: str, place: str) -> None:
    arthur = make_arthur((*TEXT_ONLY, *extra(user_id="STRING", tags="ARRAY(STRING)")))
    marks: Any = {"metadata": {"user_id": "u1", "secret": "s"}, "tags": ["a", "b"]}
    runnable: Any = model()
    given = config(arthur)
    if place == "with_config":
        runnable = runnable.with_config(**marks)
    elif place == "config":
        given |= marks
    else:
        runnable = FakeListChatModel(responses=["ok"], **marks)
    argument: Any = ["hi"] if "batch" in how else "hi"
    result = getattr(runnable, how)(argument, given)
    if how == "stream":
        list(result)
    elif how == "astream":
        _ = [chunk async for chunk in result]
    elif how.startswith("a"):
        await result
    row = others(arthur)
    assert sorted(row.pop("tags")) == ["a", "b"]
    assert row == {"user_id": "u1"}
    assert arthur.stats().attributes_omitted == 0


def test_run_ids(arthur: Arthur) -> None:
    run_id, parent = uuid.uuid4(), uuid.uuid4()
    model().invoke("hi", config(arthur, run_id=run_id))
    (row,) = arthur.rows()
    assert row["partner_inference_id"] == row["inference_data"]["run_id"] == str(run_id)
    assert "parent_run_id" not in row["inference_data"]

    chain = ChatPromptTemplate.from_template("{text}") | model()
    chain.invoke({"text": "hi"}, config(arthur, run_id=parent, tags=["chain"]))
    row = arthur.data()[-1]
    assert row["parent_run_id"] == str(parent)
    assert row["tags"][-1] == "chain"
    assert row["input_text"] == "Human: hi"


def test_a_chain_in_a_chain(arthur: Arthur) -> None:
    inner: Runnable[str, Any] = RunnableLambda(lambda text: model().invoke(text))
    outer: Runnable[str, Any] = RunnableLambda(inner.invoke)
    outer.invoke("hi", config(arthur, metadata={"user_id": "u1"}))
    row = arthur.only()
    assert row["user_id"] == "u1"
    assert row["parent_run_id"] != row["run_id"]


def test_only_what_is_registered_is_sent(make_arthur: Make) -> None:
    arthur = make_arthur(TEXT_ONLY)
    FakeListLLM(responses=["ok"]).invoke(
        "hi", config(arthur, metadata={"user_id": "u1"}, tags=["t"])
    )
    assert arthur.only() == {"input_text": "hi", "output_text": "ok"}
    assert arthur.stats().attributes_omitted == 0


def test_metadata_does_not_overwrite_what_was_measured(arthur: Arthur) -> None:
    lies = {
        "input_text": "lie",
        "output_text": "lie",
        "outcome": "lie",
        "run_id": "lie",
        "output_tokens": ["lie"],
        "output_likelihoods": [{"lie": 1.0}],
        "duration": -1.0,
    }
    model().invoke("hi", config(arthur, metadata=lies))
    assert "lie" not in str(arthur.rows())
    assert arthur.only()["duration"] > 0


FITS: list[tuple[str, Any, Any]] = [
    ("STRING", "text", "text"),
    ("STRING", 3, "3"),
    ("STRING", True, "true"),
    ("STRING", 0.5, "0.5"),
    ("STRING", Tier.GOLD, "gold"),
    ("STRING", uuid.UUID(int=1), str(uuid.UUID(int=1))),
    ("STRING", NOON, NOON.isoformat()),
    ("STRING", {"a": [1]}, '{"a":[1]}'),
    ("INTEGER", 3, 3),
    ("INTEGER", "3", 3),
    ("INTEGER", 3.0, 3),
    ("FLOAT", 3, 3.0),
    ("FLOAT", "0.5", 0.5),
    ("BOOLEAN", True, True),
    ("BOOLEAN", "False", False),
    ("TIMESTAMP", NOON, NOON.isoformat()),
    ("TIMESTAMP", NOON.isoformat(), NOON.isoformat()),
    ("ARRAY(STRING)", ("a", 1), ["a", "1"]),
    ("ARRAY(STRING)", {"b", "a"}, ["a", "b"]),
    ("UNSTRUCTURED_TEXT", "a\x00b\ud800", "ab\ufffd"),
]
FITS_NOT: list[tuple[str, Any]] = [
    ("STRING", object()),
    ("STRING", float("nan")),
    ("STRING", [object()]),
    ("INTEGER", "three"),
    ("INTEGER", 3.5),
    ("INTEGER", True),
    ("INTEGER", 2**63),
    ("FLOAT", "many"),
    ("FLOAT", float("inf")),
    ("BOOLEAN", 1),
    ("BOOLEAN", "yes"),
    ("TIMESTAMP", NOON.replace(tzinfo=None)),
    ("TIMESTAMP", "yesterday"),
    ("ARRAY(STRING)", "text"),
    ("ARRAY(STRING)", [object()]),
]


@pytest.mark.parametrize(("kind", "value", "sent"), FITS)
def test_values_that_fit(make_arthur: Make, kind: str, value: Any, sent: Any) -> None:
    arthur = make_arthur((*TEXT_ONLY, *extra(value=kind)))
    model().invoke("hi", config(arthur, metadata={"value": value}))
    found = others(arthur)
    assert found == {"value": sent}
    assert type(found["value"]) is type(sent)
    assert arthur.stats().attributes_omitted == 0


@pytest.mark.parametrize(("kind", "value"), FITS_NOT)
def test_values_that_do_not_fit(make_arthur: Make, kind: str, value: Any) -> None:
    arthur = make_arthur((*TEXT_ONLY, *extra(value=kind, other="STRING")))
    model().invoke("hi", config(arthur, metadata={"value": value, "other": "there"}))
    assert others(arthur) == {"other": "there"}
    assert arthur.stats().attributes_omitted == 1


def test_a_value_of_none_is_absent(make_arthur: Make) -> None:
    arthur = make_arthur((*TEXT_ONLY, *extra(value="STRING")))
    model().invoke("hi", config(arthur, metadata={"value": None}))
    assert others(arthur) == {}
    assert arthur.stats().attributes_omitted == 0


def test_other_names_for_the_texts(make_arthur: Make) -> None:
    arthur = make_arthur(
        [
            attribute("question", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
            attribute("reply", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
        ]
    )
    model().invoke("hi", config(arthur))
    assert arthur.only() == {"question": "Human: hi", "reply": "ok"}


@pytest.mark.parametrize("change", ["metadata", "tags"])
def test_marks_that_the_application_changes(arthur: Arthur, change: str) -> None:
    metadata: dict[str, Any] = {"user_id": "u1"}
    tags = ["a"]
    config_: Any = {"callbacks": [arthur.handler], "metadata": metadata, "tags": tags}
    stream = model().stream("hi", config_)
    next(stream)
    if change == "metadata":
        metadata["user_id"] = "changed"
    else:
        tags.append("changed")
    list(stream)
    row = arthur.only()
    assert (row["user_id"], row["tags"]) == ("u1", ["a"])
