"""The daemon's listening sockets, with the right owner and mode, and its certificate."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from arthur_relay.errors import SettingsError
from arthur_relay.system.operating_system import AF_UNIX, give_to_group, group_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.daemon.settings import DaemonSettings

BACKLOG = 1024
"""Connections that may wait to be accepted; the kernel has a bound of its own (somaxconn)."""

NOTHING_TO_LISTEN_ON = "set ARTHUR_RELAY_DAEMON_SOCKET or ARTHUR_RELAY_DAEMON_LISTEN"
"""What to do when the daemon has no listener."""

_MAX_PATH = 107
"""The most bytes of a Unix socket's path on Linux: see unix(7)."""


@dataclass(slots=True)
class UnixSocket:
    """A listening Unix socket, and its file if we have to remove that.

    Attributes:
        listener: The socket.
        path: Its file; None when someone else has created it.
    """

    listener: socket.socket
    path: Path | None = None
    _inode: int = 0

    def __str__(self) -> str:
        return str(self.path or self.listener.getsockname())

    def remove(self) -> None:
        """Remove the file, unless another process has put its own there."""
        if self.path is None:
            return
        with suppress(OSError):
            if self.path.lstat().st_ino == self._inode:
                self.path.unlink()


def listen_unix(path: Path, *, mode: int, group: str | None) -> UnixSocket:
    """Create a Unix socket, in place of one that nobody listens on any more.

    It gets its mode and group before anybody can connect. It gets its name last, by a rename.

    Raises:
        SettingsError: It can't be created; the message says why.
    """
    temporary = _temporary(path)
    found = _make(path, temporary, mode=mode, group=group)
    try:
        temporary.replace(path)
    except OSError as error:
        found.listener.close()
        with suppress(OSError):
            temporary.unlink()
        raise _not_made(path, error) from error
    return found


def try_unix(path: Path, *, mode: int, group: str | None, spool: Path | None) -> None:
    """Do what `listen_unix` does, except for the rename; leaves nothing behind.

    Args:
        path: The socket's.
        mode: Its permissions.
        group: Its group.
        spool: A directory that a start creates first, with its parents, or None. If the socket
            belongs into one of those that do not exist yet, an existing parent is used instead.

    Raises:
        SettingsError: As `listen_unix`.
    """
    directory = path.absolute().parent
    parents = () if spool is None else spool.absolute().parents
    while not os.path.lexists(directory) and directory in parents:
        directory = directory.parent
    temporary = directory / f"{path.name}.try"
    _make(path, temporary, mode=mode, group=group).listener.close()
    temporary.unlink()


def refuse_in_spool(path: Path, spool: Path) -> None:
    """Refuse a socket whose path is the spool's directory, in it, or one of its parents.

    Raises:
        SettingsError: It is one of these.
    """
    directory = Path(os.path.realpath(spool))
    for each in (path, _temporary(path)):
        found = Path(os.path.realpath(each))
        if found == directory or directory in found.parents or found in directory.parents:
            raise SettingsError(
                f"The socket {path} and the spool's directory {spool} are in each other's way: give"
                " the socket a path of its own (ARTHUR_RELAY_DAEMON_SOCKET)."
            )


def _temporary(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _make(path: Path, temporary: Path, *, mode: int, group: str | None) -> UnixSocket:
    """Create a Unix socket under a temporary name."""
    if len(os.fsencode(path)) > _MAX_PATH - 4:
        raise SettingsError(f"The socket's path {path} is too long: {_MAX_PATH - 4} bytes at most.")
    _refuse_taken(path)
    listener = socket.socket(AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()
        before = os.umask(0o777)  # nobody may connect before the mode and group are set
        try:
            listener.bind(os.fspath(temporary))
        finally:
            os.umask(before)
        if group is not None:
            give_to_group(temporary, find_group(group))
        temporary.chmod(mode)
        listener.listen(BACKLOG)
        inode = temporary.stat().st_ino
    except (OSError, OverflowError) as error:  # the latter for a group's id
        listener.close()
        with suppress(OSError):
            temporary.unlink()
        raise _not_made(path, error) from error
    except SettingsError:
        listener.close()
        with suppress(OSError):
            temporary.unlink()
        raise
    return UnixSocket(listener, path, inode)


def _not_made(path: Path, error: Exception) -> SettingsError:
    reason = getattr(error, "strerror", None) or error
    return SettingsError(
        f"The socket {path} can't be made ({reason}): its directory has to exist and be writable,"
        " and the group one that this process may give."
    )


def _refuse_taken(path: Path) -> None:
    """Make sure that nobody listens at a path, and that it is a socket if it exists.

    Raises:
        SettingsError: Someone listens there, or it is something else.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingsError(f"The socket {path} can't be made: {error.strerror}.") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise SettingsError(f"{path} is there and is not a socket: give another path.")
    with socket.socket(AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise SettingsError(f"The socket {path} can't be used: {error.strerror}.") from None
    raise SettingsError(f"Another process listens on {path} already.")


def listen_tcp(host: str, port: int) -> list[socket.socket]:
    """Create TCP sockets for all addresses of a host name; an empty name means all of ours.

    Raises:
        SettingsError: It can't be listened on; the message says why.
    """
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            listener = socket.socket(family, kind, protocol)
            listeners.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if port == 0 and len(listeners) > 1:  # the same port on all of them
                first = listeners[0].getsockname()[1]
                listener.bind((address[0], first, *address[2:]))
            else:
                listener.bind(address)
            listener.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        for listener in listeners:
            listener.close()
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"Can't listen on {host or '*'}:{port}: {reason}.") from error
    return listeners


def shown(listeners: Sequence[socket.socket]) -> str:
    """Return the addresses of TCP sockets, for people."""
    return ", ".join(_shown(listener) for listener in listeners)


def _shown(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def find_group(group: str) -> int:
    """Return the id of a group, given by its name or id.

    Raises:
        SettingsError: There is none.
    """
    if group.isascii() and group.isdigit():
        return int(group)
    found = group_id(group)
    if found is None:
        raise SettingsError(f"There is no group {group!r} for the socket.")
    return found


def load_tls(
    settings: DaemonSettings, *, into: ssl.SSLContext | None = None
) -> ssl.SSLContext | None:
    """Load the certificate and its key.

    Args:
        settings: Where they are.
        into: The context of a running listener, which gets the new certificate. It stays as it is
            when they can't be loaded.

    Returns:
        The context for connections, or None without a certificate.

    Raises:
        SettingsError: They can't be loaded, or do not belong together.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None or key is None:
        return None
    # Tried in another context first: with half of a pair, a context refuses all connections.
    fresh = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        fresh.load_cert_chain(certificate, key, password="")
        if into is not None:
            into.load_cert_chain(certificate, key, password="")
    except OSError as error:  # ssl.SSLError is one too
        reason = getattr(error, "reason", None) or error.strerror or "no key without a password"
        raise SettingsError(
            f"The certificate {certificate} with the key {key} can't be loaded: {reason}."
        ) from None
    return fresh if into is None else into
