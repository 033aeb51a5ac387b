"""The types of settings that pydantic does not have: functions, redactors, and the text "none".

Also the messages about wrong settings, and values as people write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from arthur_relay.system.terminal import without_credentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from pydantic.fields import FieldInfo


def explain(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    *,
    prefix: str,
    by_keyword: bool,
    default: Callable[[str], str],
    whose: str = "",
) -> str:
    """Return a message about wrong settings, in the users' words.

    Args:
        error: The error of the settings' class.
        fields: The class's fields.
        prefix: The prefix of their environment variables.
        by_keyword: Whether code can give them too; then the message has both names of each.
        default: Returns the default of a setting as people write it.
        whose: The settings' owner, with a space before it, if there are other settings.
    """
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        name = str(item["loc"][0]) if item["loc"] else "?"
        # If the value came from the environment, the error names the variable.
        name = name.lower().removeprefix(prefix.lower())
        field = fields.get(name)
        if field is None:
            known = ", ".join(sorted(fields))
            lines.append(f"There is no setting {name!r}{whose}; there are: {known}.")
        else:
            variable = prefix + name.upper()
            label = f"{name} (or {variable})" if by_keyword else variable
            given = item["input"]
            if isinstance(given, str):
                given = without_credentials(given)
            lines.append(
                f"{label} can't be {given!r}: {field.description} (default {default(name)})."
            )
    return " ".join(lines)


def shown(value: object) -> str:
    """Return a value as people write it."""
    if value is None:
        return "none"
    return value.value if isinstance(value, StrEnum) else str(value)


def none_by_name(value: Any) -> Any:
    """Return None for the text "none", which an environment variable may have."""
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


class HashableFunction:
    """Wraps a function that can't be hashed, such as a dataclass's instance; equal by identity."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, value: Any) -> Any:
        """Call the function."""
        return self.function(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashableFunction) and other.function is self.function

    def __hash__(self) -> int:
        return id(self.function)

    def __repr__(self) -> str:
        return repr(self.function)


def read_function(given: Any) -> Callable[[Any], Any]:
    """Return a function of one argument in a form that a setting can hold.

    Raises:
        ValueError: It is not a function, or it is a coroutine function.
    """
    if not callable(given) or iscoroutinefunction(given):
        raise ValueError("not a function")
    try:
        hash(given)
    except TypeError:
        return HashableFunction(given)
    return given  # type: ignore[no-any-return] # callable() does not say of what


class BuiltInRedactor(StrEnum):
    """The redactors that come with the relay; `ALL` stands for all of them, in this order."""

    API_KEY = "api_key"
    """Keys of common providers, JSON web tokens, bearer tokens."""
    EMAIL = "email"
    """Addresses of e-mail."""
    CREDIT_CARD = "credit_card"
    """Card numbers whose checksum is right."""
    IP_ADDRESS = "ip_address"
    """Addresses of IPv4 and IPv6."""
    PHONE = "phone"
    """Numbers with a `+`, or in the usual form of a country."""
    ALL = "all"
    """All of the above."""


Redactor = Callable[[str], str]
"""Returns a text without its secrets. The worker's thread calls it, with any text."""


def read_redactors(given: Any) -> tuple[BuiltInRedactor | Redactor, ...] | None:
    """Read `redact`: names, separated by commas in a text, and functions; None if it is empty.

    Equal values make equal settings, so that handlers share a relay.

    Raises:
        ValueError: It holds something else.
    """
    if isinstance(given, str):
        given = [name for part in given.split(",") if (name := part.strip().lower())]
        given = [] if given == ["none"] else given
    elif given is None or callable(given):
        given = [] if given is None else [given]
    elif not isinstance(given, Iterable):
        raise ValueError("not redactors")
    found: dict[BuiltInRedactor | Redactor, None] = {}  # as a set, but in order
    for item in given:
        if callable(item):
            found[read_function(item)] = None
        elif (name := BuiltInRedactor(item)) is BuiltInRedactor.ALL:
            found |= dict.fromkeys(each for each in BuiltInRedactor if each is not name)
        else:
            found[name] = None
    return tuple(found) or None
