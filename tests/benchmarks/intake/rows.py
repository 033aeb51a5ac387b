"""Rows of 2 KB as clients send them."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import repeat

from tests.benchmarks.texts import PHRASE_WORDS

ROW_BYTES = 2048
MODEL_ID = "benchmark"


_REQUEST = b"request-"
"""Stands where the number of the request goes that a row is sent in."""


_FOX = b"The quick brown fox jumps over the lazy dog. " * 60


def row(number: int, request: bytes = _REQUEST, text: bytes = _FOX) -> bytes:
    """A row of `ROW_BYTES`; its id is the request's, of 8 bytes, and its number there."""
    begin = b'{"partner_inference_id":"%b-%04d",' % (request, number)
    begin += b'"inference_timestamp":"2026-06-07T12:00:13.656449+00:00",'
    begin += b'"inference_data":{"input_text":"'
    end = b'","output_text":"An answer."}}'
    return begin + text[: ROW_BYTES - len(begin) - len(end)] + end


def template(rows: int, *, prose: bool = False) -> bytes:
    """A request's body with so many rows, that `numbered` makes one with ids of its own of.

    Args:
        rows: How many.
        prose: Whether their texts are English prose, no two alike, for what compresses them.
    """
    texts = _pieces_of_prose() if prose else repeat(_FOX)
    return b"[" + b",".join([row(number, text=next(texts)) for number in range(rows)]) + b"]"


def _pieces_of_prose() -> Iterator[bytes]:
    """Phrases of the language reference in an order of chance, which JSON has as they are.

    Made as `texts.text` makes them, and for the same reason; from fewer words, as every load begins
    with this.
    """
    from pydoc_data.topics import topics

    prose = re.findall(r"[A-Za-z0-9,.;:()]+", " ".join(topics.values()))
    draw = random.Random(0)
    while True:
        piece = ""
        while len(piece) < ROW_BYTES:
            begin = draw.randrange(len(prose) - PHRASE_WORDS)
            piece += " ".join(prose[begin : begin + PHRASE_WORDS]) + " "
        yield piece.encode()


def numbered(body: bytes, request: int) -> bytes:
    """The body of the request with a number; cheap, because it is made while others measure."""
    return body.replace(_REQUEST, b"%08x" % request)
