"""What any answer means, whichever Arthur was asked; pure.

An ingress, a load balancer or a firewall answers in Arthur's place while Arthur is rolled out, and
knows nothing of rows, models or keys. Its answer only means that Arthur has to be asked again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote, urlsplit

from arthur_relay.destinations.http import Answer
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Verdict

RETRY = Outcome(Verdict.RETRY)

OF_OTHERS = frozenset({405, 407, 421, 426, 511})
"""Statuses that only others return: Arthur's routes take our methods, and Arthur is no proxy."""

KEYS_OF_OTHERS = frozenset(
    {"apiVersion", "kind", "path", "requestId", "statusCode", "success", "timestamp"}
)
"""Keys in the errors of Kubernetes, Cloudflare, Spring, Fastify and others, but not of Arthur."""

_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}/[a-z0-9][a-z0-9.+-]{0,60}")


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


def refused(batch: Batch, reason: str, status: int | None = None, said: str = "") -> Attempt:
    """Return an attempt in which Arthur refused the whole batch for good."""
    return whole(batch, Outcome(Verdict.REJECTED, reason, status, said), Failure.REFUSED, reason)


def described(answer: Answer, secrets: Iterable[str] = (), *, is_arthurs: bool) -> str:
    """Describe an answer in a few words: its status, its redirect, and whether it is Arthur's.

    The words go after "Arthur answered".

    Args:
        answer: The answer, from Arthur or from something before it.
        secrets: Texts that are left out, should the answer echo them.
        is_arthurs: Whether it is in the words of the Arthur that was asked.
    """
    status = answer.status
    if 200 <= status < 300 and not is_json(answer):
        return described_success(answer, secrets)
    if 300 <= status < 400:
        return f"{status}{_target(answer.headers.get('location', ''), secrets)}"
    if status == 407:
        return "407: the proxy asks who we are"
    if 400 <= status < 500 and not is_arthurs:
        return f"{status}, and not in Arthur's words: something before it answers"
    return str(status)


def described_success(answer: Answer, secrets: Iterable[str] = ()) -> str:
    """Describe a 2xx that is not Arthur's, in a few words, which go after "Arthur answered".

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
    elif is_json(answer):
        content = "JSON that is not Arthur's"
    else:
        content = media_type
    return f"{answer.status} with {content}: a proxy or a login page may answer in Arthur's place"


def is_json(answer: Answer) -> bool:
    """Return whether an answer says of itself that it is JSON."""
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
