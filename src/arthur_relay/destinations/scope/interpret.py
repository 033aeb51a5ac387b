"""What Arthur's answers mean: whether they are Arthur's at all, and what became of the rows. Pure.

An ingress, a load balancer or a firewall answers in Arthur's place while Arthur is rolled out, and
knows nothing of rows, models or keys. Its answer only means that Arthur can't be reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

import orjson

from arthur_relay.destinations.http import Answer
from arthur_relay.row import ABOUT_US, DELIVERED, Attempt, Batch, Failure, Outcome, RowKind, Verdict

RETRY = Outcome(Verdict.RETRY)

_PROHIBITIONS = {
    402: "Arthur's plan does not include this",
    403: "Arthur does not permit to write to the model",
}

_OF_OTHERS = frozenset({405, 407, 421, 426, 511})
"""Statuses that Arthur never returns: its routes take our methods, and it is not a proxy."""

_KEYS_OF_OTHERS = frozenset(
    {"apiVersion", "kind", "path", "requestId", "statusCode", "success", "timestamp"}
)
"""Keys in the errors of Kubernetes, Cloudflare, Spring, Fastify and others, but not of Arthur."""

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}/[a-z0-9][a-z0-9.+-]{0,60}")


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
        said = described(answer, secrets)
        arrived = status >= 500
        return whole(batch, again, failure, said, retry_after_seconds, may_have_arrived=arrived)
    if status == 401:
        problem = f"Arthur refused access (401): {remedy}"
        return whole(batch, again, Failure.UNAUTHORISED, problem)
    if status in ABOUT_US:
        problem = f"{_PROHIBITIONS[status]} ({status}): {remedy}"
        return whole(batch, again, Failure.FORBIDDEN, problem)
    return refused(batch, reason, status)


def may_pass(status: int) -> bool:
    """Return whether a failure with this status may pass by itself; Arthur documents none.

    A redirect may: it is unexpected, and following it could show prompts to a stranger.
    """
    return status in (408, 425, 429) or status >= 500 or status < 400


def whole(
    batch: Batch,
    outcome: Outcome,
    failure: Failure | None = None,
    reason: str = "",
    retry_after: float | None = None,
    *,
    may_have_arrived: bool = False,
) -> Attempt:
    """Return an attempt with the same outcome for each row of a batch."""
    outcomes = (outcome,) * len(batch.rows)
    return Attempt(outcomes, failure, reason, retry_after, may_have_arrived)


def malformed(batch: Batch, reason: str) -> Attempt:
    """Return an attempt whose answer does not say what became of the rows."""
    return whole(batch, RETRY, Failure.MALFORMED, reason, may_have_arrived=True)


def interpret_results(batch: Batch, body: bytes) -> Attempt:
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
    return Attempt(outcomes, reason=next((o.reason for o in outcomes if o.reason), ""))


def refused(batch: Batch, reason: str, status: int | None = None) -> Attempt:
    """Return an attempt in which Arthur refused the whole batch for good."""
    return whole(batch, Outcome(Verdict.REJECTED, reason, status), Failure.REFUSED, reason)


def is_success_of_another(answer: Answer) -> bool:
    """Return whether a 2xx to rows comes from something before Arthur.

    A captive portal, a login page or an ingress without a backend answers 200, in HTML or with
    nothing at all. Arthur answers rows with 207, which none of these does, and with results. JSON
    that can't be read may be Arthur's, damaged on the way.
    """
    if answer.status == 207:
        return False
    if answer.problem:
        return not _is_json(answer)
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return not (_is_json(answer) and answer.body)
    return not (isinstance(document, Mapping) and "results" in document)


def is_arthurs(answer: Answer) -> bool:
    """Return whether an error looks like Arthur's own.

    Arthur's errors are JSON objects with a text as `error` (see ArthurUserError in the SDK:
    `404 Not Found: {'error': 'record not found'}`); errors of single rows have a `message` and a
    number as `status`. Gateways that write JSON have a `message` alone, an object as their error,
    or keys that Arthur does not use.
    """
    if answer.status in _OF_OTHERS:
        return False
    try:
        document = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(document, Mapping):
        return False
    if not _KEYS_OF_OTHERS.isdisjoint(document):
        return False
    error = document.get("error")
    if error is not None:
        return isinstance(error, str) and bool(error)
    return bool(document.get("errors")) or (
        "message" in document and isinstance(document.get("status"), int)
    )


def described(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """Describe an answer in a few words: its status, its redirect, and whether it is Arthur's.

    Args:
        answer: The answer, from Arthur or from something before it.
        secrets: Texts that are left out, should the answer echo them.
    """
    status = answer.status
    if 200 <= status < 300 and not _is_json(answer):
        return described_success(answer, secrets)
    if 300 <= status < 400:
        return f"http {status}{_target(answer.headers.get('location', ''), secrets)}"
    if status == 407:
        return "http 407: the proxy asks who we are"
    if 400 <= status < 500 and not is_arthurs(answer):
        return f"http {status}, and not in Arthur's words: something before it answers"
    return f"http {status}"


def described_success(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """Describe a 2xx that is not Arthur's, in a few words.

    Args:
        answer: The answer.
        secrets: Texts that are left out, should the answer echo them.
    """
    media_type = _media_type(answer)
    is_odd = _MEDIA_TYPE.fullmatch(media_type) is None
    if not answer.body and not answer.problem:
        content = "nothing"
    elif is_odd or any(secret.lower() in media_type for secret in secrets):
        content = "something else than Arthur's JSON"
    elif _is_json(answer):
        content = "JSON that is not Arthur's"
    else:
        content = media_type
    return (
        f"http {answer.status} with {content}: a proxy or a login page may answer in Arthur's place"
    )


def _interpret_success(batch: Batch, answer: Answer, secrets: Iterable[str]) -> Attempt:
    if is_success_of_another(answer):
        reason = described_success(answer, secrets)
        return whole(batch, RETRY, Failure.UNAVAILABLE, reason, may_have_arrived=True)
    if answer.problem:
        return malformed(batch, answer.problem)
    return interpret_results(batch, answer.body)


def _row_outcome(status: int, kind: RowKind) -> Outcome:
    # Arthur's message is left out: it may quote the row, and reasons must hold no text of it.
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


def _is_json(answer: Answer) -> bool:
    return _media_type(answer).endswith(("/json", "+json"))


def _media_type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _target(location: str, secrets: Iterable[str]) -> str:
    """Describe the server that a redirect leads to; the rest of the address may echo our texts."""
    try:
        parts = urlsplit(location)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return ""
    if not host:
        return ", a redirect to another path of it" if parts.path else ""
    name = unquote(host).lower()
    is_odd = not name.isascii() or not name.isprintable()
    if is_odd or any(secret.lower() in name for secret in secrets):
        return ""
    if ":" in host:
        host = f"[{host}]"
    scheme = f"{parts.scheme}:" if parts.scheme else ""
    return f", a redirect to {scheme}//{host}" + (f":{port}" if port is not None else "")
