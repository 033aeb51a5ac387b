"""The batcher against its promises: nothing lost, doubled, reordered; limits and age hold."""

from __future__ import annotations

from itertools import product

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from arthur_relay.delivery.batching import Batcher
from arthur_relay.row import CHUNK_BYTES, Batch, Row, RowKind

ROWS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from(RowKind), st.integers(1, 60), st.floats(0, 3)
    ),
    max_size=60,
)


@given(ROWS, st.integers(1, 8), st.integers(1, 100), st.floats(0, 5))
def test_promises(
    arrivals: list[tuple[str, RowKind, int, float]], max_rows: int, max_bytes: int, linger: float
) -> None:
    batcher = Batcher(max_rows=max_rows, max_bytes=max_bytes, linger_seconds=linger)
    now = 0.0
    arrived: dict[Row, float] = {}
    rows: list[Row] = []
    batches: list[Batch] = []

    def leave(leaving: list[Batch]) -> None:
        batches.extend(leaving)
        for batch in leaving:
            for row in batch.rows:
                arrived.pop(row)

    for number, (model, kind, size, wait) in enumerate(arrivals):
        now += wait
        ripe = batcher.due(now)
        first = [arrived[batch.rows[0]] for batch in ripe]
        assert first == sorted(first)  # who has waited longest goes first
        leave(ripe)
        assert all(now - at < linger for at in arrived.values())  # age is bounded
        row = Row(f"r{number}", model, b"x" * size, kind=kind)
        rows.append(row)
        arrived[row] = now
        leave(batcher.add([row], now))
        due = batcher.next_due()
        assert (due is None) == (not arrived)
        assert due is None or due == min(arrived.values()) + linger
    leave(batcher.flush())
    assert batcher.next_due() is None
    for whose in product("abc", RowKind):  # nothing lost, doubled or reordered
        sent = [row for batch in batches for row in batch.rows if (row.model_id, row.kind) == whose]
        assert sent == [row for row in rows if (row.model_id, row.kind) == whose]
    for batch in batches:
        assert {row.model_id for row in batch.rows} == {batch.model_id}
        assert {row.kind for row in batch.rows} == {batch.kind}
        assert 1 <= len(batch.rows) <= max_rows
        assert sum(row.size for row in batch.rows) <= max_bytes or len(batch.rows) == 1


@given(st.lists(st.integers(1, 300_000), min_size=1, max_size=12))
@example([CHUNK_BYTES])
@example([CHUNK_BYTES, 1])
def test_a_batch_is_a_json_array_in_parts(sizes: list[int]) -> None:
    texts = ["x" * size for size in sizes]
    batch = Batch("m", tuple(Row("id", "m", orjson.dumps(text)) for text in texts))
    parts = list(batch.chunks())
    assert orjson.loads(b"".join(parts)) == texts
    assert batch.body() == b"".join(parts)
    assert batch.size == len(batch.body())
    assert all(len(part) <= CHUNK_BYTES + max(sizes) + 4 for part in parts)
