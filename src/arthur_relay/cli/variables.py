"""Environment variables that look like settings and are none: typos, mostly. Pure."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


def unknown_variables(names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the names that begin like a setting's and are none, sorted, each with the nearest one.

    The nearest is a setting's variable or one that the SDK has without `RELAY`; None when no name
    is near. Case does not matter, as it does not to the settings.
    """
    settings = [DAEMON_PREFIX + name.upper() for name in DaemonSettings.model_fields]
    settings += [ENVIRONMENT_PREFIX + name.upper() for name in RelaySettings.model_fields]
    for name in sorted(names):
        upper = name.upper()
        if not upper.startswith(ENVIRONMENT_PREFIX) or upper in settings:
            continue
        if _OF_KUBERNETES.fullmatch(upper) is None:
            yield name, _nearest(upper, settings)


def _nearest(name: str, settings: list[str]) -> str | None:
    without_relay = name.replace("RELAY_", "", 1)
    if without_relay in _OF_THE_SDK:
        return without_relay
    # Compared without what all of them begin with, which would make any two look alike.
    known = [setting.removeprefix(ENVIRONMENT_PREFIX) for setting in settings]
    found = get_close_matches(name.removeprefix(ENVIRONMENT_PREFIX), known, n=1)
    return ENVIRONMENT_PREFIX + found[0] if found else None
