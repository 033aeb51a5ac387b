"""A model as Arthur Scope has registered it: its attributes, read from Arthur's description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arthur_relay.encoding.coerce import LIKELIHOODS, TEXT, TOKENS
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.errors import ModelError

INPUT = "PIPELINE_INPUT"
PREDICTED = "PREDICTED_VALUE"
NON_INPUT = "NON_INPUT_DATA"

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
    """One registered attribute.

    Attributes:
        name: Its name.
        value_type: Its type in Arthur's words, such as `FLOAT`.
        stage: What it is in Arthur's words, such as `NON_INPUT_DATA`.
        position: Its place among the model's attributes.
    """

    name: str
    value_type: str
    stage: str
    position: int = 0


_USUAL_RUN_VALUES = (
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "duration",
    "time_to_first_token",
    "model_name",
    "outcome",
    "error",
    "tool_calls",
    "tags",
)

COMMON_ATTRIBUTES = (
    Attribute("input_text", TEXT, INPUT),
    Attribute("output_text", TEXT, PREDICTED),
    Attribute("output_tokens", TOKENS, PREDICTED),
    Attribute("output_likelihoods", LIKELIHOODS, PREDICTED),
    *(Attribute(name, RUN_VALUES[name].kind, NON_INPUT) for name in _USUAL_RUN_VALUES),
    Attribute("thumbs_up", "BOOLEAN", "GROUND_TRUTH"),
)
"""The attributes that the relay usually fills in, by their usual names, and a ground truth."""


class ModelSchema:
    """The attributes of a model that the encoder fills in; immutable.

    Attributes:
        model_id: Arthur's id of the model.
        input_text: Name of the first unstructured-text pipeline input.
        output_text: Name of the first unstructured-text predicted value.
        likelihoods: Name of the first attribute of type TOKEN_LIKELIHOODS, or None.
        tokens: Name of the predicted attribute of type TOKENS, or None.
        types: Value type by name, of every attribute that an inference may carry.
        ground_truth_types: Value type by name, of every attribute that ground truth may carry.
        attributes: All attributes, in Arthur's order.
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
        ordered = sorted(attributes, key=_place)
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
        """Return a description that `from_json` reads: Arthur's own, if there is one."""
        if self.document is not None:
            return dict(self.document)
        return {"id": self.model_id, "attributes": [asdict(item) for item in self.attributes]}

    @classmethod
    def from_json(cls, document: Any) -> ModelSchema:
        """Read Arthur's answer to `GET /models/{id}?expand=attributes`; ignore unknown fields.

        Raises:
            ModelError: The document is no such answer, or the model is not an LLM.
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


def _types(attributes: Iterable[Attribute], stages: frozenset[str]) -> Mapping[str, str]:
    return {each.name: each.value_type for each in attributes if each.stage in stages}


def _first(attributes: Sequence[Attribute], value_type: str, stage: str | None) -> str | None:
    for attribute in attributes:
        if attribute.value_type == value_type and stage in (None, attribute.stage):
            return attribute.name
    return None


def _place(attribute: Attribute) -> tuple[int, int]:
    return _STAGE_ORDER.get(attribute.stage, 5), attribute.position


def _required(model_id: str, attributes: Sequence[Attribute], stage: str, role: str) -> str:
    name = _first(attributes, TEXT, stage)
    if name is None:
        raise ModelError(
            f"Arthur's model {model_id} is not a text model: it has no text {role} (an attribute"
            f" of type {TEXT} at stage {stage}). Give the id of a TOKEN_SEQUENCE model.",
            reason="not a text model",
        )
    return name
