"""Which records a request carries: their ids, found in its body the way each peer writes them.

Bodies are searched, not parsed, where that is exact: a quote inside a JSON text is escaped, so
what is searched for can't occur in one.
"""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.benchmarks.sink.wire import Request

_ARTHUR_ID: Final = re.compile(rb'"partner_inference_id":\s*"([^"]+)"')
# A run that has only begun is posted with outputs of {}: that is not its end.
_LANGSMITH_END: Final = re.compile(
    rb'name="(?:post|patch)\.([^".]+)\.(?:outputs|error)"\r\n(?:[^\r\n]+\r\n)*\r\n(?!\{\}|null)'
)


def arthur_ids(request: Request) -> list[bytes]:
    """The ids of the inferences in a POST of rows."""
    return _ARTHUR_ID.findall(_content(request))


def langsmith_multipart_ids(request: Request) -> list[bytes]:
    """The ids of the runs whose end is in a multipart request; their start alone is no record."""
    # A run that failed has outputs and an error, and is one record all the same.
    return list(dict.fromkeys(_LANGSMITH_END.findall(_content(request))))


def langsmith_json_ids(request: Request) -> list[bytes]:
    """The ids of the runs whose end is in a JSON request: a batch, a run, or the rest of one."""
    given: dict[str, Any] = json.loads(bytes(_content(request)))
    runs = [*given.get("post", ()), *given.get("patch", ())] if _is_batch(given) else [given]
    path_id = request.head.path.rpartition("/")[2]
    ended = [run for run in runs if run.get("outputs") or run.get("error")]
    return list(dict.fromkeys(str(run.get("id", path_id)).encode() for run in ended))


def otlp_ids(request: Request) -> list[bytes]:
    """The ids of the spans in an ExportTraceServiceRequest: trace id and span id."""
    content = memoryview(_content(request))
    return [
        b"".join(bytes(identifier) for identifier in _fields(span, 1, 2))
        for resource_spans in _fields(content, 1)
        for scope_spans in _fields(resource_spans, 2)
        for span in _fields(scope_spans, 2)
    ]


def _is_batch(given: dict[str, Any]) -> bool:
    return "post" in given or "patch" in given


def _content(request: Request) -> memoryview | bytes:
    """A request's body without its compression."""
    match request.head.headers.get("content-encoding", "identity"):
        case "identity":
            return request.body
        case "gzip" | "deflate":
            return zlib.decompress(request.body, wbits=zlib.MAX_WBITS | 32)
        case "zstd":
            import zstandard  # it is there where a client is that sends it

            # LangSmith streams: the frame does not say how long its content is.
            return zstandard.ZstdDecompressor().decompressobj().decompress(request.body)
        case unknown:
            raise ValueError(f"no client was known to send Content-Encoding: {unknown}")


def _fields(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """The length-delimited fields with these numbers in a protobuf message, in its order."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        match key & 7:
            case 0:
                _, position = _varint(message, position)
            case 1:
                position += 8
            case 2:
                length, position = _varint(message, position)
                if key >> 3 in numbers:
                    yield message[position : position + length]
                position += length
            case 5:
                position += 4
            case kind:
                raise ValueError(f"protobuf has no wire type {kind} any more")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


class Tally:
    """Counts records by their ids."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self.duplicates = 0

    @property
    def records(self) -> int:
        """Ids that have been added at least once."""
        return len(self._seen)

    def add(self, ids: list[bytes]) -> None:
        """Count the records of one request."""
        before = len(self._seen)
        self._seen.update(ids)
        self.duplicates += len(ids) - (len(self._seen) - before)
