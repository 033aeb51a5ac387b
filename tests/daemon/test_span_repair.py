"""What the Engine can't store is mended, and everything else is left as it was. Pure."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from arthur_relay.daemon.span_repair import mended_span
from arthur_relay.daemon.span_splitter import SplitSpans, split_spans
from arthur_relay.encoding.protobuf_fields import NotProtobufError
from arthur_relay.sandbox.engine.spans import read_request
from arthur_relay.sandbox.engine.validation import breakage
from tests.daemon.traces import request, span

TEXT = "input.value"


def split(*spans: Span, **attributes: Any) -> SplitSpans:
    body = request(*spans, **attributes).SerializeToString()
    return split_spans(body, now_ns=1, max_rows=100, max_row_bytes=10**6, max_bytes=10**7)


def mended(sent: Span, **attributes: Any) -> tuple[Any, bool]:
    """Return a span as the Engine reads it, and whether it was repaired; it can store it."""
    found = split(sent, **attributes)
    (row,) = found.rows
    (read,) = read_request(row.body)
    assert breakage(read) is None
    return read, found.repaired == 1


@pytest.mark.parametrize(
    ("given_text", "text"),
    [
        ("a\0b", "ab"),
        ('{"a": "x\\u0000y"}', '{"a": "xy"}'),
        ('{"a": "\\ud83d\\ude42 \\ud83d."}', '{"a": "\\ud83d\\ude42 \\ufffd."}'),
        ('["\\uDC00\\ud800"]', '["\\ufffd\\ufffd"]'),
        ('{"a": "\\\\u0000 \\\\\\u0000"}', '{"a": "\\\\u0000 \\\\"}'),
    ],
)
def test_texts(given_text: str, text: str) -> None:
    sent = span(1, input__value=given_text, metadata=given_text)
    found, is_repaired = mended(sent)
    assert found.attributes[TEXT] == found.attributes["metadata"] == text
    assert is_repaired


@pytest.mark.parametrize(
    "attributes",
    [
        {"input__value": "in plain text \\u0000 and \\ud800 stay"},
        {"x": 0, "y": 0.5, "z": False},
        {"input__value": '{"a": "\\u00e4 \\ud83d\\ude42"}'},
        {"input__value": '{"a": "\\\\u0000"}'},
        {"llm__token_count__prompt": 0},
    ],
)
def test_what_is_harmless_stays_as_it_is(attributes: dict[str, Any]) -> None:
    sent = span(1, **attributes)
    found = split(sent)
    assert sent.SerializeToString() in found.rows[0].body
    assert found.repaired == 0


def test_everywhere_in_a_span() -> None:
    sent = span(1, name="n\0", parent=7)
    sent.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="m\0"))
    inner = AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="deep\0")]))
    outer = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="k\0", value=inner)]))
    sent.attributes.append(KeyValue(key="key\0", value=outer))
    sent.attributes.append(KeyValue(key="nan", value=AnyValue(double_value=float("nan"))))
    cost = KeyValue(key="llm.cost.total", value=AnyValue(double_value=float("inf")))
    sent.attributes.append(cost)
    event = sent.events.add(name="e\0", time_unix_nano=1)
    event.attributes.append(KeyValue(key="text", value=AnyValue(string_value="t\0")))
    found, is_repaired = mended(sent)
    assert is_repaired
    assert (found.name, found.status_message) == ("n", "m")
    assert found.attributes["key"] == {"k": ["deep"]}
    assert found.attributes["nan"] == "nan"
    assert "llm.cost.total" not in found.attributes
    assert found.events[0]["name"] == "e"
    assert found.events[0]["attributes"] == {"text": "t"}


def test_resources() -> None:
    found = split(span(1), span(2), service__version="1\0", service__name="bot")
    assert found.repaired == 2
    assert [read_request(row.body)[0].resource["service.version"] for row in found.rows] == [
        "1",
        "1",
    ]


@given(st.text(st.characters(codec="utf-8")), st.sampled_from('0dD8\\u"x'), st.data())
def test_any_json_can_be_stored(text: str, more: str, data: st.DataObject) -> None:
    pieces = data.draw(st.lists(st.sampled_from(["\\u0000", "\\ud800", "\\udc00", "\\\\", more])))
    made = json.dumps({"a": text})[:-2] + "".join(pieces).replace('"', "") + '"}'
    found, _ = mended(span(1, metadata=made))
    assert isinstance(found.attributes["metadata"], str)


@given(st.binary(max_size=60))
def test_no_bytes_do_harm(content: bytes) -> None:
    with suppress(NotProtobufError):
        Span.FromString(mended_span(content, looks_odd=True))
