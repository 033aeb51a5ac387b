"""How a connection is split into requests, and how much a client may make us hold meanwhile.

uvicorn's protocol with the C parser (llhttp, by httptools), because what a body of rows costs on
its way in is most of what the intake does. uvicorn itself bounds nothing of it, reads the body of a
request with `Upgrade` as the next request, and loses the answers to whole requests when what comes
after them is broken.

Everything that holds what a client sends, and its bound:

- the request's line, headers and trailers, in the parser and here: `HEAD_BYTES` together, each
  header counted with `HEADER_BYTES` for what it costs to keep; one that has not ended, its bytes so
  far
- extensions of chunks, which nobody keeps, are bounded the same way
- bytes that were received and not parsed yet, because a request before them is being answered: what
  one read returns, 256 KiB, once for each time that the application asks for more
- requests that were parsed and wait for their turn: `MOST_PIPELINED`
- a request's body on its way to the application: 64 KiB and what one read returns, then nothing is
  read until it was taken (uvicorn's)
- connections, and the time that a request may take to arrive, a handshake to end and an answer to
  be read: what the `Admission` says

The application bounds the bodies that it holds itself.
"""

from __future__ import annotations

from collections import deque
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    import asyncio

    from uvicorn import Config
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle
    from uvicorn.server import ServerState

    from arthur_relay.http_server.options import ServerOptions

HEAD_BYTES = 32 * 1024
"""A request's line, headers and trailers, at most."""

HEADER_BYTES = 32
"""What a header counts beside its name and value: HTTP/2's number (RFC 9113, 6.5.2)."""

MOST_PIPELINED = 64
"""Requests that may wait while an earlier one is being answered."""

PIECE_BYTES = 4 * 1024
"""What the parser gets at once where it may begin requests."""

BODY_PIECE_BYTES = 64 * 1024
"""The same in mid-body."""

LINGER_SECONDS = 2.0
"""How long a client may go on sending when no more is read: nobody keeps it."""

_SENTENCE = b'{"error": "the request is no HTTP, or its head is too large"}\n'
BAD = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_SENTENCE), _SENTENCE)
)
LATE = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

REASONS = {
    BAD: "a request on it is no HTTP, or its head is too large",
    LATE: "its request has not arrived in time",
}


class _HeadTooLargeError(ValueError):
    pass


class _EnoughError(Exception):
    pass


