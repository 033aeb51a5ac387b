"""What the command's tests share: a bare environment, and a way to run the command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from typer.testing import CliRunner

from arthur_relay.cli import app as app_module
from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur

if TYPE_CHECKING:
    from click.testing import Result


class Run(Protocol):
    def __call__(self, *arguments: str) -> Result: ...


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch, "OPENAI_", "LANGSMITH_", "LANGCHAIN_")


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: str) -> Any:
        return CliRunner().invoke(app_module._app, list(arguments))

    return invoke


@pytest.fixture
def environment(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    variables = sandbox.environment()
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def command() -> tuple[list[str], dict[str, str]]:
    """Arguments and environment that run the command in a process of its own."""
    source = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONWARNINGS": "error"}
    return [sys.executable, "-m", "arthur_relay.cli"], environment
