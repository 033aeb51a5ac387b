"""The id of a row of the Engine: `TRACE-SPAN`, both in hex. Pure."""

from __future__ import annotations

from typing import NamedTuple


class RowId(NamedTuple):
    """The id of a span's row, or of the row of feedback for the trace that the span is the root of.

    Attributes:
        trace_id: 32 digits in lower case.
        span_id: 16 digits in lower case.
    """

    trace_id: str
    span_id: str

    @classmethod
    def parse(cls, text: str) -> RowId:
        """Read a row's id. Of any other text, which an old dead letter may have, both are it."""
        trace_id, dash, span_id = text.partition("-")
        return cls(trace_id, span_id if dash else text)

    @classmethod
    def of_root(cls, trace_id: str) -> RowId:
        """Return the id of the row that this package makes of a trace's root, by the trace's id."""
        return cls(trace_id, trace_id[16:])

    def __str__(self) -> str:
        return f"{self.trace_id}-{self.span_id}"


def row_id(trace_id: bytes, span_id: bytes) -> str:
    """Return the id of a span's row by the span's own ids."""
    return f"{trace_id.hex()}-{span_id.hex()}"
