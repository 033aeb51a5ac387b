"""The intake of spans and feedback by Arthur Engine's API: answered once they are safe."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson

from arthur_relay.daemon.engine_answers import (
    TASK_NOT_ALLOWED,
    answer_problem,
    answer_spans,
)
from arthur_relay.daemon.known_spans import KnownSpans
from arthur_relay.daemon.otlp_json import Converted, to_protobuf
from arthur_relay.daemon.refusals import PutOffError, RefusedError
from arthur_relay.daemon.responses import answer_json
from arthur_relay.daemon.row_requests import RowRequests
from arthur_relay.daemon.span_splitter import UNMAPPED, split_spans
from arthur_relay.destinations.engine.feedback import feedback_body
from arthur_relay.destinations.engine.row_ids import RowId
from arthur_relay.row import Row, RowKind

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.daemon.auth import Principal
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.measurements import IntakeCounts
    from arthur_relay.daemon.request_bodies import BodyReader
    from arthur_relay.daemon.roles import HandsOver
    from arthur_relay.daemon.span_splitter import SplitSpans
    from arthur_relay.daemon.tasks import Tasks

logger = logging.getLogger("arthur_relay.daemon.intake")

PROTOBUF: Final = ("application/x-protobuf", "application/protobuf")
JSON: Final = "application/json"

JSON_BYTES: Final = 4 * 1024 * 1024
"""The longest body in JSON: to turn one into protobuf takes twenty times its memory."""

MOST_TASKS: Final = 100
"""Tasks that the spans of a request may name: the Engine is asked of each that is new."""

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(slots=True, eq=False)
class TracesIntake:
    """Answers requests with spans or feedback. For the daemon's loop only.

    Attributes:
        requests: Handles them.
        tasks: Knows the tasks.
        known: The spans that came lately.
    """

    requests: RowRequests
    tasks: Tasks
    known: KnownSpans
    _converts: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(
        cls,
        worker: HandsOver,
        current: Current,
        counts: IntakeCounts,
        tasks: Tasks,
        known: KnownSpans,
    ) -> TracesIntake:
        """Return an intake; see `RowRequests` for its parts."""
        requests = RowRequests(worker, current, counts, answer_problem, accepted=(200, 206))
        return cls(requests, tasks, known)

    async def take(self, request: Request, principal: Principal) -> Response:
        """Answer `POST /v1/traces`."""
        return await self.requests.answer(request, partial(self._take, request, principal))

    async def take_feedback(self, request: Request, principal: Principal) -> Response:
        """Answer `POST /api/v1/traces/{trace_id}/annotations`."""
        return await self.requests.answer(request, partial(self._take_feedback, request, principal))

    async def _take(self, request: Request, principal: Principal, reader: BodyReader) -> Response:
        limits = self.requests.current.settings
        body, repaired = await self._protobuf(request, reader)
        found = split_spans(
            body,
            now_ns=time.time_ns(),
            max_rows=limits.max_rows,
            max_row_bytes=self.requests.row_limit,
            max_bytes=limits.max_body_bytes,
            repaired=repaired,
        )
        del body  # the rows have their own bytes
        tasks = dict.fromkeys(row.model_id for row in found.rows)
        if len(tasks) > MOST_TASKS:
            raise RefusedError(413, f"the spans are of more than {MOST_TASKS} tasks")
        forbidden = [task for task in tasks if not self.tasks.allows(principal, task)]
        if forbidden and len(forbidden) == len(tasks):
            raise RefusedError(403, TASK_NOT_ALLOWED)
        for task in tasks:
            refusal = TASK_NOT_ALLOWED if task in forbidden else await self.tasks.refusal(task)
            if refusal:
                _refuse(found, task, refusal)
        await self._store(request, found)
        return answer_spans(found)

    async def _protobuf(self, request: Request, reader: BodyReader) -> Converted:
        """Read spans as protobuf, in whatever form they were sent.

        Raises:
            RefusedError: They can't be read.
        """
        media_type = _media_type(request)
        if media_type not in (*PROTOBUF, JSON):
            raise RefusedError(415, f"the Content-Type must be {PROTOBUF[0]} or {JSON}")
        body = await _decoded(request, reader)
        if media_type != JSON:
            if not body:
                raise RefusedError(400, "the body is empty")
            return Converted(body, frozenset())
        if len(body) > JSON_BYTES:
            raise RefusedError(413, f"a body in JSON may have {JSON_BYTES} bytes")
        # In a thread, because it takes a tenth of a second for a thousand spans; one at a time,
        # because of the memory.
        async with self._converts:
            return await asyncio.to_thread(to_protobuf, body)

    async def _store(self, request: Request, found: SplitSpans) -> None:
        """Make the rows safe that were not taken before.

        Raises:
            ClientDisconnect: The client can't get the answer any more, and will send them again.
            PutOffError: They could not be made safe, or that is not known yet.
        """
        new, counts = self.known.without_known(found.rows), self.requests.counts
        with self.known.on_their_way(new) as are_twice:
            if are_twice:
                counts.rows["deferred"] += len(found.rows)
                raise PutOffError("the same spans are being stored just now", 1)
            await self.requests.make_safe(new, request, deferred=len(found.rows))
        self.known.add(new, found.roots)
        counts.rows["refused"] += len(found.refused)
        counts.repaired += found.repaired
        for reason in set(found.refused):
            logger.warning("spans are refused: %s", reason)

    async def _take_feedback(
        self, request: Request, principal: Principal, reader: BodyReader
    ) -> Response:
        trace_id = request.path_params["trace_id"]
        known = self.known.trace(trace_id)
        # Of a trace that is not known here, only the Engine knows the task.
        is_allowed = not principal.is_restricted or (
            known is not None and self.tasks.allows(principal, known.model_id)
        )
        if not is_allowed or not _TRACE_ID.fullmatch(trace_id):
            raise RefusedError(404, f"Trace {trace_id} not found")
        if _media_type(request) != JSON:
            raise RefusedError(415, "the Content-Type must be application/json")
        given = _read_feedback(await _decoded(request, reader), self.requests.row_limit)
        body = feedback_body(given, time.time())
        model_id = UNMAPPED if known is None else known.model_id
        row_id = str(RowId.of_root(trace_id)) if known is None else known.row_id
        row = Row(row_id, model_id, body, kind=RowKind.GROUND_TRUTH)
        await self.requests.make_safe([row], request, deferred=1)
        return answer_json({"annotation_type": "human", "trace_id": trace_id, **given})


async def _decoded(request: Request, reader: BodyReader) -> bytes:
    """Read a body and undo its compression.

    Raises:
        RefusedError: It can't be read.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise RefusedError(415, "the body may be compressed by gzip, and by nothing else")
    body = await reader.read(request)
    return body if encoding == "identity" else reader.inflate(body)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refuse(found: SplitSpans, task: str, reason: str) -> None:
    """Refuse the rows of one task."""
    rows = [row for row in found.rows if row.model_id != task]
    found.refused += [reason] * (len(found.rows) - len(rows))
    found.rows = rows


def _read_feedback(body: bytes, most: int) -> dict[str, Any]:
    """Return the values of an annotation.

    Raises:
        RefusedError: It is none.
    """
    if len(body) > most:
        raise RefusedError(400, f"the annotation has {len(body)} bytes; {most} are allowed")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise RefusedError(400, "the body is not JSON") from None
    if not isinstance(document, dict):
        raise RefusedError(400, "the body must be a JSON object")
    score, text = document.get("annotation_score"), document.get("annotation_description")
    if isinstance(score, bool) or score not in (0, 1):
        raise RefusedError(400, "annotation_score must be 0 or 1")
    if text is not None and (not isinstance(text, str) or "\0" in text):
        raise RefusedError(400, "annotation_description must be a text without NUL")
    return {"annotation_score": score, "annotation_description": text}
