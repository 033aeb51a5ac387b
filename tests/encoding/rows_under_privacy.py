"""What the rows of a capture tell under the settings of privacy."""

from __future__ import annotations

import json
from typing import Any

from arthur_relay import RelaySettings
from arthur_relay.destinations.scope.encoder import Encoder
from arthur_relay.destinations.scope.schema import Attribute, ModelSchema
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.inference import CapturedInference, Inference, RunOutcome
from arthur_relay.testing import LLM_ATTRIBUTES
from tests.encoding.runs import make_run
from tests.omissions import Omitted

MAIL = "alice@example.com"
CARD = 4111111111111111
MARK = "[redacted: email]"

MODEL = ModelSchema(
    "m",
    [
        *LLM_ATTRIBUTES,
        Attribute("topics", "ARRAY(STRING)", "NON_INPUT_DATA"),
        Attribute("note", "UNSTRUCTURED_TEXT", "NON_INPUT_DATA"),
        Attribute("user", "STRING", "NON_INPUT_DATA"),
        Attribute("account", "INTEGER", "NON_INPUT_DATA"),
        Attribute("since", "TIMESTAMP", "NON_INPUT_DATA"),
        Attribute("input_tokens", "TOKENS", "PIPELINE_INPUT"),
    ],
)


class Told:
    """What the rows of a capture tell under some settings."""

    def __init__(self, capture: Any, **settings: Any) -> None:
        self.omitted = Omitted()
        self.failures = 0
        privacy = Privacy.of(RelaySettings(**settings), self._failed)
        rows = Encoder(MODEL, self.omitted, privacy).encode(capture, 0)
        self.rows = [json.loads(row.body)["inference_data"] for row in rows]
        self.data: dict[str, Any] = self.rows[0]
        self.wire = b"".join(row.body for row in rows).decode()

    def _failed(self) -> None:
        self.failures += 1


def inference(**fields: Any) -> CapturedInference:
    found = Inference(**{"input_text": "in", "output_text": "out", **fields})
    capture = CapturedInference(found, inference_id="id", model_id="m", captured_at=0.0)
    capture.attributes = found.attributes
    return capture


def logprobs(*tokens: str, other: str = "?") -> dict[str, Any]:
    return {
        "tokens": list(tokens),
        "top_logprobs": [{token: -0.1, other: -2.0} for token in tokens],
    }


def calls(**arguments: Any) -> list[Any]:
    return [{"name": "send", "args": arguments, "id": "call_1", "type": "tool_call"}]


def failed_run(error: str, **fields: Any) -> Any:
    return make_run(outcome=RunOutcome.ERROR, error=error, **fields)
