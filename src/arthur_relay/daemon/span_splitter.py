"""Splits a request of OTLP into rows of one span each, by its framing. Pure.

A span is judged alone: whatever is wrong in it, the others of its request are taken. Each is
decoded once, to see whether the Engine can do so, which is a tenth of the work; what was decoded is
looked at only if the span looks as if it had something that the Engine can't store.

The numbers of fields are those of opentelemetry-proto. A request has ResourceSpans (1), these have
a Resource (1) and ScopeSpans (2), and these have an InstrumentationScope (1) and Spans (2); both
may have a `schema_url` (3). The bytes of resources, scopes, spans and addresses go on as they were
sent. Fields that are not known are left out.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from arthur_relay.daemon.refusals import NotRowsError, TooManyRowsError
from arthur_relay.daemon.span_repair import (
    has_odd_escape,
    mended_resource,
    mended_scope,
    mended_span,
    mended_url,
)
from arthur_relay.daemon.splitter import ROW_LIMIT
from arthur_relay.destinations.engine.row_ids import row_id
from arthur_relay.destinations.engine.rows import row_body, row_body_with_urls
from arthur_relay.destinations.engine.task import is_task_id
from arthur_relay.encoding.model import MAX_MODEL_CHARACTERS
from arthur_relay.encoding.protobuf_fields import BYTES, FIXED64, NotProtobufError, fields
from arthur_relay.row import Row
from arthur_relay.settings.variables import DAEMON_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

UNMAPPED: Final = "Unmapped"
"""The Engine's task for spans that name none."""

NO_TRACE_ID: Final = "the trace id must have 16 bytes, not all of them 0"
NO_SPAN_ID: Final = "the span id must have 8 bytes, not all of them 0"
NOT_OTLP: Final = "the span, or its resource, is not OTLP"
NO_TASK_ID: Final = "arthur.task must be the id of a task, which is a UUID"
NO_NAME: Final = (
    f"service.name must be a text of {MAX_MODEL_CHARACTERS} characters or less, without control"
    " characters"
)

_FIRST: Final = 1 << 3 | BYTES
_SECOND: Final = 2 << 3 | BYTES
_THIRD: Final = 3 << 3 | BYTES
_PARENT: Final = 4 << 3 | BYTES
_START: Final = 7 << 3 | FIXED64
_END: Final = 8 << 3 | FIXED64

_STATE, _NAME, _ATTRIBUTES = _THIRD, 5 << 3 | BYTES, 9 << 3 | BYTES
_EVENTS, _LINKS, _STATUS = 11 << 3 | BYTES, 13 << 3 | BYTES, 15 << 3 | BYTES
_WITH_TEXTS: Final = frozenset({_STATE, _NAME, _ATTRIBUTES, _EVENTS, _LINKS, _STATUS})


@dataclass(slots=True)
class SplitSpans:
    """The content of a request.

    Attributes:
        total: The number of all spans.
        rows: The accepted rows, in order.
        roots: Those of `rows` whose spans have no parent.
        refused: Why each of the others is refused, in order.
        repaired: How many of `rows` had something that the Engine can't store.
    """

    total: int = 0
    rows: list[Row] = field(default_factory=list)
    roots: set[Row] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    repaired: int = 0


def split_spans(
    body: bytes,
    *,
    now_ns: int,
    max_rows: int,
    max_row_bytes: int,
    max_bytes: int,
    repaired: Collection[int] = (),
) -> SplitSpans:
    """Split a request into rows.

    Args:
        body: An `ExportTraceServiceRequest` in protobuf.
        now_ns: The time for spans without any, in nanoseconds since 1970.
        max_rows: The most spans.
        max_row_bytes: The most bytes of a row, its resource and scope included.
        max_bytes: The most bytes of all rows.
        repaired: The places, among all spans, of those that had something that could not be read.

    Raises:
        NotRowsError: The body is no such request, as a whole.
        TooManyRowsError: There are too many.
    """
    try:
        return _Splitter(body, now_ns, max_rows, max_row_bytes, max_bytes, repaired).split()
    except NotProtobufError as error:
        raise NotRowsError(f"the body is not OTLP in protobuf: {error}") from None


