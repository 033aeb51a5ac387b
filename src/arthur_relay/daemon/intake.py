"""The intake: takes rows in by Arthur's API, and answers 207 once they are safe, not before."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.requests import ClientDisconnect

from arthur_relay.daemon.clients import client_of
from arthur_relay.daemon.responses import answer_error, answer_rows
from arthur_relay.daemon.splitter import NotRowsError, TooManyRowsError, split
from arthur_relay.row import RowKind
from arthur_relay.worker.ingest import IngestBatch, IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.measurements import IntakeCounts
    from arthur_relay.daemon.splitter import Split
    from arthur_relay.row import Row
    from arthur_relay.worker.ingest import IngestAnswer, IngestQueue

logger = logging.getLogger("arthur_relay.daemon.intake")

COMMIT_SECONDS = 30.0
"""How long rows may take to become safe before the client is asked to retry."""

RETRY_SECONDS = {
    IngestRefusal.FULL: 5,
    IngestRefusal.HELD: 5,
    IngestRefusal.UNWRITABLE: 1,
    IngestRefusal.CLOSED: 1,
}
"""The seconds after which a client should retry, by the reason of the refusal."""

_MAX_DIGITS = 18

_KINDS = {"POST": RowKind.INFERENCE, "PATCH": RowKind.GROUND_TRUTH}


class _NoRoomError(Exception):
    """All bodies in memory would take too many bytes."""


class _TooLargeError(Exception):
    """The body is larger than allowed."""


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

    async def hand_over(
        self, rows: Sequence[Row], *, timeout_seconds: float
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


class KnowsModels(Protocol):
    """Checks models with Arthur."""

    async def refusal(self, model_id: str) -> str:
        """Return why rows of a model are never accepted, or ""."""
        ...


@dataclass(slots=True, eq=False)
class Intake:
    """Answers requests with rows. For the daemon's loop only.

    Attributes:
        worker: Hands the rows over.
        current: The current limits.
        counts: Counts requests and rows.
        models: Checks the models.
    """

    worker: Handover
    current: Current
    counts: IntakeCounts
    models: KnowsModels

    async def take(self, request: Request, model_id: str) -> Response:
        """Answer `POST` or `PATCH /models/{id}/inferences`."""
        began_at = time.perf_counter()
        method = request.method
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            response = answer_error(415, "the body must not be compressed")
        else:
            with self._room() as held:
                response = await self._take(request, model_id, held)
        self.counts.requests[method, response.status_code] += 1
        if response.status_code == 207:
            seconds = time.perf_counter() - began_at
            for observe in self.counts.observe:
                observe(seconds)
        return response

    async def _take(self, request: Request, model_id: str, held: _Held) -> Response:
        limits = self.current.settings
        try:
            body = await self._read(request, held)
            found = split(
                body,
                model_id=model_id,
                kind=_KINDS[request.method],
                max_rows=limits.max_rows,
                max_row_bytes=limits.max_row_bytes,
            )
        except _TooLargeError:
            return answer_error(
                413, f"the body is too large: {limits.max_body_bytes} bytes are allowed"
            )
        except TooManyRowsError as error:
            return answer_error(413, str(error))
        except NotRowsError as error:
            return answer_error(400, str(error))
        except _NoRoomError:
            return answer_error(503, "too much is coming in at once", retry_after_seconds=1)
        del body  # the rows have their own bytes
        if refusal := await self.models.refusal(model_id):
            return answer_error(404, refusal)
        # If the client can't get the answer any more, it will send the rows again.
        if client_of(request.scope).is_gone:
            raise ClientDisconnect
        return await self._store(found)

    async def _store(self, found: Split) -> Response:
        rows = self.counts.rows
        if found.rows:
            try:
                refusal = await self.worker.hand_over(found.rows, timeout_seconds=COMMIT_SECONDS)
            except TimeoutError:
                rows["deferred"] += found.total
                return answer_error(503, "the spool takes too long", retry_after_seconds=5)
            if refusal is not None:
                rows["deferred"] += found.total
                logger.warning("rows are put off: %s", refusal.value)
                return answer_error(503, refusal.value, retry_after_seconds=RETRY_SECONDS[refusal])
            rows["accepted"] += len(found.rows)
        rows["refused"] += len(found.refused)
        return answer_rows(found)

    async def _read(self, request: Request, held: _Held) -> bytes:
        """Read the body.

        Raises:
            ClientDisconnect: The client has disconnected.
            _TooLargeError: It is too large.
            _NoRoomError: The other bodies take too many bytes.
        """
        # The parser accepts any number of zeros, but Python's int() does not.
        declared = request.headers.get("content-length", "").lstrip("0")
        if len(declared) > _MAX_DIGITS:
            raise _TooLargeError
        if declared.isascii() and declared.isdigit():
            held.expect(int(declared))
        parts = []
        size = 0
        async for part in request.stream():
            size += len(part)
            held.reserve(size)
            parts.append(part)
        return b"".join(parts)

    @contextmanager
    def _room(self) -> Iterator[_Held]:
        held = _Held(self)
        try:
            yield held
        finally:
            self.counts.body_bytes -= held.size


@dataclass(slots=True)
class _Held:
    """The memory that one request's body takes."""

    intake: Intake
    size: int = 0

    def expect(self, size: int) -> None:
        """Check that so many bytes could be held now, but reserve nothing for an announcement.

        Else a client that announces much and sends nothing would block others.
        """
        intake, limits = self.intake, self.intake.current.settings
        if size > limits.max_body_bytes:
            raise _TooLargeError
        if intake.counts.body_bytes + size - self.size > limits.max_intake_bytes:
            raise _NoRoomError

    def reserve(self, size: int) -> None:
        """Reserve so many bytes in all, no fewer than before."""
        self.expect(size)
        self.intake.counts.body_bytes += size - self.size
        self.size = size
