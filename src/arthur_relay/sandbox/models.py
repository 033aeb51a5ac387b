"""Models: the demo model's schema, and what a model's JSON must hold. Pure."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from arthur_relay.destinations.scope.schema import COMMON_ATTRIBUTES, Attribute

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEMO_PARTNER_MODEL_ID: Final = "arthur-relay-demo"

STAGES: Final = frozenset(
    {
        "PIPELINE_INPUT",
        "PREDICT_FUNCTION_INPUT",
        "NON_INPUT_DATA",
        "PREDICTED_VALUE",
        "GROUND_TRUTH",
        "GROUND_TRUTH_CLASS",
    }
)
GROUND_TRUTH_STAGES: Final = frozenset({"GROUND_TRUTH", "GROUND_TRUTH_CLASS"})
VALUE_TYPES: Final = frozenset(
    {
        "STRING",
        "INTEGER",
        "FLOAT",
        "BOOLEAN",
        "TIMESTAMP",
        "UNSTRUCTURED_TEXT",
        "TOKENS",
        "TOKEN_LIKELIHOODS",
        "IMAGE",
        "BOUNDING_BOX",
        "RANKED_LIST",
        "ARRAY(STRING)",
        "TIME_SERIES",
    }
)
# Letters, digits, underscore, no leading digit, at most 255 characters (arthur-client 0.13.0).
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)


class InvalidModelError(ValueError):
    """A model's JSON that Arthur would refuse; the message says what is wrong with it."""


def attribute(name: str, value_type: str, stage: str, **more: Any) -> dict[str, Any]:
    """One attribute as the API writes it.

    Args:
        name: Letters, digits and underscores, no leading digit.
        value_type: One of `VALUE_TYPES`.
        stage: One of `STAGES`.
        **more: Any other field of an attribute; it wins over the defaults.

    Returns:
        The attribute's JSON object. It is not checked here.
    """
    return {
        "name": name,
        "value_type": value_type,
        "stage": stage,
        "position": 0,
        "categorical": False,
        "is_unique": False,
        "monitor_for_bias": False,
    } | more


def demo_attributes() -> list[dict[str, Any]]:
    """The demo model's attributes: all that the relay usually fills in for an LLM's run.

    Returns:
        A new list; text, tokens and likelihoods first, then the run's metadata.
    """
    attributes = []
    positions: Counter[str] = Counter()
    for each in (*COMMON_ATTRIBUTES[:-2], _OF_THE_APPLICATION, *COMMON_ATTRIBUTES[-2:]):
        more = _MORE.get(each.name, {})
        position = positions[each.stage]
        attributes.append(
            attribute(each.name, each.value_type, each.stage, position=position, **more)
        )
        positions[each.stage] += 1
    return attributes


_OF_THE_APPLICATION: Final = Attribute("user_id", "STRING", "NON_INPUT_DATA")
"""Filled in from the metadata that the application gives."""

_MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "input_text": {"is_unique": True},
    "output_text": {"is_unique": True, "token_attribute_link": "output_tokens"},
    "output_tokens": {"token_attribute_link": "output_text"},
}


def build_model(given: Mapping[str, Any], *, model_id: str, created_at: str) -> dict[str, Any]:
    """Complete a model's JSON as the server does when it registers the model.

    Args:
        given: What the client sent; unknown fields are kept.
        model_id: The id it gets.
        created_at: ISO 8601, with a timezone.

    Returns:
        The model as `GET /models/{id}` answers it.

    Raises:
        InvalidModelError: a field is missing or has a value that Arthur does not know.
    """
    attributes = given.get("attributes")
    partner_model_id = given.get("partner_model_id")
    if not isinstance(partner_model_id, str) or not partner_model_id:
        raise InvalidModelError("partner_model_id is required and must be a non-empty string")
    for field in ("input_type", "output_type"):
        if not isinstance(given.get(field), str):
            raise InvalidModelError(f"{field} is required and must be a string")
    if not isinstance(attributes, list) or not attributes:
        raise InvalidModelError("attributes is required and must be a non-empty list")
    _check_attributes(attributes)
    return {
        "display_name": partner_model_id,
        "description": "",
        "is_batch": False,
        "tags": [],
        **given,
        "id": model_id,
        "status": "Ready",
        "archived": False,
        "created_at": created_at,
        "updated_at": created_at,
    }


def _check_attributes(attributes: Iterable[Any]) -> None:
    seen: set[str] = set()
    for found in attributes:
        if not isinstance(found, dict):
            raise InvalidModelError("each attribute must be an object")
        name = found.get("name")
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise InvalidModelError(
                f"attribute name {name!r} must be letters, digits and underscores, "
                "must not begin with a digit, and may have 255 characters at most"
            )
        if name in seen:
            raise InvalidModelError(f"attribute {name!r} occurs twice")
        seen.add(name)
        for field, known in (("value_type", VALUE_TYPES), ("stage", STAGES)):
            if found.get(field) not in known:
                raise InvalidModelError(
                    f"attribute {name!r} has an unknown {field} {found.get(field)!r}; "
                    f"known are {', '.join(sorted(known))}"
                )
