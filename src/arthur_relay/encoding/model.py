"""A model's id and fields, for any destination."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import unquote

from arthur_relay.errors import ConfigurationError

MAX_MODEL_CHARACTERS = 255
"""The maximum length of a model's id; Arthur's have 36 characters."""

_MOST_ENCODINGS = 8
_SLASHES = re.compile(r"[/\\]")
_STEPS = frozenset({"", ".", ".."})


class Schema(Protocol):
    """The fields of a model that a destination has registered; immutable."""

    @property
    def model_id(self) -> str:
        """The destination's id of the model."""
        ...

    @property
    def types(self) -> Mapping[str, str]:
        """The value type of each field of an inference, in the destination's words, by name."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return the destination's description of the model, as a new JSON object."""
        ...


def check_model_id(model_id: object) -> str:
    """Return a model's id, if it can be part of a request.

    Raises:
        ConfigurationError: The id is not a text, is blank or too long, or would change the path of
            a request.
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
    """Return whether a model's id stays one segment of a URL's path, whoever reads the URL.

    `.` and `..` are steps in a path. Clients and proxies resolve them before Arthur sees the path,
    so the request would go to another route, with our credentials. Steps are refused between
    slashes too, with parameters (`..;x`, which Java's servers drop), and however often they are
    encoded, because a proxy may decode once more. Control characters are refused: no id has any.
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
