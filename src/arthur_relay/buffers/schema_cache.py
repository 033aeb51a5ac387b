"""Keeps models' schemas for a later process, as texts that only their users interpret.

A text is a JSON object whose `id` is the model's. On disk it also has a checksum, so that a damaged
text is recognised.
"""

from collections.abc import Mapping
from typing import Any, Protocol
from zlib import crc32

import orjson

_CRC = "relay_crc32"
"""The member with the checksum of the others. Texts of earlier releases have none, and are accepted
if they have attributes."""


class SchemaCache(Protocol):
    """Keeps models' schemas for a start during an outage. Worker's thread only."""

    def texts(self) -> Mapping[str, str]:
        """Return the readable texts, by model."""
        ...

    def keep(self, model_id: str, text: str) -> None:
        """Keep a model's text and replace an earlier one. A failing disk raises nothing.

        Args:
            model_id: The model.
            text: A JSON object with the model's `id`.
        """
        ...

    def forget(self, model_id: str) -> None:
        """Forget a model that the destination does not know. A failing disk raises nothing."""
        ...


class NoSchemaCache:
    """Stands in for `SchemaCache` where no disk is used."""

    def texts(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    def keep(self, model_id: str, text: str) -> None:
        """Do nothing."""

    def forget(self, model_id: str) -> None:
        """Do nothing."""


def seal(text: str) -> str:
    """Add the checksum to a model's text, for `unseal`."""
    document = orjson.loads(text)
    document[_CRC] = crc32(orjson.dumps(document))
    return orjson.dumps(document).decode()


def unseal(model_id: str, sealed: str) -> str | None:
    """Return the text that was sealed, or None when it is damaged.

    Args:
        model_id: The model under which it was kept.
        sealed: The text with its checksum.
    """
    try:
        document: Any = orjson.loads(sealed)
    except ValueError:
        return None
    if not isinstance(document, dict) or document.get("id") != model_id:
        return None
    expected = document.pop(_CRC, None)
    text = orjson.dumps(document)
    is_whole = document.get("attributes") if expected is None else expected == crc32(text)
    return text.decode() if is_whole else None
