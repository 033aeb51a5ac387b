"""OTLP's JSON as protobuf. Pure."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from arthur_relay.daemon.otlp_json import to_protobuf
from arthur_relay.daemon.refusals import NotRowsError
from arthur_relay.daemon.span_splitter import split_spans

if TYPE_CHECKING:
    from arthur_relay.daemon.span_splitter import SplitSpans


def names_of(body: bytes) -> list[str]:
    request = ExportTraceServiceRequest.FromString(to_protobuf(body).body)
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


@pytest.mark.parametrize("body", [b"", b"{", named(r"\ud83")[:-9], named(r"\ud83d\x"), b"[" * 9999])
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotRowsError, match="not JSON"):
        to_protobuf(body)


TRACE_ID, SPAN_ID = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b17%x"


def odd(fields: str, number: int = 9) -> str:
    """A span with more fields, as JSON spells it."""
    ids = f'"traceId":"{TRACE_ID}","spanId":"{SPAN_ID % number}"'
    return f'{{{ids},"startTimeUnixNano":1,"endTimeUnixNano":"2",{fields}}}'


def spelled(*spans: str) -> bytes:
    """A request with spans as JSON spells them, between two that are good."""
    inside = ",".join((odd('"name":"a"', 1), *spans, odd('"name":"b"', 2)))
    text = f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{inside}]}}]}}]}}'
    return text.encode("utf-8", "surrogateescape")


def attribute(value: str, key: str = "x") -> str:
    return odd(f'"attributes":[{{"key":"{key}","value":{value}}}]')


def in_lists(levels: int) -> str:
    return '{"arrayValue":{"values":[' * levels + '{"intValue":"1"}' + "]}}" * levels


def split(body: bytes) -> SplitSpans:
    converted = to_protobuf(body)
    return split_spans(
        converted.body,
        now_ns=1,
        max_rows=100,
        max_row_bytes=10**6,
        max_bytes=10**7,
        repaired=converted.repaired,
    )


def middle(split: SplitSpans) -> Span:
    """The span between the two good ones."""
    row = split.rows[1]
    (found,) = ExportTraceServiceRequest.FromString(row.body).resource_spans[0].scope_spans[0].spans
    assert isinstance(found, Span)
    return found


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ('{"stringValue":5}', "5"),
        ('{"stringValue":{"a":NaN}}', '{"a": NaN}'),
        ('{"intValue":5.5}', "5.5"),
        ('{"intValue":"five"}', "five"),
        ('{"intValue":9223372036854775808}', "9223372036854775808"),
        ('{"intValue":' + "9" * 5000 + "}", "Infinity"),
        ('{"intValue":null}', None),
        ('{"doubleValue":NaN}', "NaN"),
        ('{"doubleValue":-Infinity}', "-Infinity"),
        ('{"doubleValue":1e400}', "Infinity"),
        ('{"doubleValue":"NaN"}', "nan"),
        ('{"boolValue":"true"}', "true"),
        ('{"boolValue":true,"intValue":1}', 1),
        ('{"stringValue":"a\\ud83d"}', "a\ufffd"),
        ('{"stringValue":"a\udcff"}', "a\ufffd"),
        ('{"stringValue":"a\0b\n\\u0000"}', "ab\n"),
        ('{"arrayValue":{"values":[null,{"intValue":1}]}}', None),
        ('{"arrayValue":{"values":{}}}', None),
        ('{"arrayValue":5}', None),
        ("[]", None),
        ("5", None),
        pytest.param(in_lists(60), None, id="deeper than protobuf may be"),
        pytest.param(in_lists(400), None, id="deeper than JSON may be"),
        pytest.param(in_lists(20_000), None, id="very deep"),
    ],
)
def test_a_value_that_can_t_be_read_costs_only_itself(value: str, read: Any) -> None:
    found = split(spelled(attribute(value)))
    assert (len(found.rows), found.refused) == (3, [])
    (made,) = middle(found).attributes
    kind = made.value.WhichOneof("value")
    if read is not None:
        assert kind is not None
        assert getattr(made.value, kind) == read
    is_as_sent = value in ('{"intValue":null}', "[]")
    assert found.repaired == (not is_as_sent)


@pytest.mark.parametrize(
    "fields",
    [
        '"kind":"SPAN_KIND_OF_TOMORROW"',
        '"kind":[]',
        '"name":5',
        '"name":"a\ud800"'.encode("utf-8", "replace").decode(),
        '"startTimeUnixNano":-1,"endTimeUnixNano":"then"',
        '"startTimeUnixNano":18446744073709551616',
        '"flags":-1,"droppedAttributesCount":"many"',
        '"status":2',
        '"status":{"code":"STATUS_CODE_OF_TOMORROW","message":7}',
        '"attributes":{"a":1}',
        '"attributes":[null,5,{"key":7,"value":{"intValue":1}}]',
        '"events":{"name":1}',
        '"events":[{"timeUnixNano":"x","name":"e","attributes":5}]',
        '"links":[5,{"traceId":"no hex"},{"traceId":6}]',
        '"links":5',
        '"parentSpanId":"no hex"',
        '"parentSpanId":7',
        '"name":"twice","name":"twice"',
        f'"trace_id":"{TRACE_ID}"',
    ],
)
def test_a_field_that_can_t_be_read_costs_only_itself(fields: str) -> None:
    found = split(spelled(odd(fields)))
    assert (len(found.rows), found.refused) == (3, [])


@pytest.mark.parametrize(
    "span",
    [
        "null",
        "5",
        "[]",
        "{}",
        f'{{"traceId":7,"spanId":"{SPAN_ID % 9}"}}',
        f'{{"traceId":"no hex","spanId":"{SPAN_ID % 9}"}}',
        f'{{"traceId":"{TRACE_ID}","spanId":"{TRACE_ID}"}}',
        odd('"spanId":"ä"'),
    ],
)
def test_a_span_that_can_t_be_filed_is_refused_alone(span: str) -> None:
    found = split(spelled(span))
    assert (len(found.rows), len(found.refused), found.total) == (2, 1, 3)


def test_a_count_that_is_no_number_is_left_out() -> None:
    found = split(spelled(attribute('{"intValue":5.5}', "llm.token_count.prompt")))
    assert list(middle(found).attributes) == []
    assert found.repaired == 1


def test_what_can_be_read_of_a_resource_stays() -> None:
    good = f'{{"traceId":"{TRACE_ID}","spanId":"{SPAN_ID % 1}"}}'
    given = (
        '{"key":"x","value":{"intValue":"?"}},{"key":"service.name","value":{"stringValue":"bot"}}'
    )
    group = (
        f'{{"resource":{{"attributes":[{given}]}},"scopeSpans":[{{"scope":5,"spans":[{good}]}}]}}'
    )
    found = split(f'{{"resourceSpans":[{group}]}}'.encode())
    assert [row.model_id for row in found.rows] == ["bot"]
    assert found.repaired == 1


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        '{"resourceSpans":{}}',
        '{"resourceSpans":[5]}',
        '{"resourceSpans":[{"scopeSpans":5}]}',
        '{"resourceSpans":[{"scopeSpans":[{"spans":{}}]}]}',
    ],
)
def test_what_has_no_spans_to_be_read_is_refused(body: str) -> None:
    with pytest.raises(NotRowsError, match="OTLP|resourceSpans"):
        to_protobuf(body.encode())


@pytest.mark.parametrize("body", ["{}", '{"resourceSpans":null}', '{"resourceSpans":[{}]}'])
def test_no_spans(body: str) -> None:
    assert split(body.encode()).total == 0


@pytest.mark.parametrize("name", ["schemaUrl", "schema_url"])
@pytest.mark.parametrize(("url", "read"), [('"u"', "u"), (r'"u\ud83d"', "u\ufffd"), ("5", "")])
def test_the_addresses_of_schemas(name: str, url: str, read: str) -> None:
    span = odd('"name":"a"')
    text = f'{{"scopeSpans":[{{"spans":[{span}],"{name}":{url}}}],"{name}":{url}}}'
    (row,) = split(f'{{"resourceSpans":[{text}]}}'.encode()).rows
    (group,) = ExportTraceServiceRequest.FromString(row.body).resource_spans
    assert (group.schema_url, group.scope_spans[0].schema_url) == (read, read)


@pytest.mark.parametrize("text", ["x", r"\n", r"\"", "[]"])
def test_a_long_text_takes_little_memory(text: str) -> None:
    body = spelled(odd(rf'"name":"\ud83d{text * 100_000}"'))
    to_protobuf(body)  # imports what it needs
    tracemalloc.start()
    try:
        to_protobuf(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(body)
