"""Sampling and redaction in the worker: every inference is accounted for, whatever is not told."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from arthur_relay.encoding.sampling import is_sampled
from arthur_relay.row import Attempt, Batch
from tests.worker.harness import (
    ScriptedDestination,
    delivered,
    harness,
    rows_of,
    run,
    unavailable,
    unreachable,
    virtual,
)

if TYPE_CHECKING:
    import pytest

RATE = 0.3


@virtual
async def test_what_is_not_in_the_sample_is_dropped_and_counted() -> None:
    h = harness(sample_rate=RATE)
    async with h.running():
        ids = h.capture_many(200)
        assert await h.flush()
        sample = [each for each in ids if is_sampled(each, RATE)]
        assert sorted(h.destination.stored) == sorted(sample)
        h.check(
            captured=200,
            delivered=len(sample),
            dropped={"sampled": 200 - len(sample)},
            pending=0,
        )


@virtual
async def test_nothing_at_all_is_sent_of_an_empty_sample() -> None:
    h = harness(sample_rate=0.0)
    async with h.running():
        h.capture_many(50)
        assert await h.flush()
        h.check(delivered=0, dropped={"sampled": 50}, pending=0)
        assert h.destination.schema_requests == []


@virtual
async def test_a_retry_is_not_sampled_again_and_neither_is_what_waits_for_its_model() -> None:
    destination = ScriptedDestination(
        lambda batch, number: unavailable(batch) if number < 3 else delivered(batch),
        schema_errors=list(unreachable(3)),
    )
    h = harness(destination, sample_rate=RATE)
    async with h.running():
        ids = h.capture_many(60)
        assert not await h.flush(0.5)
        sample = [each for each in ids if is_sampled(each, RATE)]
        h.check(dropped={"sampled": 60 - len(sample)}, pending=len(sample), delivered=0)
        assert await h.flush()
        h.check(dropped={"sampled": 60 - len(sample)}, pending=0, delivered=len(sample))


@virtual
async def test_only_the_sample_takes_room() -> None:
    h = harness(
        ScriptedDestination(lambda batch, _number: unavailable(batch)),
        sample_rate=RATE,
        queue_size=150,
    )
    async with h.running():
        ids = []
        for turn in range(3):
            ids += h.capture_many(100, model=f"m{turn}-")
            await h.flush(0.5)
        h.check(dropped={"sampled": sum(not is_sampled(each, RATE) for each in ids)})


def test_a_redactor_that_fails_costs_texts_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows: list[dict[str, Any]] = []

    def keep(batch: Batch, _number: int) -> Attempt:
        rows.extend(rows_of(batch))
        return delivered(batch)

    def fails(text: str) -> str:
        raise ValueError(text)

    async def test() -> None:
        h = harness(ScriptedDestination(keep), redact=fails)
        async with h.running():
            h.capture("a", "b", text="canary")
            h.capture("c", model="another", text="canary")
            assert await h.flush()
            h.check(delivered=3, pending=0)
            assert h.ledger.redaction_failures == 6
            assert "canary" not in str(rows)

    caplog.set_level(logging.DEBUG, logger="arthur_relay")
    run(test)
    assert len([r for r in caplog.records if "redactor" in r.getMessage()]) == 1
    assert "canary" not in caplog.text
