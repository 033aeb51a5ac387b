"""Refuses to deliver to the daemon itself: rows would circulate and never reach Arthur."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from arthur_relay.credentials import socket_path
from arthur_relay.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PORTS = {"http": 80, "https": 443}
_ANY = ("", "0.0.0.0", "::")  # noqa: S104 - compared with, not listened on


def refuse_own_address(
    url: str,
    sockets: Iterable[str | os.PathLike[str]],
    addresses: Iterable[tuple[str, int]],
    *,
    variable: str = "ARTHUR_ENDPOINT_URL",
) -> None:
    """Refuse Arthur's address if it is the daemon's own.

    A host name is resolved only if its port is one of ours; a name that can't be resolved is not
    ours.

    Args:
        url: Arthur's address, checked.
        sockets: The paths of Unix sockets that the daemon listens on.
        addresses: The hosts and ports that it listens on; an empty host means all addresses.
        variable: Where Arthur's address is from, for the message.

    Raises:
        SettingsError: It is the daemon's own.
    """
    path = socket_path(url)
    if path is not None:
        there = os.path.realpath(path)
        is_itself = any(os.path.realpath(each) == there for each in sockets)
    else:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
        hosts = [host for host, its_port in addresses if its_port == port]
        is_itself = any(_is_the_same(parts.hostname or "", host, port) for host in hosts)
    if is_itself:
        raise SettingsError(
            f"{variable} is {url}, where this daemon itself listens: its rows would go"
            " round in a circle. Give it Arthur's own address; this one is for the applications."
        )


def _is_the_same(host: str, listening: str, port: int) -> bool:
    there = _addresses(host, port)
    if listening in _ANY:
        return any(map(_is_ours, there))
    return bool(there & _addresses(listening, port))


def _addresses(host: str, port: int) -> set[str]:
    with suppress(OSError, UnicodeError):
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return {str(address[0]) for _, _, _, _, address in found}
    return set()


def _is_ours(address: str) -> bool:
    """Return whether an address is one of this machine's: only those can be bound."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return True
    return False
