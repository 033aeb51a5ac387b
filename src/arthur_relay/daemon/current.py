"""What a reload replaces; it is looked up anew for each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.settings import share

if TYPE_CHECKING:
    from arthur_relay.daemon.auth import Authenticator
    from arthur_relay.daemon.settings import DaemonSettings


@dataclass(slots=True, eq=False)
class Current:
    """The current settings and access rules. The daemon's loop replaces them.

    Attributes:
        settings: The daemon's own settings.
        access: Decides who may send.
        products: How many products share the bounds.
    """

    settings: DaemonSettings
    access: Authenticator
    products: int

    @property
    def max_intake_bytes(self) -> int:
        """The bytes of requests' bodies that one product may have in memory at once."""
        return share(self.settings.max_intake_bytes, products=self.products)
