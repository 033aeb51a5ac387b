"""What both products' intakes do alike: answer a request, have its rows made safe, count them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect

from arthur_relay.daemon.clients import client_of
from arthur_relay.daemon.refusals import PutOffError, RefusedError
from arthur_relay.daemon.request_bodies import RequestBodies
from arthur_relay.settings.variables import BROKER_PREFIX, DAEMON_PREFIX
from arthur_relay.worker.ingest import IngestRefusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.daemon.admitted import AnswersErrors
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.measurements import IntakeCounts
    from arthur_relay.daemon.request_bodies import BodyReader
    from arthur_relay.daemon.roles import HandsOver
    from arthur_relay.row import Row

logger = logging.getLogger("arthur_relay.daemon.intake")

COMMIT_SECONDS: Final = 30.0
"""How long rows may take to become safe before the client is asked to retry."""

RETRY_SECONDS: Final = {
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

REMEDIES: Final = {
    IngestRefusal.FULL: "ARTHUR_RELAY_SPOOL_BYTES says how much it may hold",
    IngestRefusal.HELD: "ARTHUR_RELAY_SPOOL_BYTES says how much it may hold",
    IngestRefusal.UNWRITABLE: "make room on the disk of ARTHUR_RELAY_SPOOL_DIR, or mend it",
    IngestRefusal.BROKER_FULL: f"{BROKER_PREFIX}BYTES says how much it may hold",
    IngestRefusal.BROKER_AWAY: f"{BROKER_PREFIX}URL says where it is",
    IngestRefusal.OVER_SHARE: f"{BROKER_PREFIX}MODEL_SHARE says how much that may be",
    IngestRefusal.TOO_LARGE: f"{DAEMON_PREFIX}MAX_ROW_BYTES should not be more than it takes",
}
"""What a person can do about a refusal, by its reason."""


@dataclass(frozen=True, slots=True, eq=False)
class RowRequests:
    """Handles requests with rows. For the daemon's loop only.

    Attributes:
        worker: Hands the rows over.
        current: The current limits.
        counts: Counts requests and rows.
        answer_refusal: Makes the answer to a request that is refused as a whole.
        accepted: The statuses of answers to requests of which rows were taken.
    """

    worker: HandsOver
    current: Current
    counts: IntakeCounts
    answer_refusal: AnswersErrors
    accepted: Collection[int]

    async def answer(
        self, request: Request, take: Callable[[BodyReader], Awaitable[Response]]
    ) -> Response:
        """Answer a request by a function that is given the reader of its body, and count it.

        The function may raise `RefusedError`.
        """
        began_at = time.perf_counter()
        with RequestBodies(self.current, self.counts).reader() as reader:
            try:
                response = await take(reader)
            except RefusedError as error:
                response = self.answer_refusal(
                    error.status, str(error), retry_after_seconds=error.retry_after_seconds
                )
        status = response.status_code
        self.counts.answered(request.method, status, began_at, is_accepted=status in self.accepted)
        return response

    @property
    def row_limit(self) -> int:
        """How many bytes a row may have: what is set, or less where rows go."""
        most, here = self.worker.most_row_bytes, self.current.settings.max_row_bytes
        return here if most is None else min(here, most)

    async def make_safe(self, rows: Sequence[Row], request: Request, *, deferred: int) -> None:
        """Have rows made safe, and count them.

        Args:
            rows: The rows; may be none.
            request: The request that they came with.
            deferred: How many rows are deferred if they can't be made safe.

        Raises:
            ClientDisconnect: The client can't get the answer any more, and will send them again.
            PutOffError: They could not be made safe.
        """
        client = client_of(request.scope)
        if client.is_gone:
            raise ClientDisconnect
        if not rows:
            return
        try:
            refusal = await self.worker.hand_over(
                rows, timeout_seconds=COMMIT_SECONDS, is_gone=lambda: client.is_gone
            )
        except TimeoutError:
            self.counts.rows["deferred"] += deferred
            raise PutOffError("it takes too long to make the rows safe", 5) from None
        if refusal is not None:
            self.counts.rows["deferred"] += deferred
            remedy = REMEDIES.get(refusal)
            logger.warning("rows are put off: %s%s", refusal.value, f"; {remedy}" if remedy else "")
            raise PutOffError(refusal.value, RETRY_SECONDS[refusal])
        self.counts.rows["accepted"] += len(rows)
