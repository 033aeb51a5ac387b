"""The bytes of rows: each a whole `ExportTraceServiceRequest` of one span; joined without decoding.

Protobuf lets messages be concatenated, so that rows one after the other are a valid request. The
Engine takes half the time when spans of one resource share it, so `joined` puts them together. It
reads tags and lengths only. The numbers below are those of opentelemetry-proto: `resource_spans`,
`resource`, `scope_spans`, `scope` and `spans` are fields 1 and 2 of the messages around them. A
`schema_url`, field 3, is written after the resource or the scope that it is of, and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

_FIRST = b"\x0a"
_SECOND = b"\x12"
_THIRD = b"\x1a"
"""The tags of fields 1 to 3 with a length: `number << 3 | 2`."""

_URL = _THIRD[0]

_MOST_LENGTH_BYTES = 5
"""A message has less than 2 GiB, which is a varint of five bytes."""


Groups = dict[bytes, dict[bytes, list[bytes]]]
"""Spans by scope by resource, each with its tag and length."""


class UnframedError(ValueError):
    """A body is not framed as `row_body` does it; it may be valid all the same."""


def length(size: int) -> bytes:
    """Return a length as a varint."""
    if size < 0x80:  # these two nearly always, and much quicker
        return bytes((size,))
    if size < 0x4000:
        return bytes((size & 0x7F | 0x80, size >> 7))
    found = bytearray()
    while size > 0x7F:
        found.append(size & 0x7F | 0x80)
        size >>= 7
    found.append(size)
    return bytes(found)


def text_attribute(key: str, value: str) -> bytes:
    """Return a `KeyValue` of a text, as a field 1 of the message around it."""
    text = value.encode()
    found = _field(_FIRST, key.encode()) + _field(_SECOND, _field(_FIRST, text))
    return _field(_FIRST, found)


def row_body(resource: bytes, scope: bytes, span: bytes) -> bytes:
    """Return the request of one span.

    Args:
        resource: The serialized `Resource`; may be empty.
        scope: The serialized `InstrumentationScope`; may be empty.
        span: The serialized `Span`.
    """
    # The span may be large, so it is copied once.
    spans = b"".join((_FIRST, length(len(scope)), scope, _SECOND, length(len(span))))
    spans_size = len(spans) + len(span)
    group = b"".join((_FIRST, length(len(resource)), resource, _SECOND, length(spans_size)))
    return b"".join((_FIRST, length(len(group) + spans_size), group, spans, span))


def row_body_with_urls(
    resource: bytes, scope: bytes, span: bytes, *, resource_url: bytes, scope_url: bytes
) -> bytes:
    """Return the request of one span, with the addresses of schemas.

    Args:
        resource: As in `row_body`; so are the next two.
        scope: See `resource`.
        span: See `resource`.
        resource_url: The `schema_url` of the resource in UTF-8; empty when it has none.
        scope_url: The same of the scope.
    """
    spans = _field(_FIRST, scope) + _url(scope_url) + _field(_SECOND, span)
    group = _field(_FIRST, resource) + _url(resource_url) + _field(_SECOND, spans)
    return _field(_FIRST, group)


def joined(
    bodies: Iterable[bytes], resource_of: Callable[[bytes], bytes] | None = None
) -> Iterator[bytes]:
    """Yield one request of many rows' bodies, in parts, with equal resources and scopes once.

    Resources, and scopes within a resource, are in the order in which the first span of each came;
    so are the spans of each. A body that `row_body` did not make is left as it is, at the end.

    Args:
        bodies: What `row_body` returned, or any other serialized request.
        resource_of: Returns the resource to send for one of a row; None when all stay as they are.
    """
    groups: Groups = {}
    others: list[bytes] = []
    for body in bodies:
        try:
            resource, scope, span = _parts(body)
        except (UnframedError, IndexError):
            others.append(body)
        else:
            groups.setdefault(resource, {}).setdefault(scope, []).append(span)
    if resource_of is not None:
        groups = _renamed(groups, resource_of)
    for resource, scopes in groups.items():
        parts = [resource]
        size = len(resource)
        for scope, spans in scopes.items():
            inside = len(scope) + sum(map(len, spans))
            head = _SECOND + length(inside)
            size += len(head) + inside
            parts += (head, scope, *spans)
        yield b"".join((_FIRST, length(size), *parts))
    yield from others


def _renamed(groups: Groups, resource_of: Callable[[bytes], bytes]) -> Groups:
    """Return the spans by the resources that are to be sent, of which some may be the same."""
    found: Groups = {}
    for resource, scopes in groups.items():
        at, end = _open(resource, 0, _FIRST)
        sent = _field(_FIRST, resource_of(resource[at:end])) + resource[end:]
        for scope, spans in scopes.items():
            found.setdefault(sent, {}).setdefault(scope, []).extend(spans)
    return found


def resource_in(body: bytes) -> bytes | None:
    """Return the resource of a row's body, or None when `row_body` did not make it."""
    try:
        return split(body)[0]
    except UnframedError:
        return None


def split(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the resource, the scope and the span that a row's body was made of.

    Raises:
        UnframedError: `row_body` did not make it.
    """
    try:
        return tuple(map(_content, _parts(body)))  # type: ignore[return-value] # they are three
    except IndexError:
        raise UnframedError("the body is cut") from None


def _parts(body: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the resource, the scope and the span, each with its tag, length and `schema_url`.

    Raises:
        UnframedError: There is anything else.
        IndexError: It is cut.
    """
    end = len(body)
    at, group_end = _open(body, 0, _FIRST)
    spans_at, resource_end = _open(body, at, _FIRST)
    if body[resource_end] == _URL:
        _, resource_end = _open(body, resource_end, _THIRD)
    resource = body[at:resource_end]
    at, spans_end = _open(body, resource_end, _SECOND)
    scope_at, scope_end = at, _open(body, at, _FIRST)[1]
    if body[scope_end] == _URL:
        _, scope_end = _open(body, scope_end, _THIRD)
    span_end = _open(body, scope_end, _SECOND)[1]
    if not spans_at <= resource_end <= scope_end <= span_end == spans_end == group_end == end:
        raise UnframedError("the body has more than one span, or other fields")
    return resource, body[scope_at:scope_end], body[scope_end:]


def _open(body: bytes, at: int, tag: bytes) -> tuple[int, int]:
    """Return where the content of a field begins and ends.

    Raises:
        UnframedError: It is another field, or its length is nonsense.
        IndexError: The body ends before the content.
    """
    if body[at] != tag[0]:
        raise UnframedError("the body has other fields")
    size = body[at + 1]
    at += 2
    if size >= 0x80:
        size &= 0x7F
        for shift in range(7, 7 * _MOST_LENGTH_BYTES, 7):
            byte = body[at]
            at += 1
            size |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
        else:
            raise UnframedError("the body has a length beyond 2 GiB")
    return at, at + size


def _field(tag: bytes, content: bytes) -> bytes:
    return tag + length(len(content)) + content


def _url(url: bytes) -> bytes:
    return _field(_THIRD, url) if url else b""


def _content(field: bytes) -> bytes:
    return field[_open(field, 0, field[:1])[0] :]
