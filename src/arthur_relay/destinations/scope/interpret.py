"""What Arthur Scope's answers mean: whether they are Scope's, and what became of the rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
from arthur_relay.row import ABOUT_US, DELIVERED, Attempt, Batch, Failure, Outcome, RowKind, Verdict
from arthur_relay.sentences import answered

_FINAL = frozenset({Verdict.REJECTED, Verdict.NOT_YET})
"""The verdicts after which a row may become a dead letter, of which a person reads the reason."""

_PROHIBITIONS = {
    402: "Arthur's plan does not include this",
    403: "Arthur does not permit to write to the model",
}


def interpret(
    batch: Batch,
    answer: Answer,
    *,
    secrets: Iterable[str],
    remedy: str,
    retry_after_seconds: float | None,
) -> Attempt:
    """Return what an answer to a batch means for its rows.

    Args:
        batch: The rows that were sent.
        answer: The answer, from Arthur or from something before it.
        secrets: Texts that are kept out of reasons, should the answer echo them.
        remedy: What a person can do about credentials that were refused.
        retry_after_seconds: The least wait that the answer asks for, or None.
    """
    status = answer.status
    reason = f"http {status}"
    if 200 <= status < 300:
        return _interpret_success(batch, answer, secrets)
    if status == 413:  # from Arthur or a proxy: fewer rows may pass
        outcome = Outcome(Verdict.REJECTED, reason, status)
        return whole(batch, outcome, Failure.TOO_LARGE, reason)
    again = Outcome(Verdict.RETRY, reason, status)
    if may_pass(status) or not is_arthurs(answer):
        failure = Failure.THROTTLED if status == 429 else Failure.UNAVAILABLE
        said = answered(described(answer, secrets))
        arrived = status >= 500
        return whole(batch, again, failure, said, retry_after_seconds, may_have_arrived=arrived)
    if status == 401:
        problem = f"Arthur refused access (401): {remedy}"
        return whole(batch, again, Failure.UNAUTHORISED, problem)
    if status in ABOUT_US:
        problem = f"{_PROHIBITIONS[status]} ({status}): {remedy}"
        return whole(batch, again, Failure.FORBIDDEN, problem)
    return refused(batch, reason, status, own_words(_message(answer), batch.rows, secrets))


def interpret_results(batch: Batch, body: bytes, secrets: Iterable[str] = ()) -> Attempt:
    """Map the results of a 207 to the batch's rows, by index: results carry no id.

    Results of another number can't be mapped, unless the counts say that every row was stored; nor
    can results with a status that HTTP does not have.
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
    if any(outcome.verdict in _FINAL for outcome in of_status.values()):
        outcomes = tuple(_with_words(batch, outcomes, results, secrets))
    return Attempt(outcomes, reason=next((o.reason for o in outcomes if o.reason), ""))


def is_success_of_another(answer: Answer) -> bool:
    """Return whether a 2xx to rows comes from something before Arthur.

    A captive portal, a login page or an ingress without a backend answers 200, in HTML or with
    nothing at all. Arthur answers rows with 207, which none of these does, and with results. JSON
    that can't be read may be Arthur's, damaged on the way.
    """
    if answer.status == 207:
        return False
    if answer.problem:
        return not is_json(answer)
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return not (is_json(answer) and answer.body)
    return not (isinstance(document, Mapping) and "results" in document)


def is_arthurs(answer: Answer) -> bool:
    """Return whether an error looks like Arthur's own.

    Arthur's errors are JSON objects with a text as `error` (see ArthurUserError in the SDK:
    `404 Not Found: {'error': 'record not found'}`); errors of single rows have a `message` and a
    number as `status`. Gateways that write JSON have a `message` alone, an object as their error,
    or keys that Arthur does not use.
    """
    if answer.status in OF_OTHERS:
        return False
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(document, Mapping):
        return False
    if not KEYS_OF_OTHERS.isdisjoint(document):
        return False
    error = document.get("error")
    if error is not None:
        return isinstance(error, str) and bool(error)
    return bool(document.get("errors")) or (
        "message" in document and isinstance(document.get("status"), int)
    )


def described(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """Describe an answer in a few words. See `answers.described`."""
    return answers.described(answer, secrets, is_arthurs=is_arthurs(answer))


def _with_words(
    batch: Batch, outcomes: Sequence[Outcome], results: Sequence[Any], secrets: Iterable[str]
) -> Iterable[Outcome]:
    """Yield the outcomes, those of rejected rows with what Arthur said of them."""
    for row, outcome, result in zip(batch.rows, outcomes, results, strict=True):
        if outcome.verdict in _FINAL:
            said = own_words(result.get("message"), (row,), secrets)
            yield replace(outcome, said=said) if said else outcome
        else:
            yield outcome


def _message(answer: Answer) -> object:
    """Return what an error of Arthur's says, whatever that is."""
    document = orjson.loads(answer.body)  # `is_arthurs` has read it
    return document.get("error") or document.get("message")


def _interpret_success(batch: Batch, answer: Answer, secrets: Iterable[str]) -> Attempt:
    if is_success_of_another(answer):
        reason = answered(described_success(answer, secrets))
        return whole(batch, RETRY, Failure.UNAVAILABLE, reason, may_have_arrived=True)
    if answer.problem:
        return malformed(batch, answer.problem)
    return interpret_results(batch, answer.body, secrets)


def _row_outcome(status: int, kind: RowKind) -> Outcome:
    if 200 <= status < 300:
        return DELIVERED
    if status in (408, 425, 429) or status >= 500 or status in ABOUT_US:
        verdict = Verdict.RETRY
    elif status == 404 and kind is RowKind.GROUND_TRUTH:
        verdict = Verdict.NOT_YET  # another process may still be about to send the inference
    else:
        verdict = Verdict.REJECTED
    return Outcome(verdict, f"row {status}", status)


def _all_stored(counts: object, rows: int) -> bool:
    return isinstance(counts, Mapping) and (counts.get("success"), counts.get("failure")) == (
        rows,
        0,
    )
