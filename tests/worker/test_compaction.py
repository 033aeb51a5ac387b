"""What waits is compressed while the destination is away, and nothing waits for that."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import anyio

from tests.worker.harness import (
    Harness,
    ScriptedDestination,
    delivered,
    harness,
    unavailable,
    virtual,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.row import Attempt, Batch


class Outage:
    """A destination that is away until it is back."""

    def __init__(self) -> None:
        self.is_over = False
        self.destination = ScriptedDestination(self.answer)

    def answer(self, batch: Batch, _number: int) -> Attempt:
        return delivered(batch) if self.is_over else unavailable(batch)

    async def begin(self, h: Harness) -> None:
        """Let the worker find out."""
        h.capture("first")
        await anyio.sleep(60)
        assert h.worker.sender.is_down
        h.check(delivered=0, pending=1)


async def capture_prose(h: Harness, count: int) -> None:
    """Capture 2 KB each, of words that no two of them have in the same order, as they are taken."""
    words = [f"{number:x}" for number in range(0, 70_000, 7)]
    draw = random.Random(1)
    for number in range(count):
        h.capture(f"p{number}", text=" ".join(draw.choices(words, k=400)))
        if number % 100 == 99:
            await anyio.sleep(1.0)
    await anyio.sleep(10)


@virtual
async def test_what_waits_is_compressed_while_the_destination_is_away() -> None:
    outage = Outage()
    h = harness(outage.destination, batch_size=100)
    async with h.running():
        await outage.begin(h)
        await capture_prose(h, 3_000)
        assert h.buffer.rows == 3_001
        assert h.buffer.size < 3_001 * 2_000 / 1.5
        outage.is_over = True
        assert await h.flush()
        h.check(delivered=3_001, pending=0)
        prose = {f"p{number}" for number in range(3_000)}
        assert set(outage.destination.stored) == {"first", *prose}


@virtual
async def test_the_loop_goes_on_while_a_block_is_compressed() -> None:
    outage = Outage()
    begun: list[Callable[[], None]] = []
    let_go = anyio.Event()

    async def held(function: Callable[[], None]) -> None:
        begun.append(function)
        await let_go.wait()
        function()

    h = harness(outage.destination)
    h.run_elsewhere = held
    async with h.running():
        await outage.begin(h)
        await capture_prose(h, 3_000)
        assert len(begun) == 1
        outage.is_over = True
        assert await h.flush()  # what is being compressed is delivered all the same
        h.check(delivered=3_001, pending=0)
        let_go.set()
        await anyio.sleep(10)
        assert h.buffer.size == h.buffer.rows == 0


@virtual
async def test_a_worker_that_starts_again_compresses_what_its_end_cut_off() -> None:
    outage = Outage()
    sizes: list[int] = []

    async def for_ever(_function: Callable[[], None]) -> None:
        await anyio.sleep_forever()

    h = harness(outage.destination)
    h.run_elsewhere = for_ever
    async with h.running():
        await outage.begin(h)
        await capture_prose(h, 3_000)
        sizes.append(h.buffer.size)
    h.run_elsewhere = harness().run_elsewhere
    async with h.running():
        await anyio.sleep(60)
        await capture_prose(h, 1)  # what comes in makes it look
        assert h.buffer.size < 0.8 * sizes[0]
        outage.is_over = True
        assert await h.flush()
        h.check(delivered=3_002, pending=0)
