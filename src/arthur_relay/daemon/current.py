"""What a reload replaces: whoever needs it looks here for each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from arthur_relay.daemon.auth import Authenticator
    from arthur_relay.daemon.settings import DaemonSettings


@dataclass(slots=True, eq=False)
class Current:
    """The settings and the access rules of now. The daemon's loop changes them.

    Attributes:
        settings: The daemon's own settings.
        access: Who may send.
    """

    settings: DaemonSettings
    access: Authenticator
