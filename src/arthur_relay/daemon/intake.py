"""The intake: takes rows in by Arthur's API, and answers 207 once they are safe, not before."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from starlette.requests import ClientDisconnect

from arthur_relay.daemon.clients import client_of
from arthur_relay.daemon.request_bodies import BodyError, RequestBodies
from arthur_relay.daemon.responses import answer_error, answer_rows
from arthur_relay.daemon.splitter import NotRowsError, TooManyRowsError, split
from arthur_relay.row import RowKind
from arthur_relay.worker.ingest import IngestBatch, IngestRefusal

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.daemon.clients import Client
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.measurements import IntakeCounts
    from arthur_relay.daemon.request_bodies import BodyRoom
    from arthur_relay.daemon.roles import HandsOver
    from arthur_relay.daemon.settings import DaemonSettings
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
    IngestRefusal.BROKER_FULL: 5,
    IngestRefusal.BROKER_AWAY: 1,
    IngestRefusal.OVER_SHARE: 5,
    IngestRefusal.TOO_LARGE: 1,
    IngestRefusal.CLIENT_GONE: 1,
}
"""The seconds after which a client should retry, by the reason of the refusal."""

_KINDS = {"POST": RowKind.INFERENCE, "PATCH": RowKind.GROUND_TRUTH}


class PutOffError(Exception):
    """Rows are not held now; the text says why.

    Attributes:
        retry_after_seconds: When their client should send them again.
    """

    def __init__(self, sentence: str, retry_after_seconds: int) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


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


async def store(
    rows: Sequence[Row], worker: HandsOver, counts: Counter[str], *, is_gone: Callable[[], bool]
) -> None:
    """Have rows made safe, and count them.

    Args:
        rows: The rows; may be none.
        worker: Hands them over.
        counts: Counts rows by what became of them.
        is_gone: Says whether the client can't get the answer any more.

    Raises:
        PutOffError: They could not be made safe.
    """
    if not rows:
        return
    try:
        refusal = await worker.hand_over(rows, timeout_seconds=COMMIT_SECONDS, is_gone=is_gone)
    except TimeoutError:
        raise PutOffError("it takes too long to make the rows safe", 5) from None
    if refusal is not None:
        logger.warning("rows are put off: %s", refusal.value)
        raise PutOffError(refusal.value, RETRY_SECONDS[refusal])
    counts["accepted"] += len(rows)


def row_limit(settings: DaemonSettings, worker: HandsOver) -> int:
    """Return how many bytes a row may have: what is set, or less where rows go."""
    most = worker.most_row_bytes
    return settings.max_row_bytes if most is None else min(settings.max_row_bytes, most)


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

    worker: HandsOver
    current: Current
    counts: IntakeCounts
    models: KnowsModels

    async def take(self, request: Request, model_id: str) -> Response:
        """Answer `POST` or `PATCH /models/{id}/inferences`."""
        began_at = time.perf_counter()
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            response = answer_error(415, "the body must not be compressed")
        else:
            with RequestBodies(self.current, self.counts).room() as room:
                response = await self._take(request, model_id, room)
        status = response.status_code
        self.counts.answered(request.method, status, began_at, is_accepted=status == 207)
        return response

    async def _take(self, request: Request, model_id: str, room: BodyRoom) -> Response:
        limits = self.current.settings
        try:
            body = await room.read(request)
            found = split(
                body,
                model_id=model_id,
                kind=_KINDS[request.method],
                max_rows=limits.max_rows,
                max_row_bytes=row_limit(limits, self.worker),
            )
        except BodyError as error:
            return answer_error(
                error.status, str(error), retry_after_seconds=error.retry_after_seconds
            )
        except TooManyRowsError as error:
            return answer_error(413, str(error))
        except NotRowsError as error:
            return answer_error(400, str(error))
        del body  # the rows have their own bytes
        if refusal := await self.models.refusal(model_id):
            return answer_error(404, refusal)
        # If the client can't get the answer any more, it will send the rows again.
        client = client_of(request.scope)
        if client.is_gone:
            raise ClientDisconnect
        return await self._store(found, client)

    async def _store(self, found: Split, client: Client) -> Response:
        rows = self.counts.rows
        try:
            await store(found.rows, self.worker, rows, is_gone=lambda: client.is_gone)
        except PutOffError as error:
            rows["deferred"] += found.total
            return answer_error(503, str(error), retry_after_seconds=error.retry_after_seconds)
        rows["refused"] += len(found.refused)
        return answer_rows(found)
