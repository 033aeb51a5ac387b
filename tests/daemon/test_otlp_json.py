"""OTLP's JSON as protobuf. Pure."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arthur_relay.daemon.otlp_json import to_protobuf
from arthur_relay.daemon.span_splitter import NotSpansError


def names_of(body: bytes) -> list[str]:
    request = ExportTraceServiceRequest.FromString(to_protobuf(body))
    (group,) = request.resource_spans
    return [span.name for span in group.scope_spans[0].spans]


def named(*names: str) -> bytes:
    """A request with spans of some names, as JSON spells them."""
    spans = ",".join(f'{{"name":"{name}"}}' for name in names)
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{spans}]}}]}}]}}'.encode()


@pytest.mark.parametrize(
    ("spelled", "said"),
    [
        (r"cut \ud83d", "cut \ufffd"),
        (r"\uDE00 cut", "\ufffd cut"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\\ud83d", "\\\ufffd"),
        (r"\\ud83d \ude00", "\\ud83d \ufffd"),
        (r"\ud83d\\ude00", "\ufffd\\ude00"),
    ],
)
def test_half_a_character_costs_nothing_else(spelled: str, said: str) -> None:
    body = named("good", spelled, r"\ud83d\ude00")
    assert names_of(body) == ["good", said, "\U0001f600"]


@pytest.mark.parametrize("body", [b"", b"{", named(r"\ud83")[:-9], named(r"\ud83d\x")])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotSpansError, match="not JSON"):
        to_protobuf(body)
