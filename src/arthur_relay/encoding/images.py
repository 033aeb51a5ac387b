"""How long the inline images are that spans hold, by OpenInference's variable."""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "OPENINFERENCE_BASE64_IMAGE_MAX_LENGTH"

MAX_IMAGE_CHARACTERS = 32_000
"""OpenInference's default."""


def max_image_characters(environment: Mapping[str, str]) -> int:
    """Return how long an inline image may be; the default where the variable is no number."""
    try:
        return int(environment[VARIABLE])
    except (KeyError, ValueError):
        return MAX_IMAGE_CHARACTERS
