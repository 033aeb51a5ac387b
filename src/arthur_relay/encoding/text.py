"""The input text of a run, from the snapshots of its messages; and texts that Arthur accepts."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from arthur_relay.encoding.plain_values import clean_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.inference import MessageSnapshot


def input_text(prompt: str | list[MessageSnapshot] | None) -> str:
    """Return the text that LangChain itself would give to a text handler.

    For chat models that is `get_buffer_string(messages)`, for completion models the prompt. So
    distributions in Arthur stay as they were with the old handler. Images, audio and other blocks
    without text are omitted, as LangChain does. Never raises.
    """
    if prompt is None:
        return ""
    return prompt if isinstance(prompt, str) else _printer()(prompt)


@cache
def _printer() -> Callable[[list[MessageSnapshot]], str]:
    """Return `print_messages`; a handler has imported it before it took the first snapshot."""
    from arthur_relay.encoding.messages import print_messages  # noqa: PLC0415 - see that module

    return print_messages


def sendable(value: Any) -> Any:
    """Return a JSON-like value whose texts and numbers Arthur accepts.

    NUL bytes are removed, because a database that refuses them would refuse the row for ever.
    Lone surrogates, which have no UTF-8 form, become U+FFFD; surrogate pairs become the character
    that they stand for. Integers beyond 64 bits, which the encoder can't write, become floats.
    """
    match value:
        case str():
            return clean_text(value)
        case bool():
            return value
        case int() if not -(2**63) <= value < 2**64:
            return float(value) if abs(value) < 2**1023 else None
        case dict():
            return {clean_text(str(key)): sendable(item) for key, item in value.items()}
        case list() | tuple():
            return [sendable(item) for item in value]
        case _:
            return value


def truncate_text(text: str, max_bytes: int, *, note: str) -> str:
    """Cut a text to at most `max_bytes` of UTF-8, between two characters, and add a note.

    The limit includes the note; if it is shorter than the note, the result is the note alone.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    room = max(0, max_bytes - len(note.encode()))
    return data[:room].decode("utf-8", "ignore") + note
