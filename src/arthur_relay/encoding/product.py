"""Arthur's two products, and for which of them a row or an address is."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

import orjson

from arthur_relay.encoding.protobuf_fields import BYTES, NotProtobufError, fields

TRACES_PATH = "/api/v1/traces"
"""The Engine's route for traces; the address of its rows' owner ends in it."""

_RESOURCE_SPANS: Final = 1 << 3 | BYTES
"""The tag of the one field of an `ExportTraceServiceRequest`."""


class Product(StrEnum):
    """What rows are made for: neither product reads the other's."""

    SCOPE = "Arthur Scope"
    ENGINE = "Arthur Engine"

    @property
    def words(self) -> RowWords:
        """What its users call its rows."""
        return _WORDS[self]


class RowWords(NamedTuple):
    """What a product's users call its rows, for log lines, health and errors."""

    one: str
    many: str
    truth: str
    """A row of `RowKind.GROUND_TRUTH`."""
    model: str
    """What rows are filed under."""
    name_one: str
    """How to say which one that is."""


_WORDS: Final = {
    Product.SCOPE: RowWords(
        one="an inference",
        many="inferences",
        truth="an inference",
        model="model",
        name_one="set ARTHUR_MODEL_ID, or give model_id",
    ),
    Product.ENGINE: RowWords(
        one="a span",
        many="spans",
        truth="feedback",
        model="task",
        name_one="set ARTHUR_TASK_ID, or give task",
    ),
}


def product_of_row(body: bytes) -> Product | None:
    """Return the product that a row is for, or None when it is no row.

    Scope's rows are JSON objects; so is the Engine's feedback, by another name. The Engine's spans
    are framed as a request, of which only the outermost lengths are read.
    """
    if body.lstrip()[:1] == b"{":
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = None  # the first length of a request may look like a brace
        if isinstance(found, dict):
            return Product.ENGINE if "annotation_score" in found else Product.SCOPE
    return Product.ENGINE if _is_request(body) else None


def product_of_address(address: str) -> Product:
    """Return the product that the address of a row's owner is of."""
    return Product.ENGINE if address.endswith(TRACES_PATH) else Product.SCOPE


def _is_request(body: bytes) -> bool:
    """Return whether a body is whole fields of a request's one kind, and nothing else."""
    try:
        return body != b"" and all(
            tag == _RESOURCE_SPANS for tag, _, _ in fields(body, 0, len(body))
        )
    except NotProtobufError:
        return False
