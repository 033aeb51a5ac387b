"""What the sink answers: which requests carry records, and what each peer wants to hear."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from arthur_relay.sandbox.models import build_model, demo_attributes
from tests.benchmarks.sink.records import (
    arthur_ids,
    langsmith_json_ids,
    langsmith_multipart_ids,
    otlp_ids,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.benchmarks.sink.wire import Head, Request

_ORGANIZATION: Final = "00000000-0000-4000-8000-000000000000"
_MODEL: Final = re.compile(r"/api/v3/models/([^/]+)")
_TASK: Final = re.compile(r"/api/v2/tasks/([^/]+)")


class Intake(NamedTuple):
    """An address that takes records."""

    find_ids: Callable[[Request], list[bytes]]
    answer: Callable[[int], bytes]
    """The answer of success to a request with so many records."""


def answer(status: int, body: bytes = b"", content_type: str = "application/json") -> bytes:
    """A whole HTTP answer."""
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def answer_json(status: int, content: object) -> bytes:
    """A whole HTTP answer with JSON."""
    return answer(status, json.dumps(content).encode())


@lru_cache
def _stored(rows: int) -> bytes:
    """Arthur's answer to rows that are all stored; clients send few sizes of batches."""
    results = [{"message": "success", "status": 200}] * rows
    counts = {"success": rows, "failure": 0, "total": rows}
    return answer_json(207, {"counts": counts, "results": results})


def _accepted(_: int) -> bytes:
    return answer_json(202, {"message": "Runs batch ingested"})


def _exported(_: int) -> bytes:
    # An ExportTraceServiceResponse without a field says that all is well.
    return answer(200, content_type="application/x-protobuf")


@lru_cache
def _traced(spans: int) -> bytes:
    """Arthur Engine's answer to spans that are all accepted."""
    counts = {"total_spans": spans, "accepted_spans": spans, "rejected_spans": 0}
    return answer_json(200, {**counts, "rejection_reasons": [], "status": "success"})


UNAVAILABLE: Final = answer_json(503, {"error": "the benchmark wants it so"})
THROTTLED: Final = answer_json(429, {"error": "too much at once"})
# As LangSmith's own server: its client compresses with zstd only when it reads so here.
_LANGSMITH_INFO: Final = {
    "version": "0.15.0",
    "instance_flags": {"zstd_compression_enabled": True},
    "batch_ingest_config": {
        "use_multipart_endpoint": True,
        "size_limit": 100,
        "size_limit_bytes": 20_971_520,
        "scale_up_qsize_trigger": 1000,
        "scale_up_nthreads_limit": 16,
        "scale_down_nempty_trigger": 4,
    },
}
_DOCUMENTS: Final[dict[str, Any]] = {
    "/api/v3/users/me": {"id": _ORGANIZATION, "organization_id": _ORGANIZATION},
    "/info": _LANGSMITH_INFO,
    "/api/public/projects": {"data": [{"id": "benchmark", "name": "benchmark", "metadata": {}}]},
}


def find_intake(head: Head) -> Intake | None:
    """What takes the records of a request, or None when it carries none."""
    match head.method, head.path.strip("/").split("/"):
        case "POST", ["api", "v3", "models", _, "inferences"]:
            return Intake(arthur_ids, _stored)
        case "POST", ["runs", "multipart"]:
            return Intake(langsmith_multipart_ids, _accepted)
        case ("POST", ["runs"] | ["runs", "batch"]) | ("PATCH", ["runs", _]):
            return Intake(langsmith_json_ids, _accepted)
        case "POST", ["api", "v1", "traces"]:
            return Intake(otlp_ids, _traced)
        case "POST", [*_, "v1", "traces"]:
            return Intake(otlp_ids, _exported)
        case _:
            return None


def answer_question(head: Head) -> bytes:
    """The answer to a request that carries no records: what a peer asks before it starts."""
    if head.method == "GET":
        if head.path in _DOCUMENTS:
            return answer_json(200, _DOCUMENTS[head.path])
        if (model := _MODEL.fullmatch(head.path)) is not None:
            return answer_json(200, _model(model[1]))
        if (task := _TASK.fullmatch(head.path)) is not None:
            return answer_json(200, {"id": task[1], "name": "benchmark"})
    return answer_json(404, {"error": f"the sink does not know {head.method} {head.path}"})


def _model(model_id: str) -> dict[str, Any]:
    """Any model that is asked for: an LLM with all the attributes that a run can fill."""
    given = {
        "partner_model_id": model_id,
        "input_type": "NLP",
        "output_type": "TOKEN_SEQUENCE",
        "attributes": demo_attributes(),
    }
    return build_model(given, model_id=model_id, created_at="2026-01-01T00:00:00Z")
