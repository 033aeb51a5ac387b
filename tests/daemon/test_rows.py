"""Splitting a body: every row as it was sent, and what can't be one is told apart. Pure."""

from __future__ import annotations

import json
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.daemon import json_rows, splitter
from arthur_relay.daemon.refusals import NotRowsError, TooManyRowsError
from arthur_relay.daemon.splitter import Split, split
from arthur_relay.row import RowKind

if TYPE_CHECKING:
    from collections.abc import Callable

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
good_rows = st.builds(
    lambda row_id, others, data: {
        **others,
        "partner_inference_id": row_id,
        "inference_data": data,
    },
    st.text(min_size=1),
    st.dictionaries(st.text(), values, max_size=3),
    values | st.dictionaries(st.text(), values, max_size=3),
)


def read(
    body: bytes,
    *,
    kind: RowKind = RowKind.INFERENCE,
    max_rows: int = 100,
    max_row_bytes: int = 10_000,
) -> Split:
    return split(
        body,
        model_id="m",
        kind=kind,
        max_rows=max_rows,
        max_row_bytes=max_row_bytes,
    )


@given(
    st.lists(good_rows | values, max_size=6),
    st.sampled_from([None, 1]),
    st.booleans(),
    st.sampled_from(["", " ", "\r\n\t"]),
)
def test_rows_are_the_bytes_that_were_sent(
    sent: list[Any], indent: int | None, ascii_only: bool, blank: str
) -> None:
    parts = [json.dumps(each, indent=indent, ensure_ascii=ascii_only) for each in sent]
    try:
        body = f"{blank}[{blank}{f'{blank},{blank}'.join(parts)}{blank}]{blank}".encode()
    except UnicodeEncodeError:
        return  # lone surrogates can't be sent as they are
    found = read(body)
    assert found.total == len(sent)
    assert len(found.rows) + len(found.refused) == found.total
    rows = iter(found.rows)
    for index, (part, value) in enumerate(zip(parts, sent, strict=True)):
        assert (index in found.refused) != is_good(value)
        if is_good(value):
            row = next(rows)
            assert row.id == value["partner_inference_id"]
            assert row.body == part.encode()
            assert row.model_id == "m"


def is_good(value: Any) -> bool:
    """Say whether a value is a row, and every reader can read it."""
    if not (isinstance(value, dict) and isinstance(value.get("inference_data"), dict)):
        return False
    row_id = value.get("partner_inference_id")
    return isinstance(row_id, str) and row_id != "" and is_readable(value)


def is_readable(value: Any) -> bool:
    match value:
        case dict():
            return all(is_readable(key) and is_readable(each) for key, each in value.items())
        case list():
            return all(map(is_readable, value))
        case str():
            return not any("\ud800" <= character <= "\udfff" for character in value)
        case int():
            return -(2**63) <= value < 2**64
        case _:
            return True


def reasons(body: bytes) -> list[str | None]:
    found = read(body)
    return [found.refused.get(index, (0, None))[1] for index in range(found.total)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{}",
        b"3",
        b"null",
        b"[",
        b"[1,]",
        b"[1 2]",
        b"[] []",
        b"[]\0",
        b"\xef\xbb\xbf[]",
        b'[{"partner_inference_id":"a"}] x',
        b'[{"partner_inference_id":"a","x":01}]',
        b'[{"partner_inference_id":"a","x":NaN}',
        b'[{"partner_inference_id":"a","x":NaN,"y":01}]',
        b'[{"partner_inference_id":"a","x":-NaN}]',
        b'[{"partner_inference_id":"a","x":"\n"}]',
        b'[{"partner_inference_id":"a","x":"\\ud800"}] x',
        b'[{"partner_inference_id":"a","x":"\\ud800"} {}]',
        b'{"x":"\\ud800"}',
        b"[" * 100_000,
        b"[" + b"[" * 100_000 + b"]" * 100_000,
        b"[" + b"[" * 100_000 + b"]" * 100_000 + b"] x",
        b"[" + b"[" * 100_000 + b"]" * 100_000 + b" {}]",
        b'["\\ud800",' + b'{"[":' * 100_000 + b"}" * 100_000 + b",]",
    ],
)
def test_what_is_no_list_of_rows(body: bytes) -> None:
    with pytest.raises(NotRowsError):
        read(body)


DATA = b'"inference_data":{"input_text":"x"}'


def row(fields: bytes, row_id: bytes = b'"a"') -> bytes:
    return b'{"partner_inference_id":%b,%b,%b}' % (row_id, DATA, fields)


