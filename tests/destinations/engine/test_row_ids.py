"""The ids of rows are read as they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arthur_relay.destinations.engine.row_ids import RowId, row_id

pytestmark = pytest.mark.one_python


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8))
def test_an_id_is_read_as_it_was_written(trace_id: bytes, span_id: bytes) -> None:
    text = row_id(trace_id, span_id)
    assert RowId.parse(text) == (trace_id.hex(), span_id.hex())
    assert str(RowId.parse(text)) == text


def test_the_root_of_a_trace_of_ours_has_the_last_digits_of_its_id() -> None:
    trace_id = "0123456789abcdef" * 2
    assert str(RowId.of_root(trace_id)) == f"{trace_id}-0123456789abcdef"


@given(st.text(st.characters(exclude_characters="-")))
def test_any_other_text_is_both(text: str) -> None:
    assert RowId.parse(text) == (text, text)
