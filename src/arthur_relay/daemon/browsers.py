"""What keeps pages of other sites, in a browser on this machine, from writing and reading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.auth import Endpoint
from arthur_relay.http_server.web_origins import foreign_host, foreign_origin

if TYPE_CHECKING:
    from arthur_relay.daemon.current import Current

PROBES = frozenset({"/healthz", "/readyz"})
"""They say nothing worth keeping, and are asked by whatever name there is."""

API = "/api/"

FOREIGN_HOST = (
    "the daemon is asked for by a name that is not its own: use its address or localhost, or put"
    " the name into ARTHUR_RELAY_DAEMON_ALLOWED_HOSTS"
)
FOREIGN_ORIGIN = "the request comes from another site's page"


@dataclass(frozen=True, slots=True)
class Browsers:
    """Judges requests of one listener.

    Attributes:
        endpoint: Where they come in.
        current: Knows whether the door asks for tokens, which no page has, and the names that the
            daemon may be asked for by.
        own_name: The host's name, in lower case: one of those.
    """

    endpoint: Endpoint
    current: Current
    own_name: str = ""

    def refusal(self, path: str, headers: Mapping[str, str]) -> str:
        """Return why a request is refused, or ""."""
        if path in PROBES or (self.endpoint is Endpoint.TCP and self.current.access.has_tokens):
            return ""
        host = headers.get("host", "")
        if foreign_origin(headers.get("origin", ""), host):
            return FOREIGN_ORIGIN
        # The API on a Unix socket is out of a browser's reach, and its clients give any name; its
        # page may have been forwarded to a port.
        if self.endpoint is Endpoint.SOCKET and path.startswith(API):
            return ""
        allowed = {self.own_name, *(self.current.settings.allowed_hosts or ())}
        return FOREIGN_HOST if foreign_host(host, allowed) else ""
