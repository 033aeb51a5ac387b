"""Sentences name the setting to change, by names that there are; a recovery is no warning."""

from __future__ import annotations

import ast
import re
import socket
import ssl
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import arthur_relay
from arthur_relay.broker.settings import BROKER_PREFIX, BrokerSettings
from arthur_relay.daemon.row_requests import REMEDIES as REFUSAL_REMEDIES
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.destinations.http import _explain
from arthur_relay.encoding.product import Product
from arthur_relay.sentences import answered, named, no_answer_within, unreachable
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.worker.admission import OverflowNotice
from arthur_relay.worker.ingest import IngestRefusal
from arthur_relay.worker.report import REMEDIES

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_python

SOURCE = Path(arthur_relay.__file__).parent
LOGS = {"debug", "info", "warning", "error", "critical", "exception", "log"}

VARIABLES = {
    prefix + name.upper()
    for prefix, settings in (
        (ENVIRONMENT_PREFIX, RelaySettings),
        (DAEMON_PREFIX, DaemonSettings),
        (BROKER_PREFIX, BrokerSettings),
    )
    for name in settings.model_fields
}
PREFIXES = {"DAEMON_PREFIX": DAEMON_PREFIX, "BROKER_PREFIX": BROKER_PREFIX}
NAMES = sorted(
    name for name in RelaySettings.model_fields if "_" in name and name != "on_dead_letter"
)
"""Those that can't be words of a sentence; `on_dead_letter` is set in code alone."""

RECOVERY = re.compile(
    r"answers( questions for models)? again|used again|keeps rows again|written again|room again"
)


def trees() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield str(path.relative_to(SOURCE)), ast.parse(path.read_text(encoding="utf-8"))


def text_of(node: ast.AST) -> str:
    """Return all texts below a node; what is put into them, as its source."""
    parts = []
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            parts.append(each.value)
        elif isinstance(each, ast.Call) and isinstance(each.func, ast.Name):
            parts.append(f"{each.func.id}(")
    return " ".join(parts)


def said() -> Iterator[tuple[str, str, str]]:
    """Yield what people read: where, by what, and the text."""
    for where, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                yield f"{where}:{node.lineno}", "raise", text_of(node.exc)
            elif (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LOGS
            ):
                yield f"{where}:{node.lineno}", node.func.attr, text_of(node)


def test_a_setting_is_named_with_its_variable() -> None:
    """Whoever operates the program knows its variables, and whoever calls it its keywords."""
    assert named("queue_bytes") == "queue_bytes (or ARTHUR_RELAY_QUEUE_BYTES)"
    texts = list(said())
    assert len(texts) > 200
    without = [
        (where, name)
        for where, _, text in texts
        for name in NAMES
        if re.search(rf"\b{name}\b", text)
        and not ("named(" in text or ENVIRONMENT_PREFIX + name.upper() in text)
    ]
    assert without == []


def test_each_name_is_that_of_a_setting() -> None:
    found = 0
    for where, tree in trees():
        for node in ast.walk(tree):
            match node:
                case ast.Call(func=ast.Name(id="named"), args=[ast.Constant(value=str(name))]):
                    assert name in RelaySettings.model_fields, where
                    found += 1
                case ast.JoinedStr(values=values):
                    for before, after in pairwise(values):
                        match before, after:
                            case (
                                ast.FormattedValue(value=ast.Name(id=prefix)),
                                ast.Constant(value=str(text)),
                            ) if prefix in PREFIXES and (suffix := re.match(r"[A-Z_]{3,}", text)):
                                assert PREFIXES[prefix] + suffix[0] in VARIABLES, where
                                found += 1
    assert found > 60


def test_a_recovery_is_no_warning() -> None:
    """So that it is no "last error" in `/status`, on the page or in `top` either."""
    levels = {where: level for where, level, text in said() if RECOVERY.search(text)}
    assert len(levels) >= 6
    assert set(levels.values()) == {"info"}, levels


@pytest.mark.parametrize(
    ("spool", "setting"), [(None, "spool_dir"), (Path("/var/spool"), "spool_bytes")]
)
def test_a_full_queue_and_one_with_room_again(spool: Path | None, setting: str) -> None:
    words = Product.SCOPE.words
    notice = OverflowNotice(RelaySettings(spool_dir=spool), words)
    level, text = notice.look(1, 0.0) or (0, "")
    assert level == 30
    assert all(named(each) in text for each in ("queue_bytes", "queue_size", setting))
    level, text = notice.look(1, 3600.0) or (0, "")
    assert (level, text) == (20, f"the queue has room again; 1 {words.many} were dropped")


def test_what_can_be_done_about_drops_and_refusals() -> None:
    nothing = {DropReason.CLOSED, DropReason.SAMPLED, DropReason.UNREADABLE}
    nothing |= {DropReason.LOST_IN_SPOOL, DropReason.UNENCODABLE}
    assert set(REMEDIES) | nothing == set(DropReason)
    assert set(REFUSAL_REMEDIES) | {IngestRefusal.CLOSED, IngestRefusal.CLIENT_GONE} == set(
        IngestRefusal
    )
    for text in REFUSAL_REMEDIES.values():
        assert set(re.findall(r"ARTHUR_\w+", text)) & VARIABLES, text


def caused(kind: type[httpx.TransportError], cause: BaseException) -> httpx.TransportError:
    error = kind("All connection attempts failed")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            caused(httpx.ConnectError, ConnectionRefusedError(111, "Connection refused")),
            "the connection was refused",
        ),
        (
            caused(
                httpx.ConnectError,
                BaseExceptionGroup("several", [ConnectionRefusedError(111, "refused")]),
            ),
            "the connection was refused",
        ),
        (
            caused(httpx.ConnectError, socket.gaierror(-2, "Name or service not known")),
            "its name can't be resolved: Name or service not known",
        ),
        (caused(httpx.ConnectError, ssl.SSLError(1, "[SSL: X]")), "TLS failed: SSLError"),
        (
            caused(httpx.ConnectError, OSError(113, "No route to host")),
            "can't connect: No route to host",
        ),
        (caused(httpx.ConnectError, FileNotFoundError(2, "No")), "there is no such socket"),
        (httpx.ConnectError(""), "can't connect"),
        (
            httpx.ConnectTimeout(""),
            f"connecting took longer than {named('request_timeout_seconds')} allows",
        ),
    ],
)
def test_why_no_answer_came(error: Exception, text: str) -> None:
    assert _explain(error) == text
    assert unreachable(text) == f"Arthur can't be reached: {text}"


def test_an_answer_and_a_silence() -> None:
    assert answered(503) == "Arthur answered 503"
    assert answered("503", "/login at http://a") == "Arthur answered 503 (/login at http://a)"
    assert "request_timeout_seconds (or ARTHUR_" in no_answer_within(30)
    assert unreachable("refused", "http://a") == "Arthur can't be reached at http://a: refused"
