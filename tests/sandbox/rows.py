"""Rows to send in the tests."""

from __future__ import annotations

from typing import Any

INFERENCES = "/api/v3/models/demo/inferences"
NOW = "2026-06-07T12:00:13.656449+00:00"


def row(inference_id: str = "a", **data: Any) -> dict[str, Any]:
    """A good row; `data` adds attributes to it."""
    return {
        "partner_inference_id": inference_id,
        "inference_timestamp": NOW,
        "inference_data": {"input_text": "Hi", "output_text": "Hello", **data},
    }


def truth(inference_id: str = "a", **data: Any) -> dict[str, Any]:
    """Ground truth for a row."""
    return {
        "partner_inference_id": inference_id,
        "ground_truth_timestamp": NOW,
        "ground_truth_data": data or {"thumbs_up": True},
    }
