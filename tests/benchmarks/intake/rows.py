"""Rows of 2 KB as clients send them."""

from __future__ import annotations

ROW_BYTES = 2048
MODEL_ID = "benchmark"


_REQUEST = b"request-"
"""Stands where the number of the request goes that a row is sent in."""


def row(number: int, request: bytes = _REQUEST) -> bytes:
    """A row of `ROW_BYTES`; its id is the request's, of 8 bytes, and its number there."""
    begin = b'{"partner_inference_id":"%b-%04d",' % (request, number)
    begin += b'"inference_timestamp":"2026-06-07T12:00:13.656449+00:00",'
    begin += b'"inference_data":{"input_text":"'
    end = b'","output_text":"An answer."}}'
    words = b"The quick brown fox jumps over the lazy dog. " * 60
    return begin + words[: ROW_BYTES - len(begin) - len(end)] + end


def template(rows: int) -> bytes:
    """A request's body with so many rows, that `numbered` makes one with ids of its own of."""
    return b"[" + b",".join([row(number) for number in range(rows)]) + b"]"


def numbered(body: bytes, request: int) -> bytes:
    """The body of the request with a number; cheap, because it is made while others measure."""
    return body.replace(_REQUEST, b"%08x" % request)