def test_bytes_that_are_no_utf8_cost_their_row_only() -> None:
    good = row(b'"x":1')
    bad = [row(b'"x":"\xff"'), row(b'"x":1', b'"\xff"'), row(b'"\xff":1'), b'"\\ud800\xff"']
    body = b"[%b]" % b",".join([good, *bad])
    assert reasons(body) == [None, *[json_rows.NOT_UTF8] * 4]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (b'"x":"\\ud800"', json_rows.HALF_CHARACTER),
        (b'"x":"\\udc00\\ud800"', json_rows.HALF_CHARACTER),
        (b'"\\ud800":1', json_rows.HALF_CHARACTER),
        (b'"x":["\\uD83D"]', json_rows.HALF_CHARACTER),
        (b'"x":NaN', json_rows.NOT_FINITE),
        (b'"x":[-Infinity]', json_rows.NOT_FINITE),
        (b'"x":1e400', json_rows.NOT_FINITE),
        (b'"x":-1.5E+309', json_rows.NOT_FINITE),
        (b'"x":18446744073709551616', json_rows.LARGE_INTEGER),
        (b'"x":{"y":[-9223372036854775809]}', json_rows.LARGE_INTEGER),
        (b'"x":' + b"1" * 400, json_rows.LARGE_INTEGER),
        (b'"x":' + b"1" * 5000, json_rows.LARGE_INTEGER),
        (b'"x":18446744073709551616,"x":1', json_rows.LARGE_INTEGER),
        (b'"x":123456789012345678901234567890.5', json_rows.LARGE_INTEGER),
        (b'"x":10000000000000000000000000.0', json_rows.LARGE_INTEGER),
        (b'"x":[-9223372036854775809.5]', json_rows.LARGE_INTEGER),
        (b'"x":100000000000000000000e0', json_rows.LARGE_INTEGER),
        (b'"x":' + b"[" * 900 + b"]" * 900 + b',"x":1', json_rows.TOO_DEEP),
        (b'"x":"]]]]' + b"]" * 300 + b'\\\\","y":' + b"[" * 300 + b"]" * 300, json_rows.TOO_DEEP),
        (b'"x":' + b"[" * 254 + b"]" * 254, json_rows.TOO_DEEP),
        (b'"x":' + b'{"y":' * 900 + b"1" + b"}" * 900, json_rows.TOO_DEEP),
    ],
)
def test_what_a_later_step_could_not_read_costs_its_row_only(fields: bytes, reason: str) -> None:
    good = row(b'"x":1')
    body = b"[%b, %b,\n%b]" % (good, row(fields), good)
    assert reasons(body) == [None, reason, None]
    assert [found.body for found in read(body).rows] == [good, good]


@pytest.mark.parametrize("kind", RowKind)
@pytest.mark.parametrize("levels", [1100, 20_000])
@pytest.mark.parametrize(
    ("before", "inside", "after"),
    [
        (b"[", b"", b"]"),
        (b'{"a":', b"1", b"}"),
        (b' [ {"]}": ', b"[{}, [], [[]]]", b"}\n]"),
        (b'["a\\\\\\"]",', b'"\\"[[\\\\"', b',"]"]'),
        (b'{"\xc3\xa4\xf0\x9f\x98\x80]":[', b'"\xff", "\\ud800", NaN', b"]}"),
    ],
)
def test_a_row_that_no_reader_can_nest_so_deeply_costs_itself_only(
    kind: RowKind, levels: int, before: bytes, inside: bytes, after: bytes
) -> None:
    good = b'{"partner_inference_id":"a","%b":{"x":"]"}}' % splitter.DATA[kind].encode()
    deep = before * levels + inside + after * levels
    deep_row = b'{"partner_inference_id":"b","%b":%b}' % (splitter.DATA[kind].encode(), deep)
    body = b"[%b, %b,\n%b ,%b]" % (good, deep_row, deep.strip(), good)
    found = read(body, kind=kind, max_row_bytes=10_000_000)
    assert [each.body for each in found.rows] == [good, good]
    assert list(found.refused) == [1, 2]
    assert {status for status, _ in found.refused.values()} == {400}
    if b"\xff" not in inside:
        assert {reason for _, reason in found.refused.values()} == {json_rows.TOO_DEEP}


@pytest.mark.parametrize(
    "fields",
    [
        b'"x":"\\ud83d\\ude00"',
        b'"x":"\\u0000\\u001b"',
        b'"x":[18446744073709551615,-9223372036854775808,-0,1e30,1.0E+5,5e-324,1e-400]',
        b'"x":' + b"[" * 253 + b"]" * 253,
        b'"x":"NaN \\\\ud800"',
        b'"x":"18446744073709551616 \\" 18446744073709551616"',
        b'"x":[1.18446744073709551616,18446744073709551615e1,1e-00000000000000000005]',
        b'"x":"\\"' + b"[" * 300 + b'"',
        b'"x":[' + b"{}," * 300 + b"{}]",
    ],
)
def test_what_is_unusual_and_can_be_read_is_taken(fields: bytes) -> None:
    (found,) = read(b"[%b]" % row(fields)).rows
    assert found.body == row(fields)
    assert orjson.dumps(orjson.loads(found.body))
    assert json.loads(found.body)