class FramedProtocol(HttpToolsProtocol):
    """A connection on which every whole request gets one answer, in order, and nothing else does.

    Args:
        config: uvicorn's.
        state: uvicorn's, shared by the connections of a server.
        loop: The server's loop.
        options: How connections are treated.
    """

    def __init__(
        self,
        config: Config,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        options: ServerOptions,
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._options = options
        self._unparsed: deque[memoryview] = deque()
        self._unanswered: deque[RequestResponseCycle] = deque()  # their heads are whole
        self._has_ended = False  # nothing more is parsed
        self._is_half_closed = False
        self._is_lingering = False  # the client has time to read the reason, and to close
        self._has_enough = False
        self._last_words = b""  # sent when all requests before are answered
        self._is_arriving = False  # a request has begun, and is not whole
        self._in_head = self._in_trailers = False
        self._is_replaying = False
        self._head_bytes = 0
        self._unheard_bytes = 0  # given to the parser since its last callback
        self._was_heard = False

    @property
    def has_whole_request(self) -> bool:
        """Whether a request that has arrived whole is not answered yet."""
        return bool(self._open_cycles()) and not (
            len(self._unanswered) == 1 and self._is_in_body and self._unanswered[0] is self.cycle
        )

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        """Take what the client sends, as far as it may."""
        if self._has_ended or self._is_half_closed or self.transport.is_closing():
            return
        self._unparsed.append(memoryview(data))
        self._parse()

    def eof_received(self) -> bool | None:  # type: ignore[override] # as asyncio allows
        """Answer what has arrived whole, and forget what has not.

        Returns:
            Whether the connection stays open for that. By TLS it can't: asyncio ends it.
        """
        if (
            not self._options.answers_half_closed
            or self.transport.is_closing()
            or self.scheme == "https"
            or self._is_lingering
        ):
            return None
        self._is_half_closed = True
        self._settle()
        return not self.transport.is_closing()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._was_heard = True
        if self._is_replaying:
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            self._has_enough = True
            raise _EnoughError
        super().on_message_begin()
        # Not earlier: an empty line is no request, and must not keep a connection open for ever.
        self._unset_keepalive_if_required()
        self._is_arriving = self._in_head = True
        self._in_trailers = False
        self._head_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's line."""
        self._was_heard = True
        if not self._is_replaying:
            self._count_head(len(url))
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. A trailer is counted and dropped: no application here reads one."""
        self._was_heard = True
        if self._is_replaying:
            return
        self._count_head(len(name) + len(value) + HEADER_BYTES)
        if self._in_head:
            super().on_header(name, value)
        else:
            self._in_trailers = True

    def on_headers_complete(self) -> None:
        """Let the request be answered."""
        self._was_heard = True
        if self._is_replaying:
            return
        if self._options.date_header:
            # uvicorn's server sets it each second.
            self.server_state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        super().on_headers_complete()
        self._in_head = False
        self._unanswered.append(self.cycle)

    def on_chunk_header(self) -> None:
        """Note that the parser goes on."""
        self._was_heard = True

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._was_heard = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request: it has arrived."""
        self._was_heard = True
        # Not when the parser takes the rest for another protocol: see _ignore_upgrade.
        if not self.parser.should_upgrade():
            self._is_arriving = self._in_trailers = False
            super().on_message_complete()

    # What the application's answer calls.

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._parse()

    @property
    def _is_in_body(self) -> bool:
        return self._is_arriving and not self._in_head

    def _open_cycles(self) -> deque[RequestResponseCycle]:
        """Return the requests that are not answered to the end, in order."""
        while self._unanswered and self._unanswered[0].response_complete:
            self._unanswered.popleft()
        return self._unanswered

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            raise _HeadTooLargeError

    def _parse(self) -> None:
        """Parse what was received, until a request has to wait for another one's answer."""
        while self._unparsed and not self.pipeline and not self.transport.is_closing():
            data = self._unparsed.popleft()
            is_payload = self._is_in_body and not self._in_trailers
            most = BODY_PIECE_BYTES if is_payload else PIECE_BYTES
            if len(data) > most:
                self._unparsed.appendleft(data[most:])
                data = data[:most]
            self._feed(data)
        if self._unparsed and not self.transport.is_closing():
            self.flow.pause_reading()
        self._settle()

    def _feed(self, data: memoryview) -> None:
        self._was_heard = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if rest := data[upgrade.args[0] :]:
                self._unparsed.appendleft(rest)
            self._ignore_upgrade()
            return
        except httptools.HttpParserError:
            if self._has_enough:
                self._take_no_more()
            else:
                self._refuse(BAD)
            return
        # What has not ended yet is kept by the parser.
        self._unheard_bytes = 0 if self._was_heard else self._unheard_bytes + len(data)
        is_counted = self._in_head or self._in_trailers
        if self._unheard_bytes + (self._head_bytes if is_counted else 0) > HEAD_BYTES:
            self._refuse(BAD)

    def _ignore_upgrade(self) -> None:
        """Read the body of a request that offers to upgrade, or of a CONNECT, as its body.

        The parser takes everything after the head for another protocol, which we do not speak.
        Parsed as the next request, the body would be one that nobody sent. So a new parser is given
        the length of the body, and reads it.
        """
        framing = (b"content-length", b"transfer-encoding")
        lines = [b"%b: %b" % header for header in self.headers if header[0] in framing]
        self.parser = _new_parser(self)
        self._is_replaying = True
        try:
            self.parser.feed_data(b"\r\n".join([b"POST / HTTP/1.1", *lines, b"", b""]))
        except httptools.HttpParserError:
            self._refuse(BAD)
        finally:
            self._is_replaying = False

    def _take_no_more(self) -> None:
        """Answer the waiting requests, and then close: the client sends the rest again."""
        self._has_ended = True
        self._is_arriving = self._in_head = False
        self._unparsed.clear()

    def _reason(self, answer: bytes) -> str:
        """Return why a connection is closed with an answer, for the log."""
        limit = self._options.time_limit if answer is LATE else ""
        return REASONS.get(answer, "it is refused") + (f", within {limit}" if limit else "")

    def _refuse(self, answer: bytes) -> None:
        """End the connection by an answer to the request that is arriving.

        It follows the answers to the earlier requests, whose rows may be safe already.
        """
        self._options.logger.warning("a connection is closed: %s", self._reason(answer))
        self._has_ended = True
        self._unparsed.clear()
        if not self._forget_arriving():
            self._last_words = answer
        self._settle()

    def _settle(self) -> None:
        """Close the connection when nothing more will come and everything is answered."""
        if self._is_half_closed and not self._unparsed:
            self._has_ended = True
            self._forget_arriving()
        if not self._has_ended or self.transport.is_closing() or self._is_lingering:
            return
        if unanswered := self._open_cycles():
            if self._is_half_closed and not self._last_words:
                unanswered[-1].keep_alive = False
            return
        if self._last_words:
            self.transport.write(self._last_words)
        if self._is_half_closed or not self.transport.can_write_eof():
            self.transport.close()
            return
        # An immediate close could discard answers that a client which still sends has not read.
        self._is_lingering = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _forget_arriving(self) -> bool:
        """Forget the request that is not whole. Returns whether its answer has begun."""
        is_in_body = self._is_in_body
        self._is_arriving = self._in_head = self._in_trailers = False
        cycle = self.cycle
        if not is_in_body:
            return False
        if cycle.response_started:
            return True
        if self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
        # Where its application runs already, it waits for the rest.
        cycle.disconnected = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.message_event.set()
        self._unanswered.remove(cycle)
        if self._unanswered:
            self.cycle = self._unanswered[-1]
        return False


def _new_parser(protocol: FramedProtocol) -> Any:
    """Return a parser as uvicorn makes it."""
    parser = httptools.HttpRequestParser(protocol)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)
    return parser
