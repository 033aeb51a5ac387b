"""Which attributes of a model the relay will fill in, told from the model's schema. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from arthur_relay.encoding.coerce import NotCoercible, coercer
from arthur_relay.encoding.run_fields import RUN_VALUES

if TYPE_CHECKING:
    from arthur_relay.destinations.scope.schema import ModelSchema

_EXAMPLES: Final = {
    "STRING": "text",
    "INTEGER": 12,
    "FLOAT": 0.75,
    "BOOLEAN": True,
    "ARRAY(STRING)": ["production"],
}
"""A value of each type that what a run tells by name can have by nature."""


class Coverage(NamedTuple):
    """What becomes of a model's optional attributes. Every list may be empty.

    Attributes:
        sent: Those that the relay fills in.
        absent: Those that it could fill in, had the model registered them.
        unfit: Those that are registered as a type that can't hold what the relay sends, with it.
        own: Others, which are filled in from the run's metadata when it has a key of that name.
    """

    sent: list[str]
    absent: list[str]
    unfit: list[tuple[str, str]]
    own: list[str]


def coverage(schema: ModelSchema) -> Coverage:
    """Say what becomes of a model's optional attributes, in the order in which they are read."""
    found = Coverage(sent=[], absent=[], unfit=[], own=[])
    for role, name in (("tokens", schema.tokens), ("likelihoods", schema.likelihoods)):
        if name is None:
            found.absent.append(f"token {role}" if role == "likelihoods" else role)
        else:
            found.sent.append(name)
    for name, value in RUN_VALUES.items():
        value_type = schema.types.get(name)
        if value_type is None:
            found.absent.append(name)
        elif _fits(_EXAMPLES[value.kind], value_type):
            found.sent.append(name)
        else:
            found.unfit.append((name, value_type))
    used = {schema.input_text, schema.output_text, schema.tokens, schema.likelihoods}
    used |= RUN_VALUES.keys()
    found.own.extend(name for name in schema.types if name not in used)
    return found


def _fits(value: object, value_type: str) -> bool:
    try:
        coercer(value_type)(value)
    except NotCoercible:
        return False
    return True