@pytest.mark.parametrize(
    ("kind", "name"),
    [(RowKind.INFERENCE, "inference_data"), (RowKind.GROUND_TRUTH, "ground_truth_data")],
)
def test_a_row_tells_something(kind: RowKind, name: str) -> None:
    shapes = [b"", b',"%b":null', b',"%b":[]', b',"%b":"x"', b',"%b":{}', b',"%b":1,"%b":{}']
    given = [
        b'{"partner_inference_id":"a"%b}' % shape.replace(b"%b", name.encode()) for shape in shapes
    ]
    found = read(b"[%b]" % b",".join(given), kind=kind)
    required, no_object = f"{name} is required", f"{name} must be an object"
    assert found.refused == dict(
        enumerate([(400, reason) for reason in (required, required, no_object, no_object)])
    )
    assert [taken.body for taken in found.rows] == given[4:]


def test_ids_that_are_none() -> None:
    rows = [row(b'"x":1', row_id) for row_id in (b'"\\udfff"', b"7", b'""', b"null", b"[]")]
    body = b"[%b]" % b",".join([*rows, b"7", b'"x"', b"null", b"{%b}" % DATA])
    assert reasons(body) == [
        json_rows.HALF_CHARACTER,
        "partner_inference_id must be a string",
        "partner_inference_id is required",
        "partner_inference_id is required",
        "partner_inference_id must be a string",
        *["the row must be an object"] * 3,
        "partner_inference_id is required",
    ]


def test_the_last_of_a_key_that_comes_twice_counts() -> None:
    body = b'[{"partner_inference_id":"a","partner_inference_id":"b",%b}]' % DATA
    assert [found.id for found in read(body).rows] == ["b"]


def test_an_id_inside_is_not_the_rows() -> None:
    body = b'[{"inference_data":{"partner_inference_id":"a"}}]'
    assert reasons(body) == ["partner_inference_id is required"]


def test_limits() -> None:
    body = b"[%b,%b]" % (row(b'"x":1'), row(b'"x":"' + b"y" * 100 + b'"'))
    found = read(body, max_row_bytes=100)
    assert [each.id for each in found.rows] == ["a"]
    assert found.refused[1][0] == 413
    with pytest.raises(TooManyRowsError, match="more than the 1 rows"):
        read(body, max_rows=1)


def test_elements_of_a_list_of_very_many_are_not_all_made() -> None:
    body = b"[" + b"1," * 1_000_000 + b"1]"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyRowsError):
            read(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(body)


def test_rows_of_many_small_numbers_are_rows_like_others() -> None:
    good = row(b'"x":[' + b"1," * 5000 + b'2.5],"y":"\\n\xc3\xa4"')
    found = read(b"[%b , %b,%b]" % (good, good, good), max_row_bytes=100_000)
    assert [each.body for each in found.rows] == [good] * 3


@given(st.recursive(st.just([]), st.lists, max_leaves=50), st.integers(0, 260))
def test_the_depth_is_that_of_the_brackets(found: list[Any], more: int) -> None:
    text = json.dumps(found)
    for _ in range(more):
        text = f'[{{"[[[": {text}}}]'
    depth = level = 0
    for character in text.replace('"[[["', ""):
        level += (character in "[{") - (character in "]}")
        depth = max(depth, level)
    assert json_rows._is_too_deep(text.encode()) == (depth > json_rows.MAX_DEPTH)


@pytest.mark.parametrize("text", ["x", "x" * json_rows.LONG_BYTES])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (2**64 - 1, None),
        (-(2**63), None),
        (2**64, json_rows.LARGE_INTEGER),
        (-(2**63) - 1, json_rows.LARGE_INTEGER),
        ("1" * 40, None),
        ('\\"[[' * 300 + "1" * 40, None),
        (1e300, None),
    ],
)
def test_however_a_row_is_written(
    value: Any, reason: str | None, separators: tuple[str, str], text: str
) -> None:
    document = {"partner_inference_id": "a", "inference_data": {"text": text, "x": value}}
    found = read(f"[{json.dumps(document, separators=separators)}]".encode(), max_row_bytes=100_000)
    assert [each[1] for each in found.refused.values()] == ([] if reason is None else [reason])


