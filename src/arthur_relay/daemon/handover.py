"""Hands rows from the daemon's loop over to the worker's thread, and waits until they are safe."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from arthur_relay.worker.ingest import IngestBatch, IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from arthur_relay.row import Row
    from arthur_relay.worker.ingest import IngestAnswer, IngestQueue


class Handover:
    """Hands rows to the worker, and waits until they are safe.

    Created and used on the intake's loop; the worker's thread calls `answered`.

    Args:
        ingest: The worker's queue.
    """

    def __init__(self, ingest: IngestQueue) -> None:
        self._ingest = ingest
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[IngestBatch, asyncio.Future[IngestRefusal | None]] = {}

    most_row_bytes = None

    async def hand_over(
        self,
        rows: Sequence[Row],
        *,
        timeout_seconds: float,
        is_gone: Callable[[], bool] = bool,  # noqa: ARG002 - the protocol's
    ) -> IngestRefusal | None:
        """Return None when the rows are safe, else why they are not held.

        After a cancellation or a time-out, they may be held nevertheless.

        Raises:
            TimeoutError: The worker has not answered in time.
        """
        batch = IngestBatch.of(rows, self)
        answer: asyncio.Future[IngestRefusal | None] = self._loop.create_future()
        self._waiting[batch] = answer
        try:
            self._ingest.offer(batch)
            async with asyncio.timeout(timeout_seconds):
                return await answer
        finally:
            del self._waiting[batch]

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Wake the requests that wait for these answers, all with one system call."""
        with suppress(RuntimeError):  # the loop is closed, so nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, answers)

    def _settle(self, answers: Sequence[IngestAnswer]) -> None:
        for batch, refusal in answers:
            answer = self._waiting.get(batch)
            if answer is not None and not answer.done():
                answer.set_result(refusal)
