"""Answers, read within bounds; whose words they are; and which proxy leads there."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import anyio
import pytest

from arthur_relay.destinations.answers import described_success
from arthur_relay.destinations.bodies import ANSWER_BYTES, UnreadableError, decode, read
from arthur_relay.destinations.http import Answer
from arthur_relay.destinations.proxies import route_to
from arthur_relay.destinations.scope.interpret import (
    described,
    interpret_results,
    is_arthurs,
    is_success_of_another,
)
from arthur_relay.row import Batch, Failure, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TEXT = b'{"results": []}'


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


# Each has a name: gzip writes the time into its header, and a test's id made of that would not be
# the same in two of pytest-xdist's workers.
@pytest.mark.parametrize(
    ("body", "encodings"),
    [
        (TEXT, []),
        (TEXT, ["identity"]),
        (gzip.compress(TEXT), ["gzip"]),
        (gzip.compress(TEXT), [" GZip "]),
        (gzip.compress(TEXT[:5]) + gzip.compress(TEXT[5:]), ["x-gzip"]),
        (gzip.compress(TEXT) + b"\0\0\0", ["gzip"]),
        (zlib.compress(TEXT), ["deflate"]),
        (raw_deflate(TEXT), ["deflate"]),
        (gzip.compress(zlib.compress(TEXT)), ["deflate", "gzip"]),
    ],
    ids=[
        "plain",
        "identity",
        "gzip",
        "gzip in other letters",
        "gzip in two members",
        "gzip with padding",
        "deflate",
        "raw deflate",
        "gzip of deflate",
    ],
)
def test_what_is_encoded_is_decoded(body: bytes, encodings: list[str]) -> None:
    assert decode(body, encodings) == TEXT


def test_nothing_is_nothing_however_it_is_encoded() -> None:
    assert decode(b"", ["gzip"]) == b""


@pytest.mark.parametrize(
    ("body", "encodings"),
    [
        (TEXT, ["gzip"]),
        (TEXT, ["deflate"]),
        (TEXT, ["br"]),
        (TEXT, ["zstd"]),
        (TEXT, ["aes128gcm"]),
        (gzip.compress(TEXT)[:-3], ["gzip"]),
        (gzip.compress(TEXT)[:12], ["gzip"]),
        (gzip.compress(TEXT) + b"more", ["gzip"]),
        (gzip.compress(b"") * 17, ["gzip"]),
        (gzip.compress(b"") * 400_000, ["gzip"]),
        (zlib.compress(TEXT)[:-3], ["deflate"]),
        (gzip.compress(TEXT), ["gzip", "gzip"]),
        (gzip.compress(TEXT), ["gzip"] * 1000),
    ],
    ids=[
        "not gzip",
        "not deflate",
        "br",
        "zstd",
        "unknown",
        "gzip without its end",
        "gzip without its body",
        "gzip and more",
        "many empty members",
        "very many empty members",
        "deflate without its end",
        "gzip once, not twice",
        "too many encodings",
    ],
)
def test_what_can_not_be_decoded_is_said(body: bytes, encodings: list[str]) -> None:
    with pytest.raises(UnreadableError, match="the answer"):
        decode(body, encodings)


@pytest.mark.parametrize("times", [1, 2])
def test_a_bomb_takes_no_more_than_an_answer_may(times: int) -> None:
    body = b" " * (40 * ANSWER_BYTES)
    for _ in range(times):
        body = gzip.compress(body, 1)
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableError, match="too long when it is decoded"):
            decode(body, ["gzip"] * times)
        assert tracemalloc.get_traced_memory()[1] < 4 * ANSWER_BYTES
    finally:
        tracemalloc.stop()


def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    parts = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal parts
        while True:
            parts += 1
            yield b" " * 65536

    async def read_it() -> None:
        with pytest.raises(UnreadableError, match="too long"):
            await read(endless())

    anyio.run(read_it)
    assert parts * 65536 <= ANSWER_BYTES + 65536


@pytest.mark.parametrize(
    "body",
    [b'{"error": "record not found"}', b'{"errors": ["x"]}', b'{"message": "x", "status": 404}'],
)
def test_words_of_arthurs(body: bytes) -> None:
    assert is_arthurs(Answer(404, {}, body, {}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"default backend - 404",
        b"404 page not found\n",
        b"<html><head><title>404 Not Found</title></head></html>",
        b'{"message":"no Route matched with those values"}',
        b'{ "statusCode": 404, "message": "Resource not found" }',
        b'"error"',
        b'["error"]',
        b'{"error": null}',
        b'{"error": {"code": 404, "message": "not found"}}',
        b'{"timestamp": "2026", "status": 404, "error": "Not Found", "path": "/x"}',
        b'{"success": false, "errors": [{"code": 7003}]}',
        b'{"kind": "Status", "status": "Failure", "message": "x", "code": 404}',
        b'{"statusCode": 404, "error": "Not Found", "message": "no such route"}',
        b'{"status": "fail", "message": "no such route"}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_words_of_others(body: bytes) -> None:
    answer = Answer(404, {}, body, {})
    assert not is_arthurs(answer)
    assert "not in Arthur's words" in described(answer)


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("https://sso.example/login?token=canary", "a redirect to https://sso.example"),
        ("https://ada:canary@sso.example:8443/x#canary", "to https://sso.example:8443"),
        ("/login", "a redirect to another path of it"),
        ("//sso.example/canary", "a redirect to //sso.example"),
        ("https://CANARY/", "307"),
        ("https://c%61nary.sso.example/", "307"),
        ("http://[::1]:80/", "a redirect to http://[::1]:80"),
        ("", "307"),
        ("http://[canary", "307"),
        ("https://sso.example/\x1b[2Jcanary", "a redirect to https://sso.example"),
        ("https://sso\x1b[2J.example/", "307"),
    ],
)
def test_a_redirect_is_told_with_where_to(location: str, text: str) -> None:
    found = described(Answer(307, {"location": location}, b"", {}), ["Canary"])
    assert found.endswith(text)
    assert "canary" not in found


@pytest.mark.parametrize("status", [405, 407, 421])
def test_what_only_those_in_between_say(status: int) -> None:
    assert not is_arthurs(Answer(status, {}, b'{"error": "record not found"}', {}))


ARTHUR = "https://app.arthur.ai:443"


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"https": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https": "proxy:3128"}, "http://proxy:3128"),
        ({"all": "http://proxy:3128"}, "http://proxy:3128"),
        ({"http": "http://proxy:3128"}, None),
        ({"https": "http://proxy", "no": "*"}, None),
        ({"https": "http://proxy", "no": "other.example, arthur.ai"}, None),
        ({"https": "http://proxy", "no": ".arthur.ai"}, None),
        ({"https": "http://proxy", "no": "*.arthur.ai"}, None),
        ({"https": "http://proxy", "no": "app.arthur.ai:443"}, None),
        ({"https": "http://proxy", "no": "app.arthur.ai:8443"}, "http://proxy"),
        ({"https": "http://proxy", "no": "notarthur.ai,thur.ai,::1,10.0.0.0/8"}, "http://proxy"),
        ({"https": "http://proxy", "no": "fd00::/8, [fd00::]/8, ::1, [::1]"}, "http://proxy"),
    ],
)
def test_the_proxy_of_an_address(variables: dict[str, str], proxy: str | None) -> None:
    route = route_to(ARTHUR, variables)
    assert (route.proxy, route.problems) == (proxy, ())


@pytest.mark.parametrize(
    ("url", "passed_by"),
    [
        ("https://10.1.2.3", True),
        ("https://11.1.2.3", False),
        ("https://[fd00::7]:8443", True),
        ("https://[fe80::7]", False),
        ("https://[2001:db8::1]", True),
    ],
)
def test_networks_that_need_no_proxy(url: str, passed_by: bool) -> None:
    entries = "10.0.0.0/8,fd00::/8,2001:db8::1"
    route = route_to(url, {"https": "http://proxy", "no": entries})
    assert (route.proxy is None) is passed_by
    assert route.problems == ()


@pytest.mark.parametrize(
    "value", ["ftp://ada:canary@proxy:1", "http://ada:canary@proxy:port", "canary:x", "http://"]
)
def test_a_proxy_that_can_not_be_understood_is_left_out_and_not_quoted(value: str) -> None:
    route = route_to(ARTHUR, {"https": value})
    assert route.proxy is None
    (problem,) = route.problems
    assert "HTTPS_PROXY" in problem
    assert "canary" not in problem + repr(route)


def test_a_proxy_whose_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arthur_relay.destinations.proxies.find_spec", lambda _name: None)
    (problem,) = route_to(ARTHUR, {"all": "socks5://proxy:1080"}).problems
    assert "ALL_PROXY" in problem
    assert "socksio" in problem


def test_entries_that_nobody_understands() -> None:
    route = route_to(ARTHUR, {"https": "http://proxy", "no": "[canary, 10.0.0.0/99, host:port"})
    assert route.proxy == "http://proxy"
    assert route.problems == ("3 entries of NO_PROXY can't be understood: left out.",)


@pytest.mark.parametrize("status", [0, 99, 600, -(10**20), 10**400])
def test_a_status_that_http_has_not_is_not_understood(status: int) -> None:
    rows = (Row("a", "m", b"{}"), Row("b", "m", b"{}"))
    body = b'{"results": [{"status": 200}, {"status": %d}]}' % status
    assert interpret_results(Batch("m", rows), body).failure is Failure.MALFORMED


RESULTS = b'{"counts": {}, "results": [{"status": 200}]}'


@pytest.mark.parametrize(
    ("status", "media_type", "body", "content"),
    [
        (200, "text/html; charset=utf-8", b"<html></html>", "text/html"),
        (200, "text/plain", b"ok", "text/plain"),
        (202, "text/plain", b'{"status": "ok"}', "text/plain"),
        (200, "", b"ok", "something else"),
        (200, "canary", b"ok", "something else"),
        (200, "text/html\x1b[2J", b"ok", "something else"),
        (200, "text/canary", b"ok", "something else"),
        (200, "application/json", b'{"status": "ok"}', "JSON that is not Arthur's"),
        (200, "application/json", b"[]", "JSON that is not Arthur's"),
        (200, "application/json", b"", "nothing"),
        (204, "", b"", "nothing"),
        (204, "application/json", b"", "nothing"),
    ],
)
def test_a_success_of_another(status: int, media_type: str, body: bytes, content: str) -> None:
    answer = Answer(status, {"content-type": media_type}, body, {})
    assert is_success_of_another(answer)
    told = described_success(answer, ["text/CANARY"])
    assert told.startswith(f"{status} with {content}")
    assert "canary" not in told
    assert told.isprintable()


@pytest.mark.parametrize(
    ("status", "media_type", "body", "problem"),
    [
        (207, "application/json", RESULTS, ""),
        (200, "application/json; charset=utf-8", RESULTS, ""),
        (200, "application/problem+json", b"{", ""),
        (200, "text/plain", RESULTS, ""),
        (200, "", RESULTS, ""),
        (200, "application/json", RESULTS[:-5], ""),
        (200, "application/json", b"<html></html>", ""),
        (200, "application/json", b"", "the answer can't be decoded"),
        (207, "text/html", b"<html></html>", ""),
        (207, "application/json", b"", ""),
    ],
)
def test_a_success_that_may_be_arthurs(
    status: int, media_type: str, body: bytes, problem: str
) -> None:
    answer = Answer(status, {"content-type": media_type}, body, {}, problem)
    assert not is_success_of_another(answer)
