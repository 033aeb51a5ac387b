"""The model's schema: which attribute is which, and values that fit or are left out."""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.destinations.scope.schema import Attribute, ModelSchema
from arthur_relay.encoding.coerce import NotCoercible, coercer
from arthur_relay.errors import ModelError
from arthur_relay.sandbox import demo_attributes
from arthur_relay.sandbox.validation import Schema, check_inference

IN = Attribute("in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT")
OUT = Attribute("out", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE")


def test_attributes_are_found_as_the_old_handler_found_them() -> None:
    # The SDK sorts by stage and position before the handler takes the first.
    schema = ModelSchema(
        "m",
        [
            Attribute("later_out", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE", position=2),
            Attribute("later_in", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT", position=1),
            OUT,
            IN,
            Attribute("notes", "UNSTRUCTURED_TEXT", "NON_INPUT_DATA"),
            Attribute("likely", "TOKEN_LIKELIHOODS", "PREDICTED_VALUE"),
            Attribute("in_tokens", "TOKENS", "PIPELINE_INPUT"),
            Attribute("out_tokens", "TOKENS", "PREDICTED_VALUE"),
            Attribute("truth", "STRING", "GROUND_TRUTH"),
            Attribute("what", "STRING", "A_NEW_STAGE"),
        ],
    )
    assert (schema.input_text, schema.output_text) == ("in", "out")
    assert (schema.likelihoods, schema.tokens) == ("likely", "out_tokens")
    assert "truth" not in schema.types
    assert "what" not in schema.types
    assert "m" in repr(schema)


def test_a_schema_reads_arthurs_json_and_ignores_what_is_new() -> None:
    document: dict[str, Any] = {"id": "m", "attributes": demo_attributes(), "a_new_field": 1}
    document["attributes"][0]["another_new_field"] = {}
    schema = ModelSchema.from_json(document)
    assert schema.model_id == "m"
    assert schema.types["duration"] == "FLOAT"


@pytest.mark.parametrize(
    "document",
    [None, [], "x", {}, {"id": "m", "attributes": [{"name": "x"}]}, {"id": "m", "attributes": 5}],
)
def test_a_document_that_is_no_model(document: Any) -> None:
    with pytest.raises(ModelError):
        ModelSchema.from_json(document)


class Tier(str, enum.Enum):  # noqa: UP042 - users still write them so
    GOLD = "gold"


class Fraction(float):
    def __repr__(self) -> str:
        return "np.float64(0.5)"


class Color(enum.Enum):
    RED = "red"


AWARE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FITS: list[tuple[str, Any, Any]] = [
    ("STRING", "x", "x"),
    ("STRING", 5, "5"),
    ("STRING", 0.5, "0.5"),
    ("STRING", True, "true"),
    ("STRING", False, "false"),
    ("STRING", Color.RED, "red"),
    ("STRING", Tier.GOLD, "gold"),
    ("STRING", Fraction(0.5), "0.5"),
    ("STRING", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("STRING", AWARE, "2026-01-02T03:04:05+00:00"),
    ("STRING", ["a", 1], '["a",1]'),
    ("UNSTRUCTURED_TEXT", {"a": 1}, '{"a":1}'),
    ("INTEGER", 7, 7),
    ("INTEGER", 7.0, 7),
    ("INTEGER", "7", 7),
    ("FLOAT", 7, 7.0),
    ("FLOAT", "0.25", 0.25),
    ("BOOLEAN", True, True),
    ("BOOLEAN", "False", False),
    ("TIMESTAMP", AWARE, "2026-01-02T03:04:05+00:00"),
    ("TIMESTAMP", "2026-01-02T03:04:05+01:00", "2026-01-02T03:04:05+01:00"),
    ("TOKENS", ("a", "b"), ["a", "b"]),
    ("ARRAY(STRING)", {"b", "a"}, ["a", "b"]),
    ("ARRAY(STRING)", [1, "x"], ["1", "x"]),
    ("TOKEN_LIKELIHOODS", [{"a": 0.5}], [{"a": 0.5}]),
]


@pytest.mark.parametrize(("value_type", "value", "expected"), FITS)
def test_what_fits(value_type: str, value: Any, expected: Any) -> None:
    found = coercer(value_type)(value)
    assert found == expected
    assert type(found) is type(expected)


DOES_NOT: list[tuple[str, Any]] = [
    ("STRING", float("nan")),
    ("STRING", object()),
    ("STRING", [object()]),
    ("STRING", b"bytes"),
    ("INTEGER", True),
    ("INTEGER", 7.5),
    ("INTEGER", float("nan")),
    ("INTEGER", "seven"),
    ("INTEGER", "1_000"),
    ("INTEGER", 2**63),
    ("INTEGER", None),
    ("FLOAT", float("inf")),
    ("FLOAT", "nan"),
    ("FLOAT", True),
    ("FLOAT", 10**400),
    ("FLOAT", "x"),
    ("FLOAT", []),
    ("BOOLEAN", 1),
    ("BOOLEAN", "yes"),
    ("TIMESTAMP", datetime(2026, 1, 1)),  # noqa: DTZ001 - that it is naive is the point
    ("TIMESTAMP", "yesterday"),
    ("TIMESTAMP", 5),
    ("TOKENS", "text"),
    ("ARRAY(STRING)", [object()]),
    ("TOKEN_LIKELIHOODS", "text"),
    ("TOKEN_LIKELIHOODS", ["text"]),
    ("TOKEN_LIKELIHOODS", [{"a": 1.5}]),
    ("TOKEN_LIKELIHOODS", [{str(n): 0.1 for n in range(6)}]),
    ("IMAGE", b"x"),
    ("BOUNDING_BOX", []),
    ("A_NEW_TYPE", "x"),
]


@pytest.mark.parametrize(("value_type", "value"), DOES_NOT)
def test_what_does_not(value_type: str, value: Any) -> None:
    with pytest.raises(NotCoercible):
        coercer(value_type)(value)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TYPES = sorted({a["value_type"] for a in demo_attributes()} | {"BOOLEAN", "TIMESTAMP", "FLOAT"})


@given(ANYTHING, st.sampled_from(TYPES))
def test_what_is_coerced_is_what_arthur_takes(value: Any, value_type: str) -> None:
    try:
        found = coercer(value_type)(value)
    except NotCoercible:
        return
    judge = Schema({"x": value_type}, {"x": "NON_INPUT_DATA"}, is_batch=False)
    row = {
        "partner_inference_id": "id",
        "inference_timestamp": "2026-01-01T00:00:00+00:00",
        "inference_data": {"x": found},
    }
    assert check_inference(judge, row) == "id"
    assert not (isinstance(found, float) and not math.isfinite(found))
