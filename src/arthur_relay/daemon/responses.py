"""The answers of Arthur's API: JSON, errors, and a result for each row of a request."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.daemon.splitter import Split

NOT_ALLOWED = "the token may not be used for this model, or there is none"
"""A restricted token gets the same answer for all other models, whether they exist or not."""

_STORED = b'{"message":"success","status":200}'


def answer_json(
    content: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a JSON answer."""
    return Response(json.dumps(content), status, headers, "application/json")


def answer_error(status: int, sentence: str, *, retry_after_seconds: int | None = None) -> Response:
    """Return the answer to a request that failed."""
    headers = {} if retry_after_seconds is None else {"Retry-After": str(retry_after_seconds)}
    return answer_json({"error": sentence}, status, headers)


def answer_rows(split: Split) -> Response:
    """Return Arthur's answer to a request with rows, 207: the accepted ones are safe."""
    refused = split.refused
    counts = {"success": len(split.rows), "failure": len(refused), "total": split.total}
    results = [_STORED] * split.total
    for index, (status, message) in refused.items():
        results[index] = json.dumps({"message": message, "status": status}).encode()
    body = b'{"counts":%b,"results":[%b]}' % (json.dumps(counts).encode(), b",".join(results))
    return Response(body, 207, media_type="application/json")
