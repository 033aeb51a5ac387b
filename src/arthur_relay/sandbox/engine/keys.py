"""Keys: which role each has, and what a role may do."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping


class Role(StrEnum):
    """The Engine's roles. The admin key makes keys and tasks, and may not write traces."""

    ADMIN_KEY = "admin key"
    """Reads traces, makes tasks."""
    ORG_ADMIN = "ORG-ADMIN"
    """Reads and writes traces, gives feedback, makes tasks."""
    ORG_AUDITOR = "ORG-AUDITOR"
    """Reads traces and tasks."""
    TASK_ADMIN = "TASK-ADMIN"
    """Reads and writes traces, gives feedback, makes tasks."""
    TENANT_USER = "TENANT-USER"
    """Reads traces and gives feedback."""
    VALIDATION_USER = "VALIDATION-USER"
    """Writes traces and gives feedback."""
    CHAT_USER = "CHAT-USER"
    """Writes traces and gives feedback."""


class Permission(Enum):
    """What a route asks for."""

    WRITE_TRACES = "write traces"
    READ_TRACES = "read traces"
    ANNOTATE = "annotate traces"
    READ_TASKS = "read tasks"
    WRITE_TASKS = "write tasks"


_WRITERS: Final = frozenset({Role.ORG_ADMIN, Role.TASK_ADMIN, Role.VALIDATION_USER, Role.CHAT_USER})
_TASK_READERS: Final = frozenset(
    {Role.ADMIN_KEY, Role.ORG_ADMIN, Role.ORG_AUDITOR, Role.TASK_ADMIN}
)
_ALLOWED: Final = {
    Permission.WRITE_TRACES: _WRITERS,
    Permission.READ_TRACES: _TASK_READERS | {Role.TENANT_USER},
    Permission.ANNOTATE: _WRITERS | {Role.TENANT_USER},
    Permission.READ_TASKS: _TASK_READERS,
    Permission.WRITE_TASKS: frozenset({Role.ADMIN_KEY, Role.ORG_ADMIN, Role.TASK_ADMIN}),
}


def role_of(keys: Mapping[str, Role], authorization: str | None) -> Role | None:
    """Return the role of a request's key, or None when it has none that is known."""
    scheme, _, key = (authorization or "").partition(" ")
    return keys.get(key.strip()) if scheme.lower() == "bearer" else None


def is_allowed(role: Role, permission: Permission) -> bool:
    """Return whether a role may do something."""
    return role in _ALLOWED[permission]
