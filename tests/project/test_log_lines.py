"""A line of the log names arthur-relay: where logging is not configured, nothing else does."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import arthur_relay

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(arthur_relay.__file__).parent
METHODS = {"warning", "error", "critical", "exception", "log", "warn"}
OF_COMMANDS = ("broker", "cli", "daemon", "sandbox")
"""What is a process of its own, says so, and sets its log up."""


def _lines() -> Iterator[tuple[str, ast.expr]]:
    """Yield each call that logs what an unconfigured terminal shows: where, and the text."""
    for path in sorted(SOURCE.rglob("*.py")):
        where = path.relative_to(SOURCE)
        if where.parts[0] in OF_COMMANDS or where.name == "worker_logs.py":
            continue  # the latter writes what others have worded
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in METHODS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in ("logger", "logging", "log", "warnings")
            ):
                yield f"{where}:{node.lineno}", node.args[1 if node.func.attr == "log" else 0]


@pytest.mark.one_python
def test_each_line_of_the_log_names_arthur_relay() -> None:
    lines = list(_lines())
    assert len(lines) > 15, "there are lines to look at"
    for where, text in lines:
        assert isinstance(text, ast.Constant), where
        assert str(text.value).startswith("arthur-relay: "), where


def test_with_unconfigured_logging_an_exit_says_whose_inferences_are_dropped() -> None:
    script = """
from arthur_relay import Inference, Relay, RelaySettings
from arthur_relay.destinations.scope.client import ScopeDestination
settings = RelaySettings(connect="lazy", shutdown_timeout_seconds=0.1)
relay = Relay.from_credentials("m", "http://127.0.0.1:9", "login", "password", settings=settings)
relay.capture(Inference(input_text="in", output_text="out"))
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    lines = ended.stderr.splitlines()
    assert lines
    assert all("arthur-relay" in line for line in lines), ended.stderr
    assert any("1 inferences were not delivered in time" in line for line in lines)
