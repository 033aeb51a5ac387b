"""What stands between a relay and Arthur: a wire that can be broken, and the end of TLS."""

from __future__ import annotations

import errno
import re
import select
import socket
import ssl
import struct
import threading
import zlib
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time at all: closing sends a reset instead of an end."""


class Front(ABC):
    """Listens on a port of this machine, and serves each connection in a thread.

    Attributes:
        port: Where it listens.
        attempts: Connections that were made to it, whether or not they came to anything.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._connections: list[socket.socket] = []
        self.port = self._listener.getsockname()[1]
        self.attempts = threading.Semaphore(0)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which wakes `accept`
        self.cut_idle()
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def cut_idle(self) -> None:
        """End the connections that are there, without a word."""
        for connection in self._connections:
            with suppress(OSError):  # it has ended by itself
                connection.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        """Serve a connection until it ends; an OSError ends it as well."""

    def _accept(self) -> None:
        with suppress(OSError):  # that of the end
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self.attempts.release()
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # also of a handshake that fails
            there = socket.create_connection(("127.0.0.1", self.target))
            with there:
                self.serve(connection, there)


class _TlsSocket(ssl.SSLSocket):
    """Is closed where the connection was gone before TLS began: Python forgets to."""

    def getpeername(self) -> Any:
        try:
            return super().getpeername()
        except OSError:
            self.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, "it is gone") from None


class TlsFront(Front):
    """Ends TLS, and passes what comes on to another port."""

    def __init__(self, context: ssl.SSLContext, target: int) -> None:
        super().__init__(target)
        self.context = context

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        self.pass_on(self.context, connection, there)

    @staticmethod
    def pass_on(context: ssl.SSLContext, connection: socket.socket, there: socket.socket) -> None:
        """End TLS on a connection, and pass on what comes until one side ends."""
        context.sslsocket_class = _TlsSocket
        with context.wrap_socket(connection, server_side=True) as here:
            while True:
                # Records that were read already are not seen by select.
                ready = [here] if here.pending() else select.select([here, there], [], [])[0]
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (there if source is here else here).sendall(data)


@dataclass(frozen=True)
class Break:
    """What a wire does to one request that carries rows.

    Attributes:
        answer: Is given the connection, and the answer of Arthur.
        passes: Whether Arthur gets the request; else its answer is empty.
    """

    answer: Callable[[socket.socket, bytes], None]
    passes: bool = True


class Wire(Front):
    """Passes requests on to Arthur and answers back, but for those that it is told to break."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.breaks: deque[Break] = deque()

    def serve(self, connection: socket.socket, there: socket.socket) -> None:
        while request := read_message(connection):
            carries_rows = re.match(rb"POST \S+/(inferences|traces) ", request)
            broken = self.breaks.popleft() if carries_rows and self.breaks else None
            answer = b""
            if broken is None or broken.passes:
                there.sendall(request)
                answer = read_message(there)
            if broken is None:
                connection.sendall(answer)
            else:
                broken.answer(connection, answer)


def read_message(source: socket.socket) -> bytes:
    """Read a request or an answer, which tells its length; nothing at the connection's end."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := source.recv(65536)):
            return b""
        data += more
    head = data[: data.index(b"\r\n\r\n") + 4]
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    whole = len(head) + (int(found[1]) if found else 0)
    while len(data) < whole:
        if not (more := source.recv(65536)):
            return b""
        data += more
    return data


# --- What may become of an answer ----------------------------------------------------------------


def reset(connection: socket.socket, _answer: bytes) -> None:
    """Reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    connection.close()


def half_close(connection: socket.socket, _answer: bytes) -> None:
    """Say that nothing more will come, and go on to listen."""
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(65536):
        pass


def hang_in_mid_body(connection: socket.socket, answer: bytes) -> None:
    """Send the head and half of the body, and nothing more until the other side goes away."""
    body_at = answer.index(b"\r\n\r\n") + 4
    connection.sendall(answer[: (body_at + len(answer)) // 2])
    while connection.recv(65536):
        pass


def truncate(connection: socket.socket, answer: bytes) -> None:
    """Send half of the body, as if that were all of it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    half = body[: len(body) // 2]
    head = re.sub(rb"(?i)(\r\ncontent-length: *)\d+", rb"\g<1>%d" % len(half), head)
    connection.sendall(head + b"\r\n\r\n" + half)


def encoded(name: str, transform: Callable[[bytes], bytes]) -> Callable[..., None]:
    """Say that the body is encoded, and send what a function makes of it."""

    def answer(connection: socket.socket, found: bytes) -> None:
        head, _, body = found.partition(b"\r\n\r\n")
        _send(connection, head + f"\r\nContent-Encoding: {name}".encode(), transform(body))

    return answer


def in_charset(name: str) -> Callable[..., None]:
    """Say that the body is in a charset."""

    def answer(connection: socket.socket, found: bytes) -> None:
        head, _, body = found.partition(b"\r\n\r\n")
        _send(
            connection,
            re.sub(rb"application/json", rb"\g<0>; charset=" + name.encode(), head),
            body,
        )

    return answer


def bomb(_body: bytes) -> bytes:
    """Return a body that is 256 MiB when it is decoded, and 260 KiB before.

    A block that is flushed needs none before it, so one is repeated: to pack all of it takes so
    long on a busy machine that Arthur closes the connection behind the wire meanwhile.
    """
    packer = zlib.compressobj(wbits=31)
    block = b" " * 1048576
    first, other = (packer.compress(block) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    return first + 255 * other + packer.flush()


def long_answer(connection: socket.socket, found: bytes) -> None:
    """Send 64 MiB, as far as they are wanted."""
    head, _, _ = found.partition(b"\r\n\r\n")
    with suppress(OSError):
        _send(connection, head, b" " * (64 * 1048576))


def drip(connection: socket.socket, found: bytes) -> None:
    """Send the head, and then now and then one character, for as long as anyone listens."""
    head, _, _ = found.partition(b"\r\n\r\n")
    head = re.sub(rb"(?i)(\r\ncontent-length: *)\d+", rb"\g<1>1000000", head)
    connection.sendall(head + b"\r\n\r\n")
    while not select.select([connection], [], [], 0.05)[0]:
        connection.sendall(b" ")


def _send(connection: socket.socket, head: bytes, body: bytes) -> None:
    head = re.sub(rb"(?i)(\r\ncontent-length: *)\d+", rb"\g<1>%d" % len(body), head)
    connection.sendall(head + b"\r\n\r\n" + body)
