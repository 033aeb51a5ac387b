"""Bodies of rows: whatever is sent, what is taken can be read by every later step.

Invariants:

- only what is no list of rows as a whole is refused as a whole
- each row is taken or refused, with a reason that quotes nothing
- a row that is taken is the bytes that were sent, and can be read by orjson, by Python's reader
  (the sandbox's) and by the sandbox's validation, and cut by the encoder until nothing is left
- a row that is known to be good is taken, whatever is beside it
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson

from arthur_relay.daemon.refusals import NotRowsError, TooManyRowsError
from arthur_relay.daemon.splitter import split
from arthur_relay.destinations.scope.encoder import Encoder
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.encoding.omissions import NoOmissions
from arthur_relay.row import Batch, Row, RowKind
from arthur_relay.sandbox import core
from arthur_relay.sandbox.models import build_model, demo_attributes
from arthur_relay.sandbox.validation import (
    InvalidRowError,
    Schema,
    check_ground_truth,
    check_inference,
)
from tests.fuzz.outcome import Broken, Outcome

if TYPE_CHECKING:
    from random import Random

MODEL = build_model(
    {
        "partner_model_id": "m",
        "input_type": "NLP",
        "output_type": "TOKEN_SEQUENCE",
        "is_batch": False,
        "attributes": demo_attributes(),
    },
    model_id="m",
    created_at="2026-06-07T12:00:13+00:00",
)
SCHEMA = Schema.of(MODEL)
ENCODER = Encoder(ModelSchema.from_json(MODEL), omissions=NoOmissions())
MAX_ROWS = 50
MAX_ROW_BYTES = 20_000

ODD_VALUES = [
    b"NaN",
    b"-Infinity",
    b"Infinity",
    b"1e400",
    b"-1E+999",
    b"1e-400",
    b"-0",
    b"-0.0",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"-9223372036854775809",
    b"1" * 30,
    b"9" * 400,
    b"1" * 5000,
    b"01",
    b"+1",
    b".5",
    b"1.",
    b"0x10",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\ud83d\\ude00"',
    b'"\\u0000"',
    b'"\x00"',
    b'"\n"',
    b'"\xff"',
    b'"\xed\xa0\x80"',
    b'"\xf0\x9f\x99\x82"',
    b'"\\x"',
    b'"',
    b"'x'",
    b"tru",
    b"null",
    b"[]",
    b"{}",
    b"[" * 100 + b"]" * 100,
    b"[" * 253 + b"]" * 253,
    b'{"a":' * 254 + b"1" + b"}" * 254,
    b"[" * 1100 + b"]" * 1100,
    b'"' + b"x" * 3000 + b'"',
    b'"' + b"x" * 30_000 + b'"',
]
KEYS = [
    b'"partner_inference_id"',
    b'"inference_data"',
    b'"ground_truth_data"',
    b'"input_text"',
    b'"output_text"',
    b'"inference_timestamp"',
    b'"\\u0070artner_inference_id"',
    b'"x"',
    b'""',
    b'"\\ud800"',
]
GOOD = b'{"partner_inference_id":"good","inference_data":{"input_text":"x"}}'
GOOD_TRUTH = b'{"partner_inference_id":"good","ground_truth_data":{"thumbs_up":true}}'


def fuzz_intake(random: Random, cases: int, outcome: Outcome) -> None:
    """Try some bodies.

    Raises:
        Broken: One breaks an invariant.
    """
    for _ in range(cases):
        kind = random.choice(list(RowKind))
        good = GOOD if kind is RowKind.INFERENCE else GOOD_TRUTH
        rows = [_row(random, good) for _ in range(random.randrange(6))]
        blank = random.choice([b"", b" ", b"\r\n\t"])
        body = b"[%b]" % (blank + b"," + blank).join(rows)
        is_mutated = random.random() < 0.4
        if is_mutated:
            body = mutated(random, body)
        try_body(body, kind, outcome)
        outcome.counts["bodies"] += 1


def try_body(body: bytes, kind: RowKind, outcome: Outcome) -> None:
    """Try one body.

    Raises:
        Broken: It breaks an invariant.
    """
    try:
        found = split(body, model_id="m", kind=kind, max_rows=MAX_ROWS, max_row_bytes=MAX_ROW_BYTES)
    except (NotRowsError, TooManyRowsError):
        outcome.counts["bodies that are no rows"] += 1
        try:
            readable = orjson.loads(body)
        except orjson.JSONDecodeError:
            return
        if isinstance(readable, list) and len(readable) <= MAX_ROWS:
            raise Broken("a list that can be read is refused as a whole", body) from None
        return
    if len(found.rows) + len(found.refused) != found.total:
        raise Broken("each row is taken or refused", body)
    for index, (status, reason) in found.refused.items():
        if not 0 <= index < found.total or status not in (400, 413) or len(reason) > 100:
            raise Broken("a row is refused with a reason", (body, index, status, reason))
    for row in found.rows:
        _try_row(row, body)
    good = GOOD if kind is RowKind.INFERENCE else GOOD_TRUTH
    with_good = b"[%b,%b]" % (good, body.strip()[1:-1]) if found.total else b"[%b]" % good
    beside = split(
        with_good, model_id="m", kind=kind, max_rows=MAX_ROWS + 1, max_row_bytes=MAX_ROW_BYTES
    )
    if 0 in beside.refused or len(beside.rows) != len(found.rows) + 1:
        raise Broken("a good row is taken, whatever is beside it", with_good)
    outcome.counts["rows taken"] += len(found.rows)
    outcome.counts["rows refused"] += len(found.refused)
    if found.rows:
        _try_batch(Batch("m", tuple(found.rows)), body)


def _try_row(row: Row, body: bytes) -> None:
    if row.body not in body or len(row.body) > MAX_ROW_BYTES:
        raise Broken("a row is the bytes that were sent", body)
    document = orjson.loads(row.body)
    if document["partner_inference_id"] != row.id or not row.id:
        raise Broken("a row's id is its own", body)
    orjson.dumps(document)
    json.loads(row.body, parse_int=_integer)
    left = row
    for _ in range(100):
        shrunk = ENCODER.shrink(left)
        if shrunk is None:
            return
        left = shrunk
        orjson.loads(left.body)
    raise Broken("cutting a row ends", body)


def _integer(digits: str) -> int:
    if not -(2**63) <= (value := int(digits)) < 2**64:
        raise Broken("an integer fits into 64 bits", digits)
    return value


def _try_batch(batch: Batch, body: bytes) -> None:
    rows: list[Any] = core._parse(batch.body())
    if len(rows) != len(batch.rows):
        raise Broken("a request holds its rows, and no other", body)
    check = check_inference if batch.kind is RowKind.INFERENCE else check_ground_truth
    for row, read in zip(batch.rows, rows, strict=True):
        try:
            inference_id = check(SCHEMA, read)
        except InvalidRowError:
            continue  # of its own fault, and told so
        if inference_id != row.id:
            raise Broken("Arthur finds the same id", body)


def _row(random: Random, good: bytes) -> bytes:  # noqa: PLR0911 - one for each kind
    match random.randrange(8):
        case 0 | 1:
            return good
        case 2:
            return _value(random, 0)
        case 3:
            return good[:-1] + b",%b:%b}" % (random.choice(KEYS), _value(random, 0))
        case 4:
            return good.replace(b'"good"', _value(random, 0))
        case 5:
            return good.replace(b'"x"', b'"' + b"\xc3\xa4" * random.randrange(3000) + b'"')
        case 6:
            return good.replace(b'"x"', _value(random, 0)).replace(b"true", _value(random, 0))
        case _:
            return b"{%b:%b,%b" % (random.choice(KEYS), _value(random, 0), good[1:])


def _value(random: Random, depth: int) -> bytes:
    if depth > 3 or random.random() < 0.6:
        return random.choice(ODD_VALUES)
    inner = [_value(random, depth + 1) for _ in range(random.randrange(4))]
    if random.random() < 0.5:
        return b"[%b]" % b",".join(inner)
    return b"{%b}" % b",".join(b"%b:%b" % (random.choice(KEYS), each) for each in inner)


def mutated(random: Random, data: bytes) -> bytes:
    """Return data with some bytes changed, taken out, put in or repeated."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(changed) + 1)
        end = min(len(changed), at + random.choice([1, 1, 2, 8, 40]))
        match random.randrange(4):
            case 0:
                del changed[at:end]
            case 1:
                changed[at:end] = random.randbytes(end - at)
            case 2:
                changed[at:at] = changed[at:end]
            case _:
                changed[at:at] = random.choice(
                    [b"\x00", b"\xff", b'"', b"\\", b"[", b"]", b"{", b"}", b",", b"\r\n", b":"]
                )
    return bytes(changed)
