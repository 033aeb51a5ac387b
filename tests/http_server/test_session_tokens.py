"""Session tokens: what a client sends is read, or refused, and raises nothing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest

from arthur_relay.http_server.session_tokens import read_token, sign_token

pytestmark = pytest.mark.one_python

KEY = b"k" * 32
OTHER_KEY = b"o" * 32
CLAIMS = {"sub": "alpha", "iat": 1000, "exp": 2000}


def _segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def made_by_hand(header: bytes, claims: Any = CLAIMS, key: bytes = KEY) -> str:
    """Return a token as any client can make one."""
    signed = f"{_segment(header)}.{_segment(json.dumps(claims).encode())}"
    return f"{signed}.{_segment(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def test_a_token_is_read_until_it_expires() -> None:
    token = sign_token(CLAIMS, KEY)
    assert read_token(token, KEY, now=1999.9) == CLAIMS
    assert read_token(token, KEY, now=2000.0) is None
    assert read_token(token, KEY, now=10.0) == CLAIMS, "a clock that went back refuses nobody"
    assert read_token(token, OTHER_KEY, now=1500.0) is None


def test_tokens_of_earlier_versions_are_read() -> None:
    token = made_by_hand(b'{"alg": "HS256", "typ": "JWT"}')
    assert read_token(token, KEY, now=1500.0) == CLAIMS


def test_a_token_without_an_end_is_refused() -> None:
    token = made_by_hand(b'{"alg":"HS256","typ":"JWT"}', {"sub": "alpha"})
    assert read_token(token, KEY, now=1500.0) is None


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","typ":"JWT"}',
        b'{"alg":"HS512","typ":"JWT"}',
        b'{"alg":["HS256"]}',
        b'{"alg":{}}',
        b'{"alg":null}',
        b'{"kid":{},"alg":"HS256"}',
        b'{"crit":[[]],"alg":"HS256"}',
        b'{"b64":false,"crit":["b64"],"alg":"HS256"}',
        b"{}",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 20_000,
        b'{"alg":' + b"[" * 20_000,
        b"9" * 20_000,
    ],
)
def test_a_token_with_another_header_is_refused(header: bytes) -> None:
    for key in (KEY, OTHER_KEY):
        assert read_token(made_by_hand(header, key=key), KEY, now=1500.0) is None


@pytest.mark.parametrize("given", ["", ".", "..", "a.b.c", "é", "\udcff", "a" * 30_000, "." * 99])
def test_what_is_no_token_is_refused(given: str) -> None:
    assert read_token(given, KEY, now=1500.0) is None
