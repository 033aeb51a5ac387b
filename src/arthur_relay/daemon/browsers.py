"""Keeps pages of other sites in a local browser from sending rows and reading views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.daemon.auth import Endpoint
from arthur_relay.http_server.web_origins import foreign_host, foreign_origin

if TYPE_CHECKING:
    from arthur_relay.daemon.current import Current

PROBES = frozenset({"/health", "/healthz", "/readyz"})
"""They reveal nothing, and are reached by any host name."""

_API = ("/api/", "/v1/")

FOREIGN_HOST = (
    "the daemon is asked for by a name that is not its own: use its address or localhost, or put"
    " the name into ARTHUR_RELAY_DAEMON_ALLOWED_HOSTS"
)
FOREIGN_ORIGIN = "the request comes from another site's page"


def is_api(path: str) -> bool:
    """Return whether a path is one of Arthur's or of OpenTelemetry's API, and no view."""
    return path.startswith(_API)


@dataclass(frozen=True, slots=True)
class Browsers:
    """Checks the requests of one listener.

    Attributes:
        endpoint: The listener.
        current: Whether the listener requires tokens, which no page has, and the allowed host
            names.
        own_name: The host's name, in lower case; it is allowed too.
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
        # A browser can't reach the API on a Unix socket, and its clients give any host name. The
        # socket's page may be forwarded to a port.
        if self.endpoint is Endpoint.SOCKET and is_api(path):
            return ""
        allowed = {self.own_name, *(self.current.settings.allowed_hosts or ())}
        return FOREIGN_HOST if foreign_host(host, allowed) else ""
