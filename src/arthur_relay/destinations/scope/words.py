"""Whose words an answer is: Arthur's own, or those of something that stands before it.

An ingress, a load balancer or a firewall answers in Arthur's place while Arthur is rolled out, and
knows nothing of rows, models or keys. What it says is that Arthur can't be reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

import orjson

from arthur_relay.destinations.http import Answer

_OF_OTHERS = frozenset({405, 407, 421, 426, 511})
"""Statuses of those in between: Arthur's routes take our methods, and it is no proxy."""

_KEYS_OF_OTHERS = frozenset(
    {"apiVersion", "kind", "path", "requestId", "statusCode", "success", "timestamp"}
)
"""What the errors of Kubernetes, Cloudflare, Spring, Fastify and others have beside the error."""


_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,40}/[a-z0-9][a-z0-9.+-]{0,60}")


def is_success_of_another(answer: Answer) -> bool:
    """Say whether a 2xx to rows comes from something before Arthur: it tells nothing of them.

    A captive portal, a login page or an ingress without a backend answers 200, in HTML or with
    nothing at all. Arthur answers rows with 207, which none of these does, and with results; what
    says that it is JSON and can't be read may be Arthur's, damaged on the way.
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
    """Say whether an answer that is no success looks like Arthur's own.

    Arthur's errors are JSON objects with an `error`, a text (see ArthurUserError in the SDK:
    `404 Not Found: {'error': 'record not found'}`), those of single rows have a `message` and a
    `status`, a number. Gateways that write JSON have a `message` alone, an object as their error,
    or keys that Arthur has not.
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
    """Say what was answered: the status, where to, and whose words these are not.

    Args:
        answer: What was answered, by whomever.
        secrets: What is not told, should the answer echo it.
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
    """Say what a 2xx was that does not say what Arthur would.

    Args:
        answer: What was answered, by whomever.
        secrets: What is not told, should the answer echo it.
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


def _is_json(answer: Answer) -> bool:
    return _media_type(answer).endswith(("/json", "+json"))


def _media_type(answer: Answer) -> str:
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower()


def _target(location: str, secrets: Iterable[str]) -> str:
    """Say which server a redirect leads to; in the rest of the address may be what we had sent."""
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
