"""The answers of Arthur Engine's API, as the daemon gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from arthur_relay.daemon.responses import answer_json
from arthur_relay.destinations.engine.row_ids import RowId

if TYPE_CHECKING:
    from starlette.responses import Response

    from arthur_relay.daemon.span_splitter import SplitSpans

TASK_NOT_ALLOWED: Final = "the token may not be used for this task, or there is none"
"""A restricted token gets the same answer for all other tasks, whether they exist or not."""


def answer_problem(
    status: int, sentence: str, *, retry_after_seconds: int | None = None
) -> Response:
    """Return the answer to a request that failed."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return answer_json({"detail": sentence}, status, headers)


def answer_spans(split: SplitSpans) -> Response:
    """Return the answer to a request with spans: the accepted ones are safe."""
    refused = len(split.refused)
    if not refused:
        status, word = 200, "success"
    elif refused < split.total:
        status, word = 206, "partial_success"
    else:
        status, word = 422, "failure"
    return answer_json(
        {
            "total_spans": split.total,
            "accepted_spans": split.total - refused,
            "rejected_spans": refused,
            "rejection_reasons": split.refused,
            "status": word,
        },
        status,
    )


def span_list(row_ids: list[str]) -> dict[str, Any]:
    """Return the document of some spans, which has their ids only, by the ids of their rows."""
    return {
        "count": len(row_ids),
        "spans": [RowId.parse(row_id)._asdict() for row_id in row_ids],
    }
