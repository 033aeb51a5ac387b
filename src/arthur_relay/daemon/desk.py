"""The desk between the intake's loop and the worker's thread: rows go over, answers come back."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from arthur_relay.worker.ingest import IngestBatch, IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.row import Row
    from arthur_relay.worker.ingest import IngestAnswer, IngestQueue


class Desk:
    """Hands rows to the worker, and waits until they are safe.

    Made and used on the intake's loop; `answered` is called by the worker's thread.

    Args:
        acceptance: The worker's side.
    """

    def __init__(self, ingest: IngestQueue) -> None:
        self._acceptance = ingest
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[IngestBatch, asyncio.Future[IngestRefusal | None]] = {}

    async def hand_over(
        self, rows: Sequence[Row], *, timeout_seconds: float
    ) -> IngestRefusal | None:
        """Return None when the rows are safe, else why they are not held.

        When it is cancelled, or the time is over, they may be held all the same.

        Raises:
            TimeoutError: The worker has not answered in time.
        """
        offer = IngestBatch.of(rows, self)
        answer: asyncio.Future[IngestRefusal | None] = self._loop.create_future()
        self._waiting[offer] = answer
        try:
            self._acceptance.offer(offer)
            async with asyncio.timeout(timeout_seconds):
                return await answer
        finally:
            del self._waiting[offer]

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Wake those who wait for these answers: one system call, however many they are."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, answers)

    def _settle(self, answers: Sequence[IngestAnswer]) -> None:
        for offer, refusal in answers:
            answer = self._waiting.get(offer)
            if answer is not None and not answer.done():
                answer.set_result(refusal)
