"""What the Engine's answers mean: whether they are the Engine's, and what became of the rows. Pure.

Its errors are JSON objects with a `detail`. That of a 500 quotes SQL with prompts, and reasons of
rejected spans may quote keys: of an answer's text only `own_words` are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from arthur_relay.destinations import answers
from arthur_relay.destinations.answers import (
    KEYS_OF_OTHERS,
    OF_OTHERS,
    RETRY,
    described_success,
    is_json,
    malformed,
    may_pass,
    refused,
    whole,
)
from arthur_relay.destinations.http import Answer
from arthur_relay.destinations.own_words import own_words
from arthur_relay.row import DELIVERED, Attempt, Batch, Failure, Outcome, Row, Verdict
from arthur_relay.sentences import answered

REJECTED = Outcome(Verdict.REJECTED, "the Engine rejected the span for its content", 422)

MAY_NOT_WRITE = (
    "the key may not write traces: give one with the role TASK-ADMIN, VALIDATION-USER, CHAT-USER or"
    " ORG-ADMIN (ARTHUR_API_KEY); the Engine's admin key may not"
)
REFUSED_KEY = "check the API key (ARTHUR_API_KEY): it may be mistyped, or deactivated."


@dataclass(frozen=True, slots=True)
class Counts:
    """How many spans of a request were taken, as a 200, 206 or 422 says.

    Attributes:
        accepted: The number of those that were taken.
        rejected: The number of the others.
        reasons: Why, in the Engine's words, one for each rejected span in the order of the request.
    """

    accepted: int
    rejected: int
    reasons: tuple[object, ...] = ()


def counts_of(answer: Answer) -> Counts | None:
    """Return the counts of an answer to spans, or None when it has none."""
    found = document(answer)
    accepted, rejected = found.get("accepted_spans"), found.get("rejected_spans")
    if not (isinstance(accepted, int) and isinstance(rejected, int)):
        return None
    reasons = found.get("rejection_reasons")
    return Counts(accepted, rejected, tuple(reasons) if isinstance(reasons, list) else ())


def document(answer: Answer) -> Mapping[str, Any]:
    """Return the JSON object of an answer; empty when it has none."""
    if answer.problem:
        return {}
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, Mapping) else {}


def is_engines(answer: Answer) -> bool:
    """Return whether an error looks like the Engine's own, which is FastAPI's: with a `detail`."""
    if answer.status in OF_OTHERS:
        return False
    found = document(answer)
    if not KEYS_OF_OTHERS.isdisjoint(found):
        return False
    return bool(found.get("detail")) or counts_of(answer) is not None


def described(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """Describe an answer in a few words. See `answers.described`."""
    return answers.described(answer, secrets, is_arthurs=is_engines(answer))


def interpret(
    batch: Batch,
    answer: Answer,
    *,
    secrets: Iterable[str],
    retry_after_seconds: float | None,
) -> Attempt:
    """Return what an answer means for rows that were sent together.

    Of a 206, of a 500 and of a 404 the client finds out more, before it asks here.

    Args:
        batch: The rows that were sent.
        answer: The answer, from the Engine or from something before it.
        secrets: Texts that are kept out of reasons, should the answer echo them.
        retry_after_seconds: The least wait that the answer asks for, or None.
    """
    status = answer.status
    if 200 <= status < 300:
        return _interpret_success(batch, answer, secrets)
    counts = counts_of(answer)
    if status == 422 and counts is not None and counts.accepted == 0 and counts.rejected:
        return _of_each(batch, frozenset(), counts, secrets)
    return interpret_failure(batch, answer, secrets=secrets, wait=retry_after_seconds)


def interpret_failure(
    batch: Batch, answer: Answer, *, secrets: Iterable[str], wait: float | None
) -> Attempt:
    """Return what an answer means that is no success, with the arguments of `interpret`."""
    status = answer.status
    reason = f"http {status}"
    if status == 413:  # from the Engine or a proxy: fewer rows may pass
        return whole(batch, Outcome(Verdict.REJECTED, reason, status), Failure.TOO_LARGE, reason)
    again = Outcome(Verdict.RETRY, reason, status)
    is_own = is_engines(answer)
    if may_pass(status) or not is_own:
        failure = Failure.THROTTLED if status == 429 else Failure.UNAVAILABLE
        said = answered(described(answer, secrets))
        # With a 500 of its own it has stored nothing: a request is one transaction.
        unheard = status >= 500 and not (status == 500 and is_own)
        return whole(batch, again, failure, said, wait, may_have_arrived=unheard)
    if status == 401:
        problem = f"Arthur Engine refused access (401): {REFUSED_KEY}"
        return whole(batch, again, Failure.UNAUTHORISED, problem)
    if status in (402, 403):
        why = MAY_NOT_WRITE if status == 403 else "the plan does not include this"
        problem = f"Arthur Engine refused access ({status}): {why}."
        return whole(batch, again, Failure.FORBIDDEN, problem)
    if status == 404:
        said = answered(
            "404: the Engine has no such route; is ARTHUR_BASE_URL the address of an Arthur Engine?"
        )
        return whole(batch, again, Failure.UNAVAILABLE, said, wait)
    said = own_words(document(answer).get("detail"), batch.rows, secrets)
    return refused(batch, reason, status, said)


def interpret_partial(
    batch: Batch, stored: frozenset[Row] | None, counts: Counts, secrets: Iterable[str]
) -> Attempt:
    """Return what a 206 means, whose reasons name no span.

    Args:
        batch: The rows that were sent.
        stored: Those that the Engine has, or None where the key may not ask for them.
        counts: How many it took and rejected.
        secrets: Texts that are kept out of reasons, should the answer echo them.
    """
    if stored is None:
        # To send them again would store the good ones twice. In the dead letters nothing is lost.
        total = counts.accepted + counts.rejected
        reason = (
            f"the Engine rejected {counts.rejected} of {total} spans for their content, and the key"
            " may not read which"
        )
        return whole(batch, Outcome(Verdict.REJECTED, reason, 206), reason=reason)
    return _of_each(batch, stored, counts, secrets)


def _of_each(
    batch: Batch, stored: frozenset[Row], counts: Counts, secrets: Iterable[str]
) -> Attempt:
    """Return an attempt in which all rows were rejected that are not stored."""
    rejected = [row for row in batch.rows if row not in stored]
    of_row = dict.fromkeys(rejected, REJECTED)
    if len(counts.reasons) == len(rejected):
        for row, reason in zip(rejected, counts.reasons, strict=True):
            # A reason names no span, so it must quote none of them.
            said = own_words(reason, batch.rows, secrets)
            of_row[row] = replace(REJECTED, said=said) if said else REJECTED
    outcomes = tuple(of_row.get(row, DELIVERED) for row in batch.rows)
    return Attempt(outcomes, reason=REJECTED.reason if rejected else "")


def interpret_feedback(answer: Answer, row: Row, secrets: Iterable[str]) -> Outcome:
    """Return what an answer to one annotation means, where it was a success or the row's fault.

    Args:
        answer: The answer, which is the Engine's.
        row: The annotation.
        secrets: Texts that are kept out of reasons, should the answer echo them.
    """
    if 200 <= answer.status < 300:
        return DELIVERED
    if answer.status == 404:  # another process may have the trace, and the Engine soon
        return Outcome(Verdict.NOT_YET, "the Engine does not have the trace", 404)
    said = own_words(document(answer).get("detail"), (row,), secrets)
    return Outcome(Verdict.REJECTED, f"http {answer.status}", answer.status, said)


def _interpret_success(batch: Batch, answer: Answer, secrets: Iterable[str]) -> Attempt:
    counts = counts_of(answer)
    if counts is not None:
        if counts.rejected or counts.accepted < len(batch.rows):
            return malformed(batch, "answer with other counts")
        return whole(batch, DELIVERED)
    if is_json(answer) and answer.problem:
        return malformed(batch, answer.problem)
    if is_json(answer) and answer.body and not document(answer):
        return malformed(batch, "malformed answer")
    reason = answered(described_success(answer, secrets))
    return whole(batch, RETRY, Failure.UNAVAILABLE, reason, may_have_arrived=True)
