"""The intake: takes rows in by Arthur's API, and answers 207 once they are safe, not before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from arthur_relay.daemon.refusals import RefusedError
from arthur_relay.daemon.responses import answer_error, answer_rows
from arthur_relay.daemon.row_requests import RowRequests
from arthur_relay.daemon.splitter import split
from arthur_relay.row import RowKind

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.measurements import IntakeCounts
    from arthur_relay.daemon.request_bodies import BodyReader
    from arthur_relay.daemon.roles import HandsOver

_KINDS = {"POST": RowKind.INFERENCE, "PATCH": RowKind.GROUND_TRUTH}


class KnowsModels(Protocol):
    """Checks models with Arthur."""

    async def refusal(self, model_id: str) -> str:
        """Return why rows of a model are never accepted, or ""."""
        ...


@dataclass(slots=True, eq=False)
class Intake:
    """Answers requests with rows. For the daemon's loop only.

    Attributes:
        requests: Handles them.
        models: Checks the models.
    """

    requests: RowRequests
    models: KnowsModels

    @classmethod
    def of(
        cls, worker: HandsOver, current: Current, counts: IntakeCounts, models: KnowsModels
    ) -> Intake:
        """Return an intake; see `RowRequests` for its parts."""
        return cls(RowRequests(worker, current, counts, answer_error, accepted=(207,)), models)

    async def take(self, request: Request, model_id: str) -> Response:
        """Answer `POST` or `PATCH /models/{id}/inferences`."""
        return await self.requests.answer(request, partial(self._take, request, model_id))

    async def _take(self, request: Request, model_id: str, reader: BodyReader) -> Response:
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise RefusedError(415, "the body must not be compressed")
        found = split(
            await reader.read(request),  # the rows have their own bytes
            model_id=model_id,
            kind=_KINDS[request.method],
            max_rows=self.requests.current.settings.max_rows,
            max_row_bytes=self.requests.row_limit,
        )
        if refusal := await self.models.refusal(model_id):
            raise RefusedError(404, refusal)
        await self.requests.make_safe(found.rows, request, deferred=found.total)
        self.requests.counts.rows["refused"] += len(found.refused)
        return answer_rows(found)
