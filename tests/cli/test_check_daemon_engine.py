"""`arthur-relay check --daemon` for a daemon that delivers to Arthur Engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .engine import leave_inferences, leave_spans, mean_engine
from .test_check_daemon import DELIVER, START, told

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

    from .conftest import Run

pytestmark = pytest.mark.one_python


@pytest.fixture(autouse=True)
def _daemon(sandbox: ArthurSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a daemon; all of it is right."""
    mean_engine(sandbox, monkeypatch)
    monkeypatch.delenv("ARTHUR_TASK_ID")
    monkeypatch.setenv("ARTHUR_RELAY_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("ARTHUR_RELAY_DAEMON_SOCKET", str(tmp_path / "relay.sock"))


def test_all_is_fine_and_nothing_is_sent(run: Run, sandbox: ArthurSandbox) -> None:
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    assert told(found, "✓", "Product") == [f"Arthur Engine at {sandbox.url}."]
    assert told(found, "✓", "Settings") == ["Valid; set: socket, spool_dir."]
    assert told(found, "✓", "Reading")
    assert not told(found, "✓", "Task")
    assert "Ready: the daemon would start" in found.stdout
    assert sandbox.spans == []


def test_files_that_a_start_moves_are_named(
    run: Run, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, engine = tmp_path / "spool", tmp_path / "spool" / "engine"
    leave_spans(sandbox, monkeypatch)
    sandbox.come_back()
    (file,) = whole.glob("*.spool")
    monkeypatch.setenv("ARTHUR_ENGINE_API_KEY", "sandbox-key")
    monkeypatch.setenv("ARTHUR_ENDPOINT_URL", sandbox.url)
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    sentence = "{} has 3 rows for Arthur Engine: a start moves it to {}."
    assert sentence.format(file, engine) in told(found, "-", "Spool")
    assert "left alone" not in found.stdout
    monkeypatch.delenv("ARTHUR_ENGINE_API_KEY")
    engine.mkdir(mode=0o700)
    for each in whole.glob("*.spool*"):
        each.rename(engine / each.name)
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    assert sentence.format(engine / file.name, whole) in told(found, "-", "Spool")


def test_an_empty_file_of_another_is_no_warning(
    run: Run, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    leave_spans(sandbox, monkeypatch, count=0)
    sandbox.come_back()
    (file,) = (tmp_path / "spool").glob("*.spool")
    monkeypatch.setenv("ARTHUR_BASE_URL", sandbox.url.replace("127.0.0.1", "localhost"))
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    assert file.name not in found.stdout


def test_a_task_that_is_named_is_asked_for(
    run: Run, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_TASK_ID", sandbox.task_id)
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    assert sandbox.task_id in told(found, "✓", "Task")[0]


def test_a_key_that_may_not_read_is_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_API_KEY", "sandbox-write-key")
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    assert "may write traces and not read them" in told(found, "!", "Reading")[0]


@pytest.mark.parametrize(
    ("changes", "status", "subject", "said"),
    [
        ({"ARTHUR_API_KEY": "wrong"}, DELIVER, "Access", "refused access (401)"),
        ({"ARTHUR_API_KEY": "sandbox-read-key"}, DELIVER, "Access", "refused access (403)"),
        ({"ARTHUR_BASE_URL": "http://127.0.0.1:9"}, DELIVER, "Arthur", "can't be reached at http"),
        ({"ARTHUR_API_KEY": ""}, START, "Settings", "set ARTHUR_API_KEY"),
        ({"ARTHUR_MODEL_ID": "m"}, START, "Settings", "unset one of them"),
    ],
)
def test_something_is_wrong(
    changes: dict[str, str],
    status: int,
    subject: str,
    said: str,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    found = run("check", "--daemon")
    assert found.exit_code == status, found.output
    assert said in told(found, "✗", subject)[0]


def test_an_address_that_is_the_daemons_own_is_told_by_its_variable(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARTHUR_BASE_URL", f"unix://{tmp_path}/relay.sock")
    found = run("check", "--daemon")
    assert found.exit_code == START, found.output
    assert told(found, "✗", "Circle")[0].startswith("ARTHUR_BASE_URL is")


def test_without_the_packages_it_would_not_start(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "arthur_relay.destinations.engine.libraries._NEEDED"
    monkeypatch.setattr(missing, ("there.is.no.such.package",))
    found = run("check", "--daemon")
    assert found.exit_code == START, found.output
    assert "arthur-relay[engine]" in told(found, "✗", "Packages")[0]


def test_what_a_daemon_for_scope_left_is_a_warning(
    run: Run, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_inferences(sandbox, monkeypatch)
    sandbox.come_back()
    mean_engine(sandbox, monkeypatch)
    found = run("check", "--daemon")
    assert found.exit_code == 0, found.output
    assert "has 3 rows for Arthur Scope" in told(found, "!", "Spool")[0]
