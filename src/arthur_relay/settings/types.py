"""How settings are spoken of: what is wrong with some, and values as people write them."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo


def explain(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    *,
    prefix: str,
    label: Callable[[str], str],
    default: Callable[[str], str],
    whose: str = "",
) -> str:
    """Say what is wrong with which settings, in the users' words.

    Args:
        error: What the settings' class raised.
        fields: Its fields.
        prefix: Of their environment variables.
        label: Returns what a setting is called.
        default: Returns a setting's default, as people write it.
        whose: Whose settings they are, with a space before it, where there are others.
    """
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else "?"
        # The error's place is the variable's name when the value came from the environment.
        name = name.lower().removeprefix(prefix.lower())
        field = fields.get(name)
        if field is None:
            known = ", ".join(sorted(fields))
            lines.append(f"There is no setting {name!r}{whose}; there are: {known}.")
        else:
            lines.append(
                f"{label(name)} can't be {item['input']!r}: {field.description}"
                f" (default {default(name)})."
            )
    return " ".join(lines)


def shown(value: object) -> str:
    """Return a value as people write it."""
    if value is None:
        return "none"
    return value.value if isinstance(value, StrEnum) else str(value)


def none_by_name(value: Any) -> Any:
    """Let a variable of the environment say "none", as the documentation does."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value
