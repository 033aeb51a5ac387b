"""How a spool's file remembers a model, and how what was damaged is told from what was written."""

from zlib import crc32

import orjson

from arthur_relay.encoding.schema import ModelSchema
from arthur_relay.errors import ModelError

_CRC = "relay_crc32"
"""The member with the checksum of the others; descriptions of earlier releases have none."""


def describe(schema: ModelSchema) -> str:
    """Return a model's description, for `schema_of`."""
    document = schema.to_json()
    document[_CRC] = crc32(orjson.dumps(document))
    return orjson.dumps(document).decode()


def schema_of(model_id: str, description: str) -> ModelSchema | None:
    """Return the model that a description is of, or None when it is not as it was written.

    Args:
        model_id: Under which it was kept.
        description: What was kept.
    """
    try:
        document = orjson.loads(description)
        expected = document.pop(_CRC, None)
        if expected is not None and expected != crc32(orjson.dumps(document)):
            return None
        found = ModelSchema.from_json(document)
    except (ModelError, ArithmeticError, AttributeError, TypeError, ValueError):
        return None
    return found if found.model_id == model_id else None
