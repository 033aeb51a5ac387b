"""Keeps other sites' pages out of a local web server, by the names in a request's headers.

A page of any site that a browser on this machine shows may send requests to it. It can read the
answers when its own name is pointed at this machine's address (DNS rebinding): then the request's
`Host` is that name. And it can send without reading: then `Origin` says where the page is from.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

_PRIVATE_SUFFIXES = (".localhost", ".test", ".internal", ".svc", ".cluster.local")
"""Domains that the public DNS does not have: RFC 6761's, ICANN's, and those of Kubernetes."""


def foreign_host(host: str, allowed: Collection[str] = ()) -> bool:
    """Return whether a request was made for a name that a stranger may have pointed here.

    Addresses, `localhost`, names without a dot and those of private domains are nobody else's.

    Args:
        host: The header `Host`; empty when there is none, as from no browser.
        allowed: Further names, in lower case.
    """
    name = _name(host)
    if not host or name in allowed:
        return False
    if name is None:
        return True
    try:
        ip_address(name)
    except ValueError:
        return "." in name and not name.endswith(_PRIVATE_SUFFIXES)
    return False


def foreign_origin(origin: str, host: str) -> bool:
    """Return whether a request was made by a page that is not of this server.

    Args:
        origin: The header `Origin`; empty when there is none.
        host: The header `Host`.
    """
    if not origin:
        return False
    scheme, _, authority = origin.partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme.lower())
    if port is None:  # `null`, or an extension's
        return True
    return authority.lower().removesuffix(port) != host.strip().lower().removesuffix(port)


def _name(host: str) -> str | None:
    """Return the name in `host:port`, in lower case, or None when there is none that can be."""
    try:
        parts = urlsplit(f"//{host.strip()}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or "@" in parts.netloc or not parts.hostname:
        return None
    return parts.hostname.removesuffix(".")
