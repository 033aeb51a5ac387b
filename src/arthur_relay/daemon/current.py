"""What a reload replaces; it is looked up anew for each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arthur_relay.daemon.auth import Authenticator
    from arthur_relay.daemon.settings import DaemonSettings


@dataclass(slots=True, eq=False)
class Current:
    """The current settings and access rules. The daemon's loop replaces them.

    Attributes:
        settings: The daemon's own settings.
        access: Decides who may send.
    """

    settings: DaemonSettings
    access: Authenticator