@dataclass(slots=True)
class _Splitter:
    body: bytes
    now_ns: int
    max_rows: int
    max_row_bytes: int
    max_bytes: int
    repaired: Collection[int]
    size: int = 0
    found: SplitSpans = field(default_factory=SplitSpans)

    def split(self) -> SplitSpans:
        for tag, at, end in fields(self.body, 0, len(self.body)):
            if tag == _FIRST:
                self._take_resource_spans(at, end)
        return self.found

    def _take_resource_spans(self, at: int, end: int) -> None:
        resource = _Group.read(self.body, at, end)
        try:
            model_id, reason = _task_of(resource.content)
            is_mended = resource.mend(mended_resource)
        except NotProtobufError:
            resource.content, model_id, reason, is_mended = b"", "", NOT_OTLP, False
        for start, stop in resource.parts:
            before = len(self.found.rows), self.found.repaired
            self._take_scope_spans(start, stop, resource, model_id, reason)
            if is_mended:
                self.found.repaired = before[1] + len(self.found.rows) - before[0]

    def _take_scope_spans(
        self, at: int, end: int, resource: _Group, model_id: str, reason: str
    ) -> None:
        scope = _Group.read(self.body, at, end)
        try:
            scope.mend(mended_scope)
        except NotProtobufError:
            scope.content = b""
        first = self.found.total
        self.found.total += len(scope.parts)
        if self.found.total > self.max_rows:
            raise TooManyRowsError(
                f"the request has more than the {self.max_rows} spans that are allowed"
                f" ({DAEMON_PREFIX}MAX_ROWS)"
            )
        for place, (start, stop) in enumerate(scope.parts, first):
            content, was_odd = self.body[start:stop], place in self.repaired
            why = reason or self._take_span(content, resource, scope, model_id, was_odd=was_odd)
            if why:
                self.found.refused.append(why)

    def _take_span(
        self, content: bytes, resource: _Group, scope: _Group, model_id: str, *, was_odd: bool
    ) -> str:
        """Make a row of a span; returns why it is refused, or ""."""
        try:
            span = _Span.read(content)
            if why := span.refusal():
                return why
            is_repaired = span.repair(self.now_ns, was_odd=was_odd)
        except NotProtobufError:
            return NOT_OTLP
        size = resource.size + scope.size + len(span.content)
        if size > self.max_row_bytes:
            return (
                f"the span has {size} bytes with its resource; {self.max_row_bytes} are allowed"
                f" ({ROW_LIMIT})"
            )
        self.size += size
        if self.size > self.max_bytes:
            raise TooManyRowsError(
                "the spans take too many bytes, each with its resource and scope:"
                f" {self.max_bytes} are allowed"
            )
        body = _body(resource, scope, span.content)
        row = Row(row_id(span.trace_id, span.span_id), model_id, body)
        self.found.rows.append(row)
        self.found.repaired += is_repaired
        if span.is_root:
            self.found.roots.add(row)
        return ""


@dataclass(slots=True)
class _Group:
    """What spans have in common: their resource, or their scope.

    Attributes:
        content: The message; one that comes twice is merged, which is what protobuf does.
        url: Its `schema_url`, or nothing.
        parts: Where the messages in the group begin and end.
    """

    content: bytes = b""
    url: bytes = b""
    parts: list[tuple[int, int]] = field(default_factory=list)

    @classmethod
    def read(cls, body: bytes, at: int, end: int) -> _Group:
        found = cls()
        for tag, start, stop in fields(body, at, end):
            if tag == _FIRST:
                found.content += body[start:stop]
            elif tag == _SECOND:
                found.parts.append((start, stop))
            elif tag == _THIRD:
                found.url = body[start:stop]
        return found

    @property
    def size(self) -> int:
        return len(self.content) + len(self.url)

    def mend(self, mended: Callable[[bytes], bytes]) -> bool:
        """Mend what would cost the whole request at the Engine. Returns whether there was any.

        Raises:
            NotProtobufError: It is no such message.
        """
        before = self.content, self.url
        self.content, self.url = mended(self.content), mended_url(self.url)
        return before != (self.content, self.url)


