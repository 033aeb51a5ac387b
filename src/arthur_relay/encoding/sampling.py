"""Decides by their ids which inferences are sent when only a sample is wanted."""

from collections.abc import Sequence
from hashlib import sha256

from arthur_relay.inference import (
    Capture,
    CapturedGroundTruth,
    CapturedRow,
    Encodable,
    inference_id_of,
    run_id_of,
)

_IDS = 1 << 64


def is_sampled(inference_id: str, rate: float) -> bool:
    """Return whether the inference with an id is in the sample. Pure; any service can do the same.

    It is, if the first 8 bytes of the SHA-256 of the id's UTF-8, as a big-endian number divided by
    2**64, are less than the rate. So a higher rate adds to the sample and removes nothing from it.

    Args:
        inference_id: For LangChain the run id, `str(run_id)`, for all rows of the run; else
            `Inference.inference_id`.
        rate: The part that is sent, 0 to 1.
    """
    digest = sha256(inference_id.encode("utf-8", "replace")).digest()
    # The product with a power of two is exact, and so is Python's comparison with an integer.
    return int.from_bytes(digest[:8], "big") < rate * _IDS


def split_sample(captures: Sequence[Capture], rate: float) -> tuple[list[Capture], int]:
    """Return the captures in the sample, in order, and the number of rows of the others.

    Rows that are sent again were in the sample before, whatever the rate was then.
    """
    kept = [
        capture
        for capture in captures
        if isinstance(capture, CapturedRow) or is_sampled(_id(capture), rate)
    ]
    rows = sum([capture.rows for capture in captures]) - sum([capture.rows for capture in kept])
    return kept, rows


def _id(capture: Encodable) -> str:
    # An application may give an id that is not a text; then the encoder rejects it.
    text = inference_id_of(capture)
    if isinstance(capture, CapturedGroundTruth):
        return run_id_of(text) or text  # one decision for all of a run
    return text
