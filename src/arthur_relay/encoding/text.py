"""The input text of a run, from the snapshots of its messages; and making any text sendable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, get_buffer_string

from arthur_relay.plain_values import clean_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_core.messages import BaseMessage

    from arthur_relay.inference import MessageSnapshot

PLAIN_ROLES: Mapping[type, str] = {HumanMessage: "Human", AIMessage: "AI", SystemMessage: "System"}
"""The classes whose text `get_buffer_string` prints behind their role, with any calls behind it.

The classes themselves, not what is derived of them.
"""


def input_text(prompt: str | list[MessageSnapshot] | None) -> str:
    """Return what LangChain itself would hand to a handler that takes text.

    For chat models that is `get_buffer_string(messages)`, for completion models the prompt, so
    distributions in Arthur stay as they were under the old handler. Images, audio and other
    blocks without text are left out, as LangChain does. Never raises.
    """
    if prompt is None:
        return ""
    if isinstance(prompt, str):
        return prompt
    return "\n".join(
        [
            f"{PLAIN_ROLES[cls]}: {kept}" if isinstance(kept, str) else _printed(_revive(cls, kept))
            for cls, kept in prompt
        ]
    )


def _revive(cls: type[BaseMessage], fields: dict[str, Any]) -> BaseMessage:
    """Make a message of a snapshot again, without validation: it was a message before."""
    message = cls.__new__(cls)
    # What pydantic's model_construct sets; that method is not used because subclasses override
    # it, and because it would fill in defaults for fields that the application had deleted.
    object.__setattr__(message, "__dict__", fields)
    object.__setattr__(message, "__pydantic_fields_set__", set(fields))
    object.__setattr__(message, "__pydantic_extra__", None)
    object.__setattr__(message, "__pydantic_private__", None)
    return message


def _printed(message: BaseMessage) -> str:
    try:
        return get_buffer_string([message])
    except Exception:  # noqa: BLE001 - one odd message must not cost the text of the others
        role = getattr(message, "type", type(message).__name__)
        content = getattr(message, "content", "")
        return f"{role}: {content if isinstance(content, str) else ''}"


def sendable(value: Any) -> Any:
    """Return a JSON-like value with every text made valid for Arthur.

    NUL bytes are removed, because a database that refuses them would refuse the row for ever.
    Lone surrogates, which have no UTF-8 form, become U+FFFD; surrogate pairs become the
    character they stand for. Integers beyond 64 bits, which the encoder can't write, become
    floats.
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
    """Cut a text to at most `max_bytes` of UTF-8 on a character's border, and say so at its end.

    The note is counted in; a limit shorter than the note gives the note alone.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= max_bytes:
        return text
    room = max(0, max_bytes - len(note.encode()))
    return data[:room].decode("utf-8", "ignore") + note
