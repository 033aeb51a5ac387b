"""Which rows are refused, and why."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.sandbox.models import (
    InvalidModelError,
    attribute,
    build_model,
    demo_attributes,
)
from arthur_relay.sandbox.validation import (
    InvalidRowError,
    Schema,
    check_ground_truth,
    check_inference,
)

from .rows import NOW, row, truth

pytestmark = pytest.mark.one_python


def schema(**more: str) -> Schema:
    attributes = demo_attributes() + [
        attribute(name, value_type, "NON_INPUT_DATA") for name, value_type in more.items()
    ]
    return Schema.of({"attributes": attributes})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partner_inference_id": None}, "partner_inference_id is required"),
        ({"partner_inference_id": ""}, "partner_inference_id is required"),
        ({"partner_inference_id": 7}, "partner_inference_id must be a string, not a number"),
        ({"partner_inference_id": "\ud800"}, "partner_inference_id is not valid Unicode"),
        ({"inference_timestamp": None}, "inference_timestamp is required"),
        ({"inference_timestamp": ""}, "inference_timestamp is required"),
        ({"inference_timestamp": 1.5}, "inference_timestamp must be an ISO 8601 string"),
        ({"inference_timestamp": "yesterday"}, "inference_timestamp is not an ISO 8601"),
        ({"inference_timestamp": "2026-06-07T12:00:13"}, "inference_timestamp has no timezone"),
        ({"inference_data": None}, "inference_data is required"),
        ({"inference_data": []}, "inference_data must be an object, not a list"),
        ({"inference_data": {"nothing": 1}}, "unknown attribute 'nothing'"),
        ({"inference_data": {"thumbs_up": True}}, "'thumbs_up' belongs in ground_truth_data"),
        ({"ground_truth_data": {"thumbs_up": True}}, "ground_truth_timestamp is required"),
        ({"ground_truth_data": 1}, "ground_truth_data must be an object"),
    ],
)
def test_a_bad_field_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRowError, match=message):
        check_inference(schema(), row() | change)


@pytest.mark.parametrize(
    "timestamp", ["2026-06-07T12:00:13Z", NOW, "2026-06-07T12:00:13.1+02:00", "20260607T120013Z"]
)
def test_iso_timestamps_with_a_timezone_are_taken(timestamp: str) -> None:
    assert check_inference(schema(), row() | {"inference_timestamp": timestamp}) == "a"


@pytest.mark.parametrize(
    ("value_type", "good", "bad"),
    [
        ("STRING", ["", "x\0y"], [1, True, ["x"], {}]),
        ("UNSTRUCTURED_TEXT", ["x"], [1]),
        ("IMAGE", ["x"], [1]),
        ("INTEGER", [0, -3], [1.0, True, "1", []]),
        ("FLOAT", [0, 1.5], [True, "1", []]),
        ("BOOLEAN", [True, False], [0, 1, "true"]),
        ("TIMESTAMP", [NOW], ["x", 1, "2026-06-07T12:00:13", None]),
        ("TOKENS", [[], ["a"]], ["a", [1]]),
        ("ARRAY(STRING)", [[], ["a"]], ["a", [None]]),
        ("TIME_SERIES", [[], [{}]], [{}]),
        ("BOUNDING_BOX", [[[1, 2]]], ["x"]),
        ("RANKED_LIST", [[{}]], [1]),
        (
            "TOKEN_LIKELIHOODS",
            [[], [{"a": 0}, {"b": 1.0}], [dict.fromkeys("abcde", 0.1)]],
            ["a", ["a"], [{"a": "b"}], [{"a": True}], [{"a": 1.1}], [dict.fromkeys("abcdef", 0.1)]],
        ),
    ],
)
def test_each_value_type_takes_its_own(value_type: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check_inference(schema(extra=value_type), row(extra=value))
    for value in bad:
        with pytest.raises(InvalidRowError, match="extra"):
            check_inference(schema(extra=value_type), row(extra=value))


def test_null_is_refused_only_in_predictions_ground_truth_and_timestamps() -> None:
    check_inference(schema(), row(duration=None, input_text=None))
    with pytest.raises(InvalidRowError, match="'output_text' must not be null"):
        check_inference(schema(), row(output_text=None))
    with pytest.raises(InvalidRowError, match="'output_tokens' must not be null"):
        check_inference(schema(), row(output_tokens=None))
    with pytest.raises(InvalidRowError, match="'thumbs_up' must not be null"):
        check_ground_truth(schema(), truth(thumbs_up=None))


def test_tokens_and_likelihoods_are_of_one_length() -> None:
    likelihoods = [{"a": 0.5}, {"b": 0.5}]
    check_inference(schema(), row(output_tokens=["a", "b"], output_likelihoods=likelihoods))
    check_inference(schema(), row(output_likelihoods=likelihoods))
    with pytest.raises(InvalidRowError, match="1 tokens, but likelihoods for 2"):
        check_inference(schema(), row(output_tokens=["a"], output_likelihoods=likelihoods))


def test_a_batch_model_wants_a_batch_id() -> None:
    batch = Schema.of({"attributes": demo_attributes(), "is_batch": True})
    with pytest.raises(InvalidRowError, match="batch_id is required"):
        check_inference(batch, row())
    check_inference(batch, row() | {"batch_id": "monday"})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "the ground truth must be an object, not a list"),
        (None, "the ground truth is required"),
        ({}, "partner_inference_id is required"),
        ({"partner_inference_id": "a"}, "ground_truth_data is required"),
        (truth(output_text="x"), "'output_text' is not ground truth"),
        (truth(nothing="x"), "unknown attribute 'nothing'"),
        (truth(thumbs_up="yes"), "'thumbs_up' must be BOOLEAN, not a string"),
        (truth() | {"ground_truth_timestamp": "x"}, "ground_truth_timestamp is not an ISO 8601"),
    ],
)
def test_bad_ground_truth_is_named(bad: object, message: str) -> None:
    with pytest.raises(InvalidRowError, match=message):
        check_ground_truth(schema(), bad)


def test_no_message_holds_a_value() -> None:
    for bad in (row(finish_reason=["SECRET"]), row(output_likelihoods=[{"SECRET": 2}])):
        with pytest.raises(InvalidRowError) as caught:
            check_inference(schema(), bad)
        assert "SECRET" not in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from([each["name"] for each in demo_attributes()]))
def test_any_json_is_taken_or_refused(value: Any, name: str) -> None:
    for candidate in (value, row(**{name: value}), row() | {"ground_truth_data": value}):
        with suppress(InvalidRowError):
            assert check_inference(schema(), candidate) == "a"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partner_model_id": ""}, "partner_model_id is required"),
        ({"input_type": None}, "input_type is required"),
        ({"output_type": 1}, "output_type is required"),
        ({"attributes": []}, "attributes is required"),
        ({"attributes": "x"}, "attributes is required"),
        ({"attributes": [1]}, "each attribute must be an object"),
        ({"attributes": [attribute("1a", "STRING", "NON_INPUT_DATA")]}, "attribute name '1a'"),
        ({"attributes": [attribute("a" * 256, "STRING", "NON_INPUT_DATA")]}, "255 characters"),
        ({"attributes": [{"name": None}]}, "attribute name None"),
        ({"attributes": [attribute("a", "TEXT", "NON_INPUT_DATA")]}, "unknown value_type 'TEXT'"),
        ({"attributes": [attribute("a", "STRING", "INPUT")]}, "unknown stage 'INPUT'"),
        ({"attributes": [attribute("a", "STRING", "NON_INPUT_DATA")] * 2}, "'a' occurs twice"),
    ],
)
def test_a_model_that_arthur_would_refuse(change: dict[str, Any], message: str) -> None:
    given_model = {
        "partner_model_id": "m",
        "input_type": "NLP",
        "output_type": "TOKEN_SEQUENCE",
        "attributes": demo_attributes(),
    }
    assert build_model(given_model, model_id="1", created_at=NOW)["status"] == "Ready"
    with pytest.raises(InvalidModelError, match=message):
        build_model(given_model | change, model_id="1", created_at=NOW)
