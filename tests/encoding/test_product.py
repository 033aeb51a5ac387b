"""For which product a row is, as its bytes say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.destinations.engine.rows import row_body
from arthur_relay.encoding.product import Product, product_of_address, product_of_row

SPAN = row_body(b"resource", b"scope", b"span" * 100)


@pytest.mark.parametrize(
    ("body", "product"),
    [
        (b'{"partner_inference_id": "i", "inference_data": {}}', Product.SCOPE),
        (b' \n{"a": 1}', Product.SCOPE),
        (b"{}", Product.SCOPE),
        (b'{"annotation_score": 1, "annotation_description": null}', Product.ENGINE),
        (SPAN, Product.ENGINE),
        (SPAN + SPAN, Product.ENGINE),
        (b"\x0a\x00", Product.ENGINE),
        (b"\x0a\x7b" + b"{" * 123, Product.ENGINE),  # a length that is a brace
        (b"", None),
        (b"null", None),
        (b"[{}]", None),
        (b"{ no JSON", None),
        (SPAN[:-1], None),
        (SPAN + b"\x12\x00", None),
        (b"\x0a", None),
        (b"\x0a\xff\xff\xff\xff\xff\x01", None),
        (b"\x0a\x80", None),
    ],
)
def test_a_row_says_what_it_is_for(body: bytes, product: Product | None) -> None:
    assert product_of_row(body) is product


@given(st.binary())
def test_no_bytes_are_an_error(body: bytes) -> None:
    assert product_of_row(body) in (None, *Product)


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=70_000))
def test_each_span_is_known(resource: bytes, scope: bytes, span: bytes) -> None:
    assert product_of_row(row_body(resource, scope, span)) is Product.ENGINE


def test_an_owners_address_says_it_too() -> None:
    assert product_of_address("https://app.arthur.ai") is Product.SCOPE
    assert product_of_address("unix:///run/relay.sock/api/v1/traces") is Product.ENGINE
