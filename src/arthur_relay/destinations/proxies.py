"""Which proxy of the environment is used for an address; entries that can't be read are left out.

Other programs use the same variables, and may read them differently: a value that we can't read
must not raise in an application. They are read as curl reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx

_SOCKS = ("socks5", "socks5h")


@dataclass(frozen=True, slots=True)
class Route:
    """How an address is reached.

    Attributes:
        proxy: The proxy's address, which may hold a password; None when there is none.
        problems: What is left out of the environment, in sentences that quote no value.
    """

    proxy: str | None = None
    problems: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Route(proxy={'...' if self.proxy else None}, problems={self.problems!r})"


def route_to(url: str, proxies: Mapping[str, str] | None = None) -> Route:
    """Return how to reach an address.

    Args:
        url: The address, http or https.
        proxies: Proxies by scheme, and under `no` the hosts that need none. By default those of
            the environment, or of the operating system.
    """
    found = getproxies() if proxies is None else proxies
    target = urlsplit(url)
    scheme = next((name for name in (target.scheme, "all") if found.get(name)), None)
    if scheme is None:
        return Route()
    passed_by, problems = _is_passed_by(target.hostname or "", target.port, found.get("no", ""))
    if passed_by:
        return Route(problems=problems)
    proxy = found[scheme].strip()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    problem = _problem(proxy)
    if not problem:
        return Route(proxy, problems)
    sentence = (
        f"The proxy in {scheme.upper()}_PROXY can't be used ({problem}): it is left out, and Arthur"
        " is asked without it."
    )
    return Route(problems=(*problems, sentence))


def _problem(proxy: str) -> str:
    """Return why a proxy can't be used, or ""."""
    try:
        parts = urlsplit(proxy)
        is_whole = bool(parts.hostname) and parts.port != 0
        scheme = httpx.Proxy(proxy).url.scheme
    except httpx.InvalidURL:
        return "it is no address"
    except ValueError:
        return "it is no address of an http, https or socks5 proxy"
    if not is_whole:
        return "it is no address"
    if scheme in _SOCKS and find_spec("socksio") is None:
        return "for socks5 the package socksio is needed: pip install 'httpx[socks]'"
    return ""


def _is_passed_by(host: str, port: int | None, no_proxy: str) -> tuple[bool, tuple[str, ...]]:
    """Return whether a host needs no proxy, and what is left out of `NO_PROXY`."""
    host = host.lower().rstrip(".")
    unclear = 0
    for entry in no_proxy.lower().split(","):
        text = entry.strip()
        if not text:
            continue
        if text == "*":
            return True, ()
        matches = _matches(text, host, port)
        if matches:
            return True, ()
        unclear += matches is None
    if not unclear:
        return False, ()
    entries = "1 entry" if unclear == 1 else f"{unclear} entries"
    return False, (f"{entries} of NO_PROXY can't be understood: left out.",)


def _matches(entry: str, host: str, port: int | None) -> bool | None:
    """Return whether an entry matches the host; None when the entry can't be read."""
    if "/" in entry and "://" not in entry:
        return _is_in_network(entry, host)
    try:
        address = ip_address(entry.removeprefix("[").removesuffix("]"))
    except ValueError:
        return _is_name(entry, host, port)
    try:
        return address == ip_address(host)
    except ValueError:
        return False


def _is_name(entry: str, host: str, port: int | None) -> bool | None:
    try:
        parts = urlsplit(entry if "://" in entry else f"//{entry}")
        name, named_port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name:
        return None
    if named_port is not None and port is not None and named_port != port:
        return False
    name = name.removeprefix("*").removeprefix(".").rstrip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_in_network(entry: str, host: str) -> bool | None:
    try:
        network = ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None
    try:
        return ip_address(host) in network
    except ValueError:
        return False  # a name, which is not resolved for this
