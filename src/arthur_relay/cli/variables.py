"""Variables that look like the relay's settings or the daemon's, and are none of either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from arthur_relay import variables
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def unknown_variables(names: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield the names that are no setting of either. See `variables.unknown_variables`."""
    settings = [DAEMON_PREFIX + name.upper() for name in DaemonSettings.model_fields]
    settings += [ENVIRONMENT_PREFIX + name.upper() for name in RelaySettings.model_fields]
    yield from variables.unknown_variables(names, settings)
