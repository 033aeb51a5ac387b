"""Records of 2 KB as code makes them that does not use LangChain, and the same in Arthur's form."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from tests.benchmarks import texts
from tests.benchmarks.peers import MODEL_ID

if TYPE_CHECKING:
    from arthur_relay import Inference

TEXT_CHARACTERS = 1024
"""Of the prompt and of the answer each."""

_DISTINCT_TEXTS = 2_000
_DURATION_SECONDS = 0.75
_TIMESTAMP = "2026-11-23T12:00:00.000000+00:00"


@cache
def pairs() -> list[tuple[str, str]]:
    """Prompts and answers."""
    return [pair(seed) for seed in range(_DISTINCT_TEXTS)]


def pair(seed: int) -> tuple[str, str]:
    """A prompt and an answer; the same seed gives the same ones."""
    both = texts.text(seed, 2 * TEXT_CHARACTERS)
    return both[:TEXT_CHARACTERS], both[TEXT_CHARACTERS:]


def inferences(count: int, *, prefix: str = "record") -> list[Inference]:
    """Records to hand to `Relay.capture`; their texts come again, their ids do not."""
    from arthur_relay import Inference  # this module is for who measures the limit as well

    known = pairs()
    return [
        Inference(
            input_text=known[number % len(known)][0],
            output_text=known[number % len(known)][1],
            model_id=MODEL_ID,
            inference_id=f"{prefix}-{number}",
            duration=_DURATION_SECONDS,
        )
        for number in range(count)
    ]


def documents(count: int) -> list[dict[str, Any]]:
    """The same records as what JSON knows."""
    known = pairs()
    return [
        {
            "inference_timestamp": _TIMESTAMP,
            "partner_inference_id": f"record-{number}",
            "inference_data": {
                "input_text": known[number % len(known)][0],
                "output_text": known[number % len(known)][1],
                "duration": _DURATION_SECONDS,
            },
        }
        for number in range(count)
    ]
