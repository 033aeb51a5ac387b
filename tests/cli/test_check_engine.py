"""`arthur-relay check` where the environment means Arthur Engine."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import pytest

from arthur_relay.sandbox import ArthurSandbox

from .test_check import marks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .conftest import Run

pytestmark = pytest.mark.one_python


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArthurSandbox]:
    for name in list(os.environ):
        if name.startswith("ARTHUR_"):
            monkeypatch.delenv(name)
    with ArthurSandbox() as running:
        monkeypatch.setenv("ARTHUR_BASE_URL", running.url)
        monkeypatch.setenv("ARTHUR_API_KEY", running.api_key)
        monkeypatch.setenv("ARTHUR_TASK_ID", running.task_id)
        yield running


def test_all_is_well(run: Run, engine: ArthurSandbox) -> None:
    result = run("check")
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in marks(result.output, "✓")] == [
        "Settings",
        "Product",
        "Credentials",
        "Arthur",
        "Access",
        "Task",
    ]
    assert "Sent: whole traces (trace = full)." in result.output
    assert result.output.splitlines()[-1].startswith("Ready")
    assert engine.spans == []


def test_a_task_by_its_name_and_llm_runs_alone(
    run: Run, engine: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ARTHUR_TASK_ID")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-chatbot")
    monkeypatch.setenv("ARTHUR_RELAY_TRACE", "llm")
    result = run("check")
    assert result.exit_code == 0, result.output
    assert "my-chatbot; spans are filed under it by its name." in result.output
    assert "Sent: LLM runs alone (trace = llm)." in result.output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ARTHUR_MODEL_ID": "m"}, "unset one of them"),
        ({"ARTHUR_API_KEY": ""}, "set ARTHUR_API_KEY"),
        ({"ARTHUR_API_KEY": "wrong"}, "refused access (401)"),
        ({"ARTHUR_API_KEY": "sandbox-read-key"}, "refused access (403)"),
        ({"ARTHUR_TASK_ID": "my-chatbot"}, "a UUID"),
        ({"ARTHUR_TASK_ID": str(uuid.UUID(int=1))}, "no task with id"),
        ({"ARTHUR_TASK_ID": ""}, "Arthur Engine needs a task"),
        ({"ARTHUR_BASE_URL": "http://engine.example"}, "plain HTTP"),
        ({"ARTHUR_BASE_URL": "http://127.0.0.1:9"}, "Not reached"),
    ],
)
def test_something_is_wrong(
    changes: dict[str, str],
    said: str,
    run: Run,
    engine: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    result = run("check")
    assert result.exit_code == 1, result.output
    assert said in " ".join(result.output.split())
    assert result.output.splitlines()[-1].startswith("Not ready")
    assert engine.spans == []
