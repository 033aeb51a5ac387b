"""How a spool's file keeps the text that describes a model: with a checksum, to notice damage."""

from zlib import crc32

import orjson

_CRC = "relay_crc32"
"""The member that holds the checksum of the others; earlier releases wrote none."""


def seal(text: str) -> str:
    """Add the checksum to a model's text, for `unseal`."""
    document = orjson.loads(text)
    document[_CRC] = crc32(orjson.dumps(document))
    return orjson.dumps(document).decode()


def unseal(model_id: str, sealed: str) -> str | None:
    """Return the text that was sealed, or None when it is not as it was written.

    Args:
        model_id: The id that it was kept under.
        sealed: The text with its checksum.
    """
    try:
        document = orjson.loads(sealed)
        expected = document.pop(_CRC, None)
        text = orjson.dumps(document)
        if expected is None:
            document["attributes"]  # what has no checksum has at least these
        elif expected != crc32(text):
            return None
        return text.decode() if str(document["id"]) == model_id else None
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