def _body(resource: _Group, scope: _Group, span: bytes) -> bytes:
    if not (resource.url or scope.url):  # nearly always
        return row_body(resource.content, scope.content, span)
    return row_body_with_urls(
        resource.content, scope.content, span, resource_url=resource.url, scope_url=scope.url
    )


@dataclass(slots=True)
class _Span:
    """What is read of a span; of a field that comes twice the last one counts."""

    content: bytes
    trace_id: bytes = b""
    span_id: bytes = b""
    is_root: bool = True
    start_ns: int = 0
    end_ns: int = 0
    is_odd: bool = False

    @classmethod
    def read(cls, content: bytes) -> _Span:
        found = cls(content)
        for tag, at, end in fields(content, 0, len(content)):
            if tag in _WITH_TEXTS:  # 0 is also a number, but such spans are few
                if not found.is_odd:
                    found.is_odd = content.find(b"\0", at, end) >= 0
            elif tag == _FIRST:
                found.trace_id = content[at:end]
            elif tag == _SECOND:
                found.span_id = content[at:end]
            elif tag == _PARENT:
                found.is_root = at == end
            elif tag == _START:
                found.start_ns = int.from_bytes(content[at:end], "little")
            elif tag == _END:
                found.end_ns = int.from_bytes(content[at:end], "little")
        found.is_odd = found.is_odd or has_odd_escape(content)
        return found

    def refusal(self) -> str:
        """Return why the span can't be filed, or ""."""
        if len(self.trace_id) != 16 or not any(self.trace_id):
            return NO_TRACE_ID
        if len(self.span_id) != 8 or not any(self.span_id):
            return NO_SPAN_ID
        return ""

    def repair(self, now_ns: int, *, was_odd: bool) -> bool:
        """Mend what would cost the whole request at the Engine, and add times that are missing.

        Args:
            now_ns: The time for a span without any.
            was_odd: Whether something of it could not be read before.

        Returns:
            Whether there was any.

        Raises:
            NotProtobufError: It is no span.
        """
        before = self.content
        self.content = mended_span(before, looks_odd=was_odd or self.is_odd)
        if self.start_ns and self.end_ns:
            return was_odd or self.content != before
        start = self.start_ns or self.end_ns or now_ns
        end = self.end_ns or start
        # At the end, because the last one counts: a 0 may come before.
        for tag, moment in ((_START, start), (_END, end)):
            self.content += bytes((tag,)) + moment.to_bytes(8, "little")
        return True


def _task_of(resource: bytes) -> tuple[str, str]:
    """Return what names the task of a resource's spans, and why they are refused, or ""."""
    named: dict[bytes, bytes] = {}
    for tag, at, end in fields(resource, 0, len(resource)):
        if tag == _FIRST:
            key, value = _attribute(resource[at:end])
            if key in (b"arthur.task", b"service.name"):
                named[key] = value
    task_id = named.get(b"arthur.task")
    if task_id is not None:
        text = task_id.decode(errors="replace")
        return (text, "") if is_task_id(text) else ("", NO_TASK_ID)
    try:
        name = named.get(b"service.name", b"").decode()
    except UnicodeDecodeError:
        return "", NO_NAME
    if len(name) > MAX_MODEL_CHARACTERS or any(each < " " or each == "\x7f" for each in name):
        return "", NO_NAME
    return name or UNMAPPED, ""


def _attribute(content: bytes) -> tuple[bytes, bytes]:
    """Return the key and the text of a `KeyValue`; a value of another type is none."""
    key = value = b""
    for tag, at, end in fields(content, 0, len(content)):
        if tag == _FIRST:
            key = content[at:end]
        elif tag == _SECOND:
            for kind, start, stop in fields(content, at, end):
                value = content[start:stop] if kind == _FIRST else b""
    return key, value
