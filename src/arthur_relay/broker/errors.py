"""What can be wrong with the broker for a while; what a person has to change is another error."""

from __future__ import annotations

from typing import Final

from arthur_relay.errors import RelayError

PAUSE_SECONDS: Final = 0.5
"""Before the broker is asked again after it did not answer."""


class BrokerAwayError(RelayError):
    """The broker did not answer, or has no leader now; trying again may work."""


class BrokerFullError(RelayError):
    """The broker takes no more messages until some are gone."""
