"""Captured runs for the tests of encoding, and what becomes of them, judged by the sandbox."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from arthur_relay.destinations.scope.encoder import Encoder
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.inference import GenerationSnapshot, Run
from arthur_relay.sandbox import demo_attributes
from arthur_relay.sandbox.validation import Schema, check_inference
from tests.omissions import Omitted

RUN_ID = UUID("01a2045c-a970-7254-95c8-6185761cc1f4")
MODEL = {"id": "m", "attributes": demo_attributes()}
SCHEMA = ModelSchema.from_json(MODEL)
JUDGE = Schema.of(MODEL)

COMPLETION = {
    "tokens": ["a", "b"],
    "token_logprobs": [-0.1, -0.2],
    "top_logprobs": [{"a": 0.0, "x": -1.0}, {"b": -0.2}],
}
CHAT = {
    "content": [
        {
            "token": "a",
            "logprob": 0.0,
            "top_logprobs": [{"token": chr(97 + n), "logprob": -float(n)} for n in range(8)],
        },
        {"token": "b", "logprob": -9999.0, "top_logprobs": []},
    ]
}


def generation(**fields: Any) -> GenerationSnapshot:
    """A snapshot; `finish_reason` and `model_name` are facts that a provider tells."""
    facts = {name: fields.pop(name) for name in ("finish_reason", "model_name") if name in fields}
    made = GenerationSnapshot(fields.pop("text", "answer"))
    for name, value in {"facts": (facts,), **fields}.items():
        setattr(made, name, value)
    return made


def make_run(**fields: Any) -> Run:
    run = Run(key=1, run_id=RUN_ID, model_id="m", prompt="prompt", size=0, started_at=10.0)
    run.duration = 1.5
    run.ended_at = 1_800_000_000.0
    for name, value in fields.items():
        setattr(run, name, value)
    run.rows = len(run.generations) or 1
    return run


def encode(capture: Any, schema: ModelSchema = SCHEMA) -> list[dict[str, Any]]:
    """Encode, have each row judged by the sandbox's validation, and return the rows."""
    rows = Encoder(schema, Omitted()).encode(capture, 0)
    documents = [json.loads(row.body) for row in rows]
    for row, document in zip(rows, documents, strict=True):
        assert row.id == document["partner_inference_id"]
        if schema is SCHEMA:
            check_inference(JUDGE, document)
    return documents


def data(capture: Any) -> dict[str, Any]:
    (row,) = encode(capture)
    found: dict[str, Any] = row["inference_data"]
    return found
