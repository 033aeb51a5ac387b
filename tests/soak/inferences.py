"""What is captured, by number: an inference, and the bytes that Arthur must get of it; pure.

The bytes are put together here with the standard library, from what the relay promises of a row,
and not with the relay's own encoder.
"""

from __future__ import annotations

import hashlib
import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

from arthur_relay import Inference

_BEGUN = datetime(2026, 6, 1, tzinfo=UTC)
_PIECES = (
    *("What does the relay do when Arthur is away? ", "It waits, and asks again. ", "naïve café "),
    *(
        '"quoted" ',
        "back\\slash ",
        "new\nline ",
        "tab\t",
        "\x1f\x7f",
        "\\u0000 spelled out ",
        "</a>",
    ),
    *("日本語のテキスト ", "🙂🏳️‍🌈 ", "\u2028", "e\u0301 ", '{"partner_inference_id": "no"} '),
)
_LONG_ONE_IN = 200
"""So often a text is long: it does not share its pages in the spool with others."""


def id_of(number: int) -> str:
    """The inference's id."""
    return f"soak-{number:08d}"


def number_of(row_id: str) -> int:
    """The number of the inference with an id."""
    return int(row_id.rpartition("-")[2])


def inference(number: int, seed: int) -> Inference:
    """The inference of a number; the same in every process."""
    draw = random.Random(f"{seed} {number}")
    pieces = 4000 if draw.randrange(_LONG_ONE_IN) == 0 else draw.randrange(20, 120)
    return Inference(
        inference_id=id_of(number),
        input_text="".join(draw.choices(_PIECES, k=pieces)),
        output_text="".join(draw.choices(_PIECES, k=draw.randrange(60))),
        # Not a whole number of seconds: those are written without their fraction.
        timestamp=_BEGUN + timedelta(milliseconds=5 * number, microseconds=1),
        duration=draw.randrange(1, 100_000) / 1000 + 0.0001,
        attributes={
            "prompt_tokens": draw.randrange(10_000),
            "finish_reason": draw.choice(["stop", "length"]),
            "user_id": f"user-{draw.randrange(1000)}",
            "tags": draw.sample(["soak", "ä", '"', "\\"], k=draw.randrange(1, 4)),
            "unregistered": "is not sent",
        },
    )


def body_of(captured: Inference) -> bytes:
    """The row that Arthur must get."""
    assert captured.timestamp is not None
    told = {name: value for name, value in captured.attributes.items() if name != "unregistered"}
    data: dict[str, Any] = {
        "input_text": captured.input_text,
        "output_text": captured.output_text,
        "outcome": "ok",
        **told,
        "duration": captured.duration,
    }
    row = {
        "inference_timestamp": captured.timestamp.isoformat(),
        "partner_inference_id": captured.inference_id,
        "inference_data": data,
    }
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode()


def digest(body: bytes) -> str:
    """What is kept of a row to compare it by."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()