@pytest.mark.parametrize("text", ["x", "x" * json_rows.LONG_BYTES])
@pytest.mark.parametrize(("more", "reason"), [(0, None), (1, json_rows.TOO_DEEP)])
@pytest.mark.parametrize("blank", [b"", b" "])
def test_the_depth_that_is_taken_however_a_row_is_written(
    more: int, reason: str | None, blank: bytes, text: str
) -> None:
    depth = json_rows.MAX_DEPTH - 2 + more
    nested = b"[" * depth + b"]" * depth
    content = b'[{"partner_inference_id":%b"a","inference_data":{"t":"%b","x":%b}}]'
    found = read(content % (blank, text.encode(), nested), max_row_bytes=100_000)
    assert [each[1] for each in found.refused.values()] == ([] if reason is None else [reason])


def test_a_key_that_comes_twice_hides_nothing() -> None:
    deep = b"[" * 300 + b"]" * 300
    for hidden, reason in ((deep, json_rows.TOO_DEEP), (b"9" * 30, json_rows.LARGE_INTEGER)):
        for content in (b'"x":%b,"x":1' % hidden, b'"x": %b, "x": 1' % hidden):
            assert reasons(b"[%b]" % row(content)) == [reason]


class Steps:
    """Counts the lines of Python that run: what a body takes, whatever machine it is."""

    def __init__(self) -> None:
        self.lines = 0

    def __call__(self, frame: Any, event: str, argument: Any) -> Steps:
        self.lines += event == "line"
        return self


def steps_for(body: bytes) -> int:
    steps = Steps()
    before = sys.gettrace()
    sys.settrace(steps)
    try:
        split(
            body,
            model_id="m",
            kind=RowKind.INFERENCE,
            max_rows=1000,
            max_row_bytes=16 * 1024 * 1024,
        )
    except (NotRowsError, TooManyRowsError):
        pass
    finally:
        sys.settrace(before)
    return steps.lines


DEEP = b"[" * 20_000 + b"]" * 20_000
BOMBS: dict[str, Callable[[int], bytes]] = {
    "depth in a row": lambda n: b"[%b]" % row(b'"x":' + b"[" * n + b"]" * n),
    "depth in a row that is not closed": lambda n: b"[%b" % row(b'"x":' + b"[" * n),
    "depth and an odd text": lambda n: b"[%b]" % row(b'"y":"\\ud800","x":' + b"[" * n + b"]" * n),
    "depth of the body": lambda n: b"[" * n + b"]" * n,
    "depth of objects": lambda n: b"[%b]" % row(b'"x":' + b'{"a":' * n + b"1" + b"}" * n),
    "rows that are too deep": lambda n: (
        b"[%b1]" % ((b"[" * 1500 + b"]" * 1500 + b",") * (n // 1500))
    ),
    "depth and shallow brackets": lambda n: b"[[%b]]" % (DEEP + b",[]" * n),
    "depth and texts": lambda n: b"[[%b]]" % (DEEP + b',""' * n),
    "depth and quotes": lambda n: b"[[%b]]" % (DEEP + b',"' + b'\\"' * n + b'"'),
    "depth and rows": lambda n: b"[%b]" % (DEEP + b",{}" * n),
    "depth that is not closed": lambda n: b"[" * n,
    "shallow brackets": lambda n: b"[%b]" % row(b'"x":[' + b"[]," * n + b"[]]"),
    "brackets and blanks": lambda n: b"[%b]" % row(b'"x":[' + b"[], " * n + b"[]]"),
    "elements": lambda n: b"[%b1]" % (b"1," * n),
    "odd elements": lambda n: b'["\\ud800"%b]' % (b",1" * n),
    "digits": lambda n: b"[%b]" % row(b'"x":' + b"9" * n),
    "digits of a float": lambda n: b"[%b]" % row(b'"x":0.' + b"9" * n),
    "an exponent": lambda n: b"[%b]" % row(b'"x":1e' + b"9" * n),
    "many integers": lambda n: b"[%b]" % row(b'"x":[' + b"1234567890123456789," * n + b"1]"),
    "backslashes": lambda n: b"[%b]" % row(b'"x":"' + b"\\\\" * n + b'"'),
    "quotes": lambda n: b"[%b]" % row(b'"x":"' + b'\\"' * n + b'"'),
    "blanks": lambda n: b"[" + b" " * n + row(b'"x":1') + b" " * n + b"]",
    "blanks and an odd text": lambda n: b"[" + b" " * n + b'"\\ud800"' + b" " * n + b"]",
    "keys that are the same": lambda n: b"[%b]" % row(b'"x":1,' * n + b'"y":1'),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_no_body_takes_more_steps_than_it_has_bytes(bomb: Callable[[int], bytes]) -> None:
    """Twice the body takes at most twice the steps, and none more than a part of its bytes."""
    small, large = bomb(20_000), bomb(40_000)
    few, many = steps_for(small), steps_for(large)
    assert many <= 2 * few + 100
    assert many <= len(large) + 1000
