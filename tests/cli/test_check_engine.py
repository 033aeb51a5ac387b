"""`arthur-relay check` where the environment means Arthur Engine."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from arthur_relay.sandbox import ArthurSandbox

from .engine import leave_inferences, mean_engine
from .test_check import marks

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Run

pytestmark = pytest.mark.one_python


@pytest.fixture
def engine(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> ArthurSandbox:
    mean_engine(sandbox, monkeypatch)
    return sandbox


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
        "Reading",
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
        (
            {"ARTHUR_BASE_URL": "http://127.0.0.1:9"},
            "reached at http://127.0.0.1:9: the connection was refused",
        ),
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


def test_a_key_that_may_not_read_is_a_warning(
    run: Run, engine: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "sandbox-write-key")
    result = run("check")
    assert result.exit_code == 0, result.output
    (line,) = marks(result.output, "!")
    assert "may write traces and not read them" in line
    assert "TASK-ADMIN" in line
    monkeypatch.delenv("ARTHUR_TASK_ID")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-chatbot")
    result = run("check")
    assert result.exit_code == 0, result.output
    assert "The key may not look for it" in result.output
    assert engine.spans == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ARTHUR_ENDPOINT_URL": "unix:///run/x"}, "ARTHUR_ENDPOINT_URL is for Arthur Scope"),
        ({"ARTHUR_LOGIN": "ada"}, "ARTHUR_LOGIN is for Arthur Scope"),
        ({"ARTHUR_RELAY_BATCH_SIZE": "500"}, "a request takes 4 s"),
        ({"ARTHUR_RELAY_MAX_IN_FLIGHT": "4"}, "not faster with several requests at once"),
    ],
)
def test_what_was_made_for_scope_is_a_warning(
    changes: dict[str, str],
    said: str,
    run: Run,
    engine: ArthurSandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    result = run("check")
    assert result.exit_code == 0, result.output
    (line,) = marks(result.output, "!")
    assert said in line
    assert engine.url in result.output


def test_without_the_packages_nothing_is_asked(
    run: Run, engine: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = "arthur_relay.destinations.engine.libraries._NEEDED"
    monkeypatch.setattr(missing, ("there.is.no.such.package",))
    result = run("check")
    assert result.exit_code == 1
    (line,) = marks(result.output, "✗")
    assert "pip install 'arthur-relay[engine]'" in line
    assert engine.requests == []


def test_what_an_earlier_scope_left_in_the_spool_is_a_warning(
    run: Run, engine: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    leave_inferences(engine, monkeypatch)
    mean_engine(engine, monkeypatch)
    engine.come_back()
    result = run("check")
    assert result.exit_code == 0, result.output
    (line,) = (each for each in marks(result.output, "!") if " Spool " in each)
    assert "has 3 rows for Arthur Scope: it is left alone" in line
