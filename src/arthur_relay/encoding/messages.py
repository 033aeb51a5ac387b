"""The texts of LangChain's messages, from their snapshots, as LangChain itself would print them.

No other module of the pipeline needs LangChain's messages, whose import would take a fifth of the
daemon's start. The handler that takes snapshots imports it, and nobody else before that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, get_buffer_string

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from langchain_core.messages import BaseMessage

    from arthur_relay.inference import MessageSnapshot

PLAIN_ROLES: Mapping[type, str] = {HumanMessage: "Human", AIMessage: "AI", SystemMessage: "System"}
"""The classes that `get_buffer_string` prints as their role, their text and any calls.

Subclasses do not count.
"""


def print_messages(messages: Sequence[MessageSnapshot]) -> str:
    """Return the messages as `get_buffer_string` prints them. Never raises."""
    return "\n".join(
        [
            f"{PLAIN_ROLES[cls]}: {kept}" if isinstance(kept, str) else _printed(_revive(cls, kept))
            for cls, kept in messages
        ]
    )


def _revive(cls: type[BaseMessage], fields: dict[str, Any]) -> BaseMessage:
    """Recreate a message from its snapshot, without validation: it was a message before."""
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
