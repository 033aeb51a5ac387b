"""What the setting `redact` may hold: the names of built-in redactors, and functions."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

from arthur_relay.settings.functions import read_function


class BuiltInRedactor(StrEnum):
    """The redactors that come with the relay; `ALL` stands for all of them, in this order."""

    API_KEY = "api_key"
    EMAIL = "email"
    CREDIT_CARD = "credit_card"
    IP_ADDRESS = "ip_address"
    PHONE = "phone"
    ALL = "all"


Redactor = Callable[[str], str]
"""Returns a text without what must not be told. The worker's thread calls it, with any text."""


def read_redactors(given: Any) -> tuple[BuiltInRedactor | Redactor, ...] | None:
    """Read `redact`: names, separated by commas in a text, and functions; None when it is empty.

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
