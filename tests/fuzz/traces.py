"""Requests of OTLP: whatever is sent, no span does harm to another.

Invariants:

- a body is refused as a whole, or each of its spans is taken or refused
- a row holds one span, with the ids that it is known by, and can be joined with others
- a body that was not changed goes on as it was
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from arthur_relay.daemon.otlp_json import to_protobuf
from arthur_relay.daemon.refusals import NotRowsError, TooManyRowsError
from arthur_relay.daemon.span_splitter import SplitSpans, split_spans
from arthur_relay.destinations.engine.rows import joined, split
from tests.daemon.traces import request, span
from tests.fuzz.intake import mutated
from tests.fuzz.outcome import Broken, Outcome

if TYPE_CHECKING:
    from random import Random

MOST_ROWS = 20
MOST_BYTES = 20_000

_TEXTS = ("question", "a\0b", '{"a": "\\u0000\\ud800"}', "Grüße 🙂", "", "x" * 300)


def fuzz_traces(random: Random, cases: int, outcome: Outcome) -> None:
    """Try some bodies.

    Raises:
        Broken: One breaks an invariant.
    """
    for _ in range(cases):
        outcome.counts["bodies of spans"] += 1
        sent = b"".join(_request(random) for _ in range(random.randrange(3)))
        is_whole = random.random() < 0.3
        _try(sent if is_whole else mutated(random, sent), outcome, is_whole=is_whole)
        _try_json(mutated(random, b'{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}'), outcome)


def _request(random: Random) -> bytes:
    spans = [
        span(number, input__value=random.choice(_TEXTS), count=random.choice((0, 1)))
        for number in random.choices(range(1, 1 << 62), k=random.randrange(4))
    ]
    found: bytes = request(*spans, service__name=random.choice(_TEXTS)).SerializeToString()
    return found


def _try(body: bytes, outcome: Outcome, *, is_whole: bool) -> None:
    try:
        found = split_spans(
            body, now_ns=1, max_rows=MOST_ROWS, max_row_bytes=MOST_BYTES, max_bytes=MOST_BYTES
        )
    except (NotRowsError, TooManyRowsError):
        if is_whole:
            raise Broken("a body that was not changed is taken", body) from None
        outcome.counts["bodies that are no spans"] += 1
        return
    outcome.counts["spans taken"] += len(found.rows)
    outcome.counts["spans refused"] += len(found.refused)
    if len(found.rows) + len(found.refused) != found.total:
        raise Broken("each span is taken or refused", body)
    _check_rows(body, found, is_whole=is_whole)


def _check_rows(body: bytes, found: SplitSpans, *, is_whole: bool) -> None:
    for row in found.rows:
        _, _, content = split(row.body)
        try:
            read = Span.FromString(content)
        except DecodeError:  # the Engine refuses it, and it alone
            if is_whole:
                raise Broken("a span that was not changed is one", body) from None
            continue
        if row.id != f"{read.trace_id.hex()}-{read.span_id.hex()}":
            raise Broken("a row is known by the ids of its span", body)
    size = sum(map(len, joined(row.body for row in found.rows)))
    if size > sum(len(row.body) for row in found.rows) + 8:
        raise Broken("rows can be joined", body)


def _try_json(body: bytes, outcome: Outcome) -> None:
    try:
        to_protobuf(body)
    except NotRowsError:
        outcome.counts["bodies that are no spans"] += 1
