"""What Arthur's answer to a batch means for each of its rows."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from arthur_relay.row import ABOUT_US, DELIVERED, Attempt, Batch, Failure, Outcome, RowKind, Verdict

RETRY = Outcome(Verdict.RETRY)


def may_pass(status: int) -> bool:
    """Say whether a status that is no success may pass by itself; which do is undocumented.

    A redirect is unexpected: following one could show prompts to a stranger.
    """
    return status in (408, 425, 429) or status >= 500 or status < 400


def whole(
    batch: Batch,
    outcome: Outcome,
    failure: Failure | None = None,
    reason: str = "",
    retry_after: float | None = None,
    *,
    is_unheard: bool = False,
) -> Attempt:
    """Return an attempt that did the same to each row of a batch."""
    outcomes = (outcome,) * len(batch.rows)
    return Attempt(outcomes, failure, reason, retry_after, is_unheard)


def malformed(batch: Batch, reason: str) -> Attempt:
    """Return an attempt whose answer does not say what became of the rows."""
    return whole(batch, RETRY, Failure.MALFORMED, reason, is_unheard=True)


def interpret_results(batch: Batch, body: bytes) -> Attempt:
    """Map the results of a 207 to the batch's rows, by index: they carry no id.

    An answer of another length can't be mapped, unless its counts say that all went well; nor can
    one with a status that HTTP has not.
    """
    try:
        document = orjson.loads(body)
        results = document["results"]
        statuses = [int(result["status"]) for result in results]
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, OverflowError):
        return malformed(batch, "malformed answer")
    if not all(100 <= status <= 599 for status in set(statuses)):
        return malformed(batch, "malformed answer")
    if len(statuses) != len(batch.rows):
        if _all_stored(document.get("counts"), len(batch.rows)):
            return whole(batch, DELIVERED)
        return malformed(batch, "answer of another length")
    of_status = {status: _row_outcome(status, batch.kind) for status in set(statuses)}
    outcomes = tuple(map(of_status.__getitem__, statuses))
    return Attempt(outcomes, reason=next((o.reason for o in outcomes if o.reason), ""))


def _row_outcome(status: int, kind: RowKind) -> Outcome:
    # Arthur's message is left out: it may quote the row, and reasons must not hold a text.
    if 200 <= status < 300:
        return DELIVERED
    if status in (408, 425, 429) or status >= 500 or status in ABOUT_US:
        verdict = Verdict.RETRY
    elif status == 404 and kind is RowKind.GROUND_TRUTH:
        verdict = Verdict.NOT_YET  # another process may have the inference, and Arthur soon
    else:
        verdict = Verdict.REJECTED
    return Outcome(verdict, f"row {status}", status)


def _all_stored(counts: object, rows: int) -> bool:
    return isinstance(counts, Mapping) and (counts.get("success"), counts.get("failure")) == (
        rows,
        0,
    )
