"""Row validation: which inferences Arthur takes, and what it says about the others. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.sandbox.models import GROUND_TRUTH_STAGES

if TYPE_CHECKING:
    from collections.abc import Mapping

# Arthur's documentation of April 2024: at most five token-probability pairs for a token.
MAX_LIKELIHOODS_PER_TOKEN: Final = 5


class InvalidRowError(ValueError):
    """A row that Arthur refuses. The message names the field, never its value, maybe a prompt."""


@dataclass(frozen=True, slots=True)
class Schema:
    """What validation needs of a model.

    Attributes:
        value_types: Attribute name to value type.
        stages: Attribute name to stage.
        is_batch: Whether every row needs a `batch_id`.
    """

    value_types: Mapping[str, str]
    stages: Mapping[str, str]
    is_batch: bool

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Schema:
        """The schema of a model's JSON.

        Args:
            model: A model as `GET /models/{id}` answers it.
        """
        attributes = model["attributes"]
        return cls(
            value_types={found["name"]: found["value_type"] for found in attributes},
            stages={found["name"]: found["stage"] for found in attributes},
            is_batch=bool(model.get("is_batch")),
        )


def check_inference(schema: Schema, row: object) -> str:
    """Check one row of `POST /models/{id}/inferences`.

    Args:
        schema: The model's schema.
        row: The row, as parsed from JSON.

    Returns:
        The row's `partner_inference_id`.

    Raises:
        InvalidRowError: the row is at fault; the first problem found.
    """
    checked = _object(row, "the inference")
    inference_id = _inference_id(checked)
    _timestamp(checked.get("inference_timestamp"), "inference_timestamp")
    if schema.is_batch and not checked.get("batch_id"):
        raise InvalidRowError("batch_id is required: the model is a batch model")
    data = _object(checked.get("inference_data"), "inference_data")
    for name, value in data.items():
        if schema.stages.get(name) in GROUND_TRUTH_STAGES:
            raise InvalidRowError(f"attribute {name!r} belongs in ground_truth_data")
        _attribute(schema, name, value)
    _token_lengths(schema, data)
    if checked.get("ground_truth_data") is not None:
        _ground_truth(schema, checked)
    return inference_id


def check_ground_truth(schema: Schema, row: object) -> str:
    """Check one row of `PATCH /models/{id}/inferences`.

    Args:
        schema: The model's schema.
        row: The row, as parsed from JSON.

    Returns:
        The row's `partner_inference_id`.

    Raises:
        InvalidRowError: the row is at fault; the first problem found.
    """
    checked = _object(row, "the ground truth")
    inference_id = _inference_id(checked)
    _ground_truth(schema, checked)
    return inference_id


def _object(value: object, what: str) -> Mapping[str, Any]:
    if value is None:
        raise InvalidRowError(f"{what} is required")
    if not isinstance(value, dict):
        raise InvalidRowError(f"{what} must be an object, not {_kind(value)}")
    return value


def _inference_id(row: Mapping[str, Any]) -> str:
    found = row.get("partner_inference_id")
    if found is None or found == "":
        raise InvalidRowError("partner_inference_id is required")
    if not isinstance(found, str):
        raise InvalidRowError(f"partner_inference_id must be a string, not {_kind(found)}")
    if any("\ud800" <= character <= "\udfff" for character in found):
        raise InvalidRowError("partner_inference_id is not valid Unicode")
    return found


def _timestamp(value: object, what: str) -> None:
    if value is None or value == "":
        raise InvalidRowError(f"{what} is required")
    if not isinstance(value, str):
        raise InvalidRowError(f"{what} must be an ISO 8601 string, not {_kind(value)}")
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidRowError(f"{what} is not an ISO 8601 timestamp") from None
    if parsed.tzinfo is None:
        raise InvalidRowError(f"{what} has no timezone")


def _ground_truth(schema: Schema, row: Mapping[str, Any]) -> None:
    data = _object(row.get("ground_truth_data"), "ground_truth_data")
    _timestamp(row.get("ground_truth_timestamp"), "ground_truth_timestamp")
    for name, value in data.items():
        if schema.stages.get(name, "GROUND_TRUTH") not in GROUND_TRUTH_STAGES:
            raise InvalidRowError(f"attribute {name!r} is not ground truth")
        _attribute(schema, name, value)


def _attribute(schema: Schema, name: str, value: object) -> None:
    value_type = schema.value_types.get(name)
    if value_type is None:
        raise InvalidRowError(f"unknown attribute {name!r}")
    if value is None:
        stage = schema.stages[name]
        if stage == "PREDICTED_VALUE" or stage in GROUND_TRUTH_STAGES or value_type == "TIMESTAMP":
            raise InvalidRowError(f"attribute {name!r} must not be null")
        return
    match value_type:
        case "TIMESTAMP":
            _timestamp(value, f"attribute {name!r}")
            fits = True
        case "TOKEN_LIKELIHOODS":
            fits = _check_likelihoods(name, value)
        case _:
            fits = _fits(value_type, value)
    if not fits:
        raise InvalidRowError(f"attribute {name!r} must be {value_type}, not {_kind(value)}")


def _fits(value_type: str, value: object) -> bool:
    match value_type:
        case "STRING" | "UNSTRUCTURED_TEXT" | "IMAGE":
            return isinstance(value, str)
        case "INTEGER":
            return isinstance(value, int) and not isinstance(value, bool)
        case "FLOAT":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "BOOLEAN":
            return isinstance(value, bool)
        case "TOKENS" | "ARRAY(STRING)":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
        case _:  # BOUNDING_BOX, RANKED_LIST, TIME_SERIES: no LLM has them; their insides are free
            return isinstance(value, list)


def _check_likelihoods(name: str, value: object) -> bool:
    if not isinstance(value, list):
        return False
    for position, pairs in enumerate(value):
        if not isinstance(pairs, dict):
            return False
        if len(pairs) > MAX_LIKELIHOODS_PER_TOKEN:
            raise InvalidRowError(
                f"attribute {name!r} has {len(pairs)} likelihoods for token {position}; "
                f"at most {MAX_LIKELIHOODS_PER_TOKEN} are allowed"
            )
        for probability in pairs.values():
            if not _fits("FLOAT", probability):
                return False
            if not 0 <= probability <= 1:
                raise InvalidRowError(
                    f"attribute {name!r} has a likelihood outside 0 to 1 for token {position}"
                )
    return True


def _token_lengths(schema: Schema, data: Mapping[str, Any]) -> None:
    lengths: dict[tuple[str, str], int] = {}
    for name, value in data.items():
        if value is not None and schema.value_types[name] in {"TOKENS", "TOKEN_LIKELIHOODS"}:
            lengths[schema.stages[name], schema.value_types[name]] = len(value)
    for (stage, value_type), length in lengths.items():
        other = lengths.get((stage, "TOKEN_LIKELIHOODS"), length)
        if value_type == "TOKENS" and other != length:
            raise InvalidRowError(f"{length} tokens, but likelihoods for {other}")


def _kind(value: object) -> str:
    match value:
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
