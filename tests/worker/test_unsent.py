"""What was leased and waits to be sent is bounded, however many models there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from arthur_relay.delivery.ground_truth import MAX_KEPT_BYTES
from arthur_relay.row import Attempt, Batch, Row, RowKind
from tests.buffers.spools import MIB, new_spool
from tests.worker.harness import Harness, ScriptedDestination, delivered, run
from tests.worker.test_lives import START, on_disk

SIZES = {"batch_bytes": 128 * 1024, "queue_bytes": MIB, "batch_size": 500}
UNSENT_BYTES = 256 * 1024
"""A quarter of the queue, or two batches: here the same."""

IN_FLIGHT_BYTES = 20 * 128 * 1024
"""Four requests, three that back off for each, and the next ones."""


def leave(path: Path, rows: list[Row]) -> int:
    """Leave rows behind as a process that ended; returns their bytes."""
    spool = new_spool(path)
    spool.open()
    for at in range(0, len(rows), 1000):
        spool.put(rows[at : at + 1000])
        spool.commit()
    assert spool.close() == len(rows)
    return sum(len(row.body) for row in rows)


def leased_bytes(h: Harness) -> int:
    assert h.spool is not None
    return sum(len(row.body) for row in h.spool._memory.leased)


def watched(h: Harness, answer: Any = delivered) -> list[int]:
    """Have it noted with each request how many bytes are leased."""
    peaks = [0]

    async def script(batch: Batch, _number: int) -> Attempt:
        peaks[0] = max(peaks[0], leased_bytes(h))
        await anyio.sleep(0.01)
        found = answer(batch)
        return found if isinstance(found, Attempt) else await found

    h.destination.script = script
    return peaks


def with_spool(path: Path, **settings: Any) -> Harness:
    return on_disk(path, ScriptedDestination(), START, **{**SIZES, **settings})


def test_rows_of_thousands_of_models_are_not_all_in_memory(tmp_path: Path) -> None:
    rows = [
        Row(f"r{number}", f"m{number % 3000}", b"[%d]" % number + b" " * 1000)
        for number in range(6000)
    ]
    total = leave(tmp_path, rows)
    assert total > 20 * UNSENT_BYTES

    async def test() -> None:
        h = with_spool(tmp_path)
        peaks = watched(h)
        async with h.running():
            with anyio.fail_after(1000):
                while h.worker.buffer.intake.rows:
                    await anyio.sleep(0.5)
        assert peaks[0] <= UNSENT_BYTES + IN_FLIGHT_BYTES
        h.worker.buffer.durable.close()
        h.check(delivered=6000, pending=0)
        assert len(set(h.destination.stored)) == 6000

    run(test)


def test_rows_are_leased_by_their_bytes_too(tmp_path: Path) -> None:
    rows = [Row(f"r{number}", f"m{number % 7}", b"x" * 100_000) for number in range(300)]
    total = leave(tmp_path, rows)
    assert total > 50 * UNSENT_BYTES

    async def test() -> None:
        h = with_spool(tmp_path)
        peaks = watched(h)
        async with h.running():
            await anyio.sleep(100)
        assert peaks[0] <= UNSENT_BYTES + IN_FLIGHT_BYTES
        h.worker.buffer.durable.close()
        h.check(delivered=300, pending=0)

    run(test)


def test_ground_truth_behind_an_inference_that_takes_long_is_not_all_in_memory(
    tmp_path: Path,
) -> None:
    truth = RowKind.GROUND_TRUTH
    rows = [
        Row("slow", "m", b"{}"),
        *[Row("slow", "m", b"[%d]" % n + b" " * 8000, kind=truth) for n in range(3000)],
        *[Row(f"o{number}", "others", b"x" * 1000) for number in range(500)],
    ]
    total = leave(tmp_path, rows)
    assert total > 5 * MAX_KEPT_BYTES
    may_answer = anyio.Event()

    async def answer(batch: Batch) -> Attempt:
        if batch.rows[0].id == "slow" and batch.kind is RowKind.INFERENCE:
            await may_answer.wait()
        return delivered(batch)

    async def test() -> None:
        h = with_spool(tmp_path, request_timeout_seconds=3600)
        peaks = watched(h, answer)
        async with h.running():
            await anyio.sleep(100)
            assert sorted(h.destination.stored) == sorted(f"o{number}" for number in range(500))
            assert leased_bytes(h) <= MAX_KEPT_BYTES + UNSENT_BYTES + IN_FLIGHT_BYTES
            may_answer.set()
            await anyio.sleep(300)
        assert peaks[0] <= MAX_KEPT_BYTES + UNSENT_BYTES + IN_FLIGHT_BYTES
        h.worker.buffer.durable.close()
        h.check(delivered=3501, pending=0)
        stored = h.destination.stored
        assert stored.index("slow") == 500, "the inference itself comes before its ground truth"

    run(test)
