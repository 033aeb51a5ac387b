"""Splitting a body: every row as it was sent, and what can't be one is told apart. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.daemon.rows import NotRowsError, Split, TooManyRowsError, split
from arthur_relay.row import RowKind

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
    lambda row_id, others: {**others, "partner_inference_id": row_id},
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.dictionaries(st.text(), values, max_size=3),
)


def read(body: bytes, *, max_rows: int = 100, max_row_bytes: int = 10_000) -> Split:
    return split(
        body,
        model_id="m",
        kind=RowKind.INFERENCE,
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
        row_id = value.get("partner_inference_id") if isinstance(value, dict) else None
        if index in found.refused:
            usable = isinstance(row_id, str) and row_id != ""
            assert not usable or any("\ud800" <= c <= "\udfff" for c in str(row_id))
        else:
            row = next(rows)
            assert row.id == row_id
            assert row.body == part.encode()
            assert row.model_id == "m"


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
        b'[{"partner_inference_id":"a","x":NaN}]',
        b'[{"partner_inference_id":"a","x":-Infinity}]',
        b'[{"partner_inference_id":"a","x":01}]',
        b'[{"partner_inference_id":"a","x":"\n"}]',
        b'[{"partner_inference_id":"a","x":"\\ud800","y":NaN}]',
        b'[{"partner_inference_id":"a","x":"\\ud800"}] x',
        b'[{"partner_inference_id":"a","x":"\\ud800"} {}]',
        b'{"x":"\\ud800"}',
        b'["\\ud800\xff"]',
        b'[{"partner_inference_id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        b'["\\ud800",' + b"[" * 100_000 + b"]" * 100_000 + b"]",
    ],
)
def test_what_is_no_list_of_rows(body: bytes) -> None:
    with pytest.raises(NotRowsError):
        read(body)


def test_bytes_that_are_no_utf8_cost_their_row_only() -> None:
    body = (
        b'[{"partner_inference_id":"a"},{"partner_inference_id":"b","x":"\xff"},'
        b'{"partner_inference_id":"\xff"},{"partner_inference_id":"c","\xff":1}]'
    )
    assert reasons(body) == [None, *["the row is not valid UTF-8"] * 3]


def test_lone_surrogates_are_json_but_no_id() -> None:
    body = (
        b'[{"partner_inference_id":"a","x":"\\ud800"},{"partner_inference_id":"\\udfff"},'
        b'{"partner_inference_id":7,"x":"\\ud800"},"\\ud800",{"x":"\\ud800"},'
        b'{"partner_inference_id":"b","x":1e999,"y":' + b"1" * 5000 + b"}]"
    )
    assert reasons(body) == [
        None,
        "partner_inference_id is not valid Unicode",
        "partner_inference_id must be a string",
        "the row must be an object",
        "partner_inference_id is required",
        None,
    ]
    assert read(body).rows[0].body == b'{"partner_inference_id":"a","x":"\\ud800"}'


def test_the_last_of_a_key_that_comes_twice_counts() -> None:
    body = b'[{"partner_inference_id":"a","partner_inference_id":"b"}]'
    assert [row.id for row in read(body).rows] == ["b"]


def test_an_id_inside_is_not_the_rows() -> None:
    body = b'[{"inference_data":{"partner_inference_id":"a"}}]'
    assert reasons(body) == ["partner_inference_id is required"]


def test_numbers_of_any_size_pass() -> None:
    body = b'[{"partner_inference_id":"a","x":1e999,"y":' + b"1" * 5000 + b"}]"
    assert reasons(body) == [None]


def test_limits() -> None:
    body = b'[{"partner_inference_id":"a"},{"partner_inference_id":"b","x":"' + b"y" * 100 + b'"}]'
    found = read(body, max_row_bytes=100)
    assert [row.id for row in found.rows] == ["a"]
    assert found.refused[1][0] == 413
    with pytest.raises(TooManyRowsError, match="2 rows; 1 are allowed"):
        read(body, max_rows=1)
