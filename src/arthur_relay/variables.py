"""Environment variables that look like settings and are none: typos, mostly."""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

logger = logging.getLogger("arthur_relay.settings")

ENVIRONMENT_PREFIX: Final = "ARTHUR_RELAY_"

DAEMON_PREFIX: Final = "ARTHUR_RELAY_DAEMON_"
"""The daemon says itself which of these are none; applications have them in their environment too
where one file of variables serves both."""

_OF_THE_SDK: Final = (
    "ARTHUR_API_KEY",
    "ARTHUR_ENDPOINT_URL",
    "ARTHUR_LOGIN",
    "ARTHUR_MODEL_ID",
    "ARTHUR_ORGANIZATION_ID",
    "ARTHUR_PASSWORD",
)

_OF_KUBERNETES: Final = re.compile(r"ARTHUR_RELAY_(SERVICE_(HOST|PORT)|PORT)(_\w+)?")
"""What Kubernetes puts into every pod's environment when a service is called `arthur-relay`."""

_logged: set[str] = set()
"""What was logged in this process: settings are read for each handler, and once is enough."""


def unknown_variables(
    names: Iterable[str], settings: Sequence[str]
) -> Iterator[tuple[str, str | None]]:
    """Yield the names that begin like a setting's and are none, sorted, each with the nearest one.

    The nearest is a setting's variable or one that the SDK has without `RELAY`; None when no name
    is near. Case does not matter, as it does not to the settings. Pure.

    Args:
        names: The variables' names.
        settings: Those that are settings, in capitals.
    """
    for name in sorted(names):
        upper = name.upper()
        if not upper.startswith(ENVIRONMENT_PREFIX) or upper in settings:
            continue
        if _OF_KUBERNETES.fullmatch(upper) is None:
            yield name, _nearest(upper, settings)


def sentence(name: str, nearest: str | None) -> str:
    """Say that a variable is unknown."""
    hint = f": did you mean {nearest}?" if nearest else "."
    return f"{name} is not a setting, and is ignored{hint}"


def warn_of_unknown(names: Iterable[str], settings: Sequence[str]) -> None:
    """Log each name that is no setting and no one's of the daemon, once in a process.

    Only a warning: a variable that is too many must not break an application. Never raises, any
    thread.
    """
    # Settings are read for each handler: the nearest name is looked for once.
    new = [name for name in names if name not in _logged]
    own = [name for name in new if not name.upper().startswith(DAEMON_PREFIX)]
    for name, nearest in unknown_variables(own, settings):
        _logged.add(name)
        logger.warning("arthur-relay: %s", sentence(name, nearest))


def leave_to_command(names: Iterable[str]) -> None:
    """Have nothing logged of these: a command reports them itself, with the daemon's."""
    _logged.update(names)


def _nearest(name: str, settings: Sequence[str]) -> str | None:
    without_relay = name.replace("RELAY_", "", 1)
    if without_relay in _OF_THE_SDK:
        return without_relay
    # Compared without what all of them begin with, which would make any two look alike.
    known = [setting.removeprefix(ENVIRONMENT_PREFIX) for setting in settings]
    found = get_close_matches(name.removeprefix(ENVIRONMENT_PREFIX), known, n=1)
    return ENVIRONMENT_PREFIX + found[0] if found else None
