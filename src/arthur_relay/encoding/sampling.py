"""Which inferences are sent when only a part of them shall be: decided by their ids alone."""

from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from arthur_relay.inference import (
    Capture,
    CapturedGroundTruth,
    CapturedRow,
    Encodable,
    Run,
    inference_id_of,
    run_id_of,
)

_IDS = 1 << 64


def is_sampled(inference_id: str, rate: float) -> bool:
    """Say whether the inference of an id is in the sample. Pure; any service can decide alike.

    The first 8 bytes of the SHA-256 of the id's text in UTF-8, as a big-endian number, divided by
    2**64, are less than the rate. So a higher rate adds to the sample, and takes nothing away.

    Args:
        inference_id: For LangChain the run id, `str(run_id)`, whatever number of rows the run
            makes; else `Inference.inference_id`.
        rate: The part that is sent, 0 to 1.
    """
    digest = sha256(inference_id.encode("utf-8", "replace")).digest()
    # A power of two times the rate is exact, and Python compares it with the number exactly.
    return int.from_bytes(digest[:8], "big") < rate * _IDS


def split_sample(captures: Sequence[Capture], rate: float) -> tuple[list[Capture], int]:
    """Part captures into those in the sample, in order, and the number of rows of the others.

    What is sent again was in the sample before, whatever the rate was then.
    """
    kept = [
        capture
        for capture in captures
        if isinstance(capture, CapturedRow) or is_sampled(_id(capture), rate)
    ]
    rows = sum([capture.rows for capture in captures]) - sum([capture.rows for capture in kept])
    return kept, rows


def _id(capture: Encodable) -> str:
    if isinstance(capture, Run) and capture.trace is not None:
        return str(UUID(bytes=capture.trace.trace_id))  # a trace is sent whole, or not at all
    # An application may give an id that is no text: the encoder will find out, if it comes so far.
    text = inference_id_of(capture)
    if isinstance(capture, CapturedGroundTruth):
        return run_id_of(text) or text  # what is decided for a run holds for all of it
    return text
