"""The model as Arthur has registered it: its attributes, and how values become theirs."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NoReturn
from urllib.parse import unquote

import orjson

from arthur_relay.encoding.plain_values import NoPlainForm, PlainValues, unwrapped
from arthur_relay.errors import ConfigurationError, ModelError

INPUT = "PIPELINE_INPUT"
PREDICTED = "PREDICTED_VALUE"
NON_INPUT = "NON_INPUT_DATA"
TEXT = "UNSTRUCTURED_TEXT"
TOKENS = "TOKENS"
LIKELIHOODS = "TOKEN_LIKELIHOODS"

MAX_PAIRS = 5
"""Candidates a token that Arthur takes at most (Arthur's documentation of April 2024)."""

# The SDK sorts a model's attributes by these before the old handler takes the first that fits
# (arthurai.core.attributes.get_attribute_order_stage).
_STAGE_ORDER = {
    INPUT: 0,
    NON_INPUT: 1,
    PREDICTED: 2,
    "GROUND_TRUTH": 3,
    "GROUND_TRUTH_CLASS": 4,
}
_INFERENCE_STAGES = frozenset({INPUT, "PREDICT_FUNCTION_INPUT", NON_INPUT, PREDICTED})
_GROUND_TRUTH_STAGES = frozenset({"GROUND_TRUTH", "GROUND_TRUTH_CLASS"})


@dataclass(frozen=True, slots=True)
class Attribute:
    """One registered attribute; `stage` and `value_type` are Arthur's own words."""

    name: str
    value_type: str
    stage: str
    position: int = 0


COMMON_ATTRIBUTES = (
    Attribute("input_text", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT"),
    Attribute("output_text", "UNSTRUCTURED_TEXT", "PREDICTED_VALUE"),
    Attribute("output_tokens", "TOKENS", "PREDICTED_VALUE"),
    Attribute("output_likelihoods", "TOKEN_LIKELIHOODS", "PREDICTED_VALUE"),
    Attribute("finish_reason", "STRING", "NON_INPUT_DATA"),
    Attribute("prompt_tokens", "INTEGER", "NON_INPUT_DATA"),
    Attribute("completion_tokens", "INTEGER", "NON_INPUT_DATA"),
    Attribute("total_tokens", "INTEGER", "NON_INPUT_DATA"),
    Attribute("duration", "FLOAT", "NON_INPUT_DATA"),
    Attribute("time_to_first_token", "FLOAT", "NON_INPUT_DATA"),
    Attribute("model_name", "STRING", "NON_INPUT_DATA"),
    Attribute("outcome", "STRING", "NON_INPUT_DATA"),
    Attribute("error", "STRING", "NON_INPUT_DATA"),
    Attribute("tool_calls", "STRING", "NON_INPUT_DATA"),
    Attribute("tags", "ARRAY(STRING)", "NON_INPUT_DATA"),
    Attribute("thumbs_up", "BOOLEAN", "GROUND_TRUTH"),
)
"""All that the relay can tell by itself, under the usual names, and a ground truth."""


class ModelSchema:
    """What the encoder has to know of a model; immutable.

    Attributes:
        model_id: Arthur's id of the model.
        input_text: Name of the first unstructured-text pipeline input.
        output_text: Name of the first unstructured-text predicted value.
        likelihoods: Name of the first attribute of type TOKEN_LIKELIHOODS, or None.
        tokens: Name of the predicted attribute of type TOKENS, or None.
        types: Value type by name, of every attribute that an inference may carry.
        ground_truth_types: The same of those that ground truth may carry.
        attributes: All of them, in Arthur's order.
        document: Arthur's whole description, as it was read, or None.

    Raises:
        ModelError: The model has no text input or no text output.
    """

    __slots__ = (
        "attributes",
        "document",
        "ground_truth_types",
        "input_text",
        "likelihoods",
        "model_id",
        "output_text",
        "tokens",
        "types",
    )

    def __init__(
        self,
        model_id: str,
        attributes: Iterable[Attribute],
        document: Mapping[str, Any] | None = None,
    ) -> None:
        ordered = sorted(attributes, key=lambda a: (_STAGE_ORDER.get(a.stage, 5), a.position))
        self.model_id = model_id
        self.document = document
        self.attributes = tuple(ordered)
        self.types = _types(ordered, _INFERENCE_STAGES)
        self.ground_truth_types = _types(ordered, _GROUND_TRUTH_STAGES)
        self.input_text = _required(model_id, ordered, INPUT, "input")
        self.output_text = _required(model_id, ordered, PREDICTED, "output")
        self.likelihoods = _first(ordered, LIKELIHOODS, None)
        self.tokens = _first(ordered, TOKENS, PREDICTED)

    def __repr__(self) -> str:
        return f"ModelSchema({self.model_id!r}, {sorted(self.types)})"

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads: what it has read, if it has."""
        if self.document is not None:
            return dict(self.document)
        return {"id": self.model_id, "attributes": [asdict(item) for item in self.attributes]}

    @classmethod
    def from_json(cls, document: Any) -> ModelSchema:
        """Read Arthur's answer to `GET /models/{id}?expand=attributes`; unknown fields are fine.

        Raises:
            ModelError: It is not such an answer, or the model is not an LLM.
        """
        try:
            attributes = [
                Attribute(
                    name=str(item["name"]),
                    value_type=str(item["value_type"]),
                    stage=str(item["stage"]),
                    position=int(item.get("position") or 0),
                )
                for item in document.get("attributes") or ()
            ]
            model_id = str(document["id"])
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(
                "Arthur's description of the model can't be read; is the URL that of Arthur Scope?",
                reason="unreadable model",
            ) from error
        return cls(model_id, attributes, document)


def schema_to_text(schema: ModelSchema) -> str:
    """Return a model's schema as JSON, for `schema_from_text`."""
    return orjson.dumps(schema.to_json()).decode()


def schema_from_text(model_id: str, text: str) -> ModelSchema | None:
    """Return the schema that a text describes, or None when it is not a schema of that model."""
    try:
        found = ModelSchema.from_json(orjson.loads(text))
    except (ModelError, ArithmeticError, AttributeError, TypeError, ValueError):
        return None
    return found if found.model_id == model_id else None


def check_model_id(model_id: object) -> str:
    """Return a model's id that can be asked for.

    Raises:
        ConfigurationError: It is no text, a blank one, or one that would change the path of a
            request.
    """
    if not isinstance(model_id, str):
        raise ConfigurationError(
            f"The model's id must be a text, not of type {type(model_id).__name__}: give the id"
            " that Arthur shows for the model."
        )
    if not model_id.strip():
        raise ConfigurationError(
            "The model's id is empty: give the id that Arthur shows for the model."
        )
    if len(model_id) > MAX_MODEL_CHARACTERS:
        raise ConfigurationError(
            f"The model's id has {len(model_id)} characters, more than the {MAX_MODEL_CHARACTERS}"
            " that one may have: give the id that Arthur shows for the model."
        )
    if not is_path_segment(model_id):
        raise ConfigurationError(
            f"The model's id can't be {model_id!r}, which is a step in a path: give the id that"
            " Arthur shows for the model."
        )
    return model_id


def is_path_segment(model_id: str) -> bool:
    """Say whether a model's id stays one segment of a URL's path, whoever reads the URL.

    `.` and `..` are steps in a path, which clients and proxies take before Arthur sees it: the
    request would go to another route, with our credentials. They are refused as parts between
    slashes too, with parameters (`..;x`, which Java's servers drop), and however often they were
    encoded, because a proxy may decode once more. So are control characters, which no id has.
    """
    decoded = model_id
    for _ in range(_MOST_ENCODINGS):
        once_more = unquote(decoded)
        if once_more == decoded:
            break
        decoded = once_more
    else:
        return False
    if any(character < " " or character == "\x7f" for character in decoded):
        return False
    return all(part.partition(";")[0].strip() not in _STEPS for part in _SLASHES.split(decoded))


MAX_MODEL_CHARACTERS = 255
"""Of a model's id; Arthur's have 36."""

_MOST_ENCODINGS = 8
_SLASHES = re.compile(r"[/\\]")
_STEPS = frozenset({"", ".", ".."})


def _types(attributes: Iterable[Attribute], stages: frozenset[str]) -> Mapping[str, str]:
    return {each.name: each.value_type for each in attributes if each.stage in stages}


def _first(attributes: Sequence[Attribute], value_type: str, stage: str | None) -> str | None:
    for attribute in attributes:
        if attribute.value_type == value_type and stage in (None, attribute.stage):
            return attribute.name
    return None


def _required(model_id: str, attributes: Sequence[Attribute], stage: str, role: str) -> str:
    name = _first(attributes, TEXT, stage)
    if name is None:
        raise ModelError(
            f"Arthur's model {model_id} is not a text model: it has no text {role} (an attribute"
            f" of type {TEXT} at stage {stage}). Give the id of a TOKEN_SEQUENCE model.",
            reason="not a text model",
        )
    return name


class NotCoercible(Exception):  # noqa: N818 - control flow between two functions, not an error
    """The value can't be sent as the registered type."""


def coercer(value_type: str, omitted: Callable[[], None] = lambda: None) -> Callable[[Any], Any]:
    """Return what turns a value into what Arthur takes for a type, never into something else.

    NaN and infinities, and None, are not coercible: the SDK sends null for them, which Arthur
    takes like an absent value. NumPy's scalars and arrays, and the members of enums, are taken for
    what they stand for. A list whose elements fit in part is sent without the others.

    Args:
        value_type: Arthur's word for it.
        omitted: Called for each element that is left out of a value.

    Returns:
        A function that raises `NotCoercible` when the value does not fit, or whatever the value
        itself raises while it is read.
    """
    if value_type in ("STRING", TEXT):
        return partial(_to_text, plain=PlainValues(omitted))
    if value_type in (TOKENS, "ARRAY(STRING)"):
        return partial(_to_texts, plain=PlainValues(omitted))
    return _COERCERS.get(value_type, _to_nothing)


def _to_text(value: Any, plain: PlainValues) -> str:  # noqa: PLR0911 - one return for each type
    if type(value) is str:  # nearly always
        return value
    value = unwrapped(value)
    match value:
        case str():
            return str.__str__(value)
        case bool():
            return "true" if value else "false"
        case int():
            try:
                return str(value)
            except ValueError:  # an integer of more digits than Python writes
                raise NotCoercible from None
        case float() if math.isfinite(value):
            return float.__repr__(value)  # NumPy's floats are floats, and print their type
        case Decimal() | Fraction() if math.isfinite(value):
            return str(value)
        case float() | Decimal() | None:
            raise NotCoercible
    try:
        found = plain.plain(value)
    except NoPlainForm:
        raise NotCoercible from None
    if isinstance(found, str):
        return found
    if isinstance(found, float):  # a timedelta, in seconds
        return float.__repr__(found)
    try:
        return orjson.dumps(found).decode()
    except (TypeError, RecursionError):
        raise NotCoercible from None


def _to_integer(value: Any) -> int:
    value = unwrapped(value)
    whole = (
        (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, (float, Decimal, Fraction)) and _is_whole(value))
        or (isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,20}\s*", value))
    )
    if not whole:
        raise NotCoercible
    result = int(value)
    if not -(2**63) <= result < 2**63:
        raise NotCoercible
    return result


def _is_whole(value: float | Decimal | Fraction) -> bool:
    return math.isfinite(value) and -(2**64) < value < 2**64 and value == int(value)


def _to_float(value: Any) -> float:
    if type(value) is float and math.isfinite(value):  # nearly always
        return value
    value = unwrapped(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    numbers = (int, float, str, Decimal, Fraction)
    if isinstance(value, bool) or not isinstance(value, numbers):
        raise NotCoercible
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise NotCoercible from None
    if not math.isfinite(result):
        raise NotCoercible
    return result


def _to_boolean(value: Any) -> bool:
    value = unwrapped(value)
    match value:
        case bool():
            return value
        case str() if value.strip().lower() in ("true", "false"):
            return value.strip().lower() == "true"
        case _:
            raise NotCoercible


def _to_likelihoods(value: Any) -> dict[str, float]:
    """Take one token's candidates as they are, if Arthur would: at most five, each 0 to 1."""
    if not isinstance(value, Mapping) or len(value) > MAX_PAIRS:
        raise NotCoercible
    pairs = {str(token): _to_float(probability) for token, probability in value.items()}
    if not all(0.0 <= probability <= 1.0 for probability in pairs.values()):
        raise NotCoercible
    return pairs


def _to_timestamp(value: Any) -> str:
    value = unwrapped(value)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise NotCoercible from None
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    raise NotCoercible  # without a time zone it could mean any of 38 moments


def _to_texts(value: Any, plain: PlainValues) -> list[str]:
    value = unwrapped(value)
    is_set = isinstance(value, AbstractSet)
    if not is_set and (isinstance(value, (str, bytes, bytearray)) or not _is_list(value)):
        raise NotCoercible
    try:
        found = plain.kept(value, lambda item: _to_text(item, plain))
    except NoPlainForm:
        raise NotCoercible from None
    return sorted(found) if is_set else found


def _is_list(value: Any) -> bool:
    return isinstance(value, (Sequence, deque))


def _to_all_likelihoods(value: Any) -> list[dict[str, float]]:
    if isinstance(value, (list, tuple)):
        return [_to_likelihoods(item) for item in value]
    raise NotCoercible


def _to_nothing(_value: Any) -> NoReturn:
    """Refuse the types that are not of an LLM's run: images, boxes, ranked lists, time series."""
    raise NotCoercible


_COERCERS: Mapping[str, Callable[[Any], Any]] = {
    "INTEGER": _to_integer,
    "FLOAT": _to_float,
    "BOOLEAN": _to_boolean,
    "TIMESTAMP": _to_timestamp,
    LIKELIHOODS: _to_all_likelihoods,
}
