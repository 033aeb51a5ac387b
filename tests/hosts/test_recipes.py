"""The programs of docs/hosts.md that have no server: each as it is written there."""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from tests.environment import forget_arthur
from tests.hosts.arrivals import arrived
from tests.readme import example

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox
    from tests.hosts.programs import Programs

pytestmark = pytest.mark.one_python


def test_a_program_that_is_patched_first(programs: Programs, sandbox: ArthurSandbox) -> None:
    # In a cold process: a warm one has imported what has to be patched first.
    program = programs.start(sys.executable, "-c", example("gevent", "docs/hosts.md"))
    ended = program.end()
    assert ended.status == 0, ended.stdout
    assert "delivered=1" in ended.stdout
    assert len(arrived(sandbox)) == 1


def test_a_pool(programs: Programs, sandbox: ArthurSandbox) -> None:
    programs.environment["ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS"] = "3600"  # an exit delivers
    ended = programs.source(example("pool", "docs/hosts.md")).end()
    assert (ended.status, ended.stdout) == (0, "['answer', 'answer']\n")
    assert len(arrived(sandbox)) == 2


def test_a_script_that_sigterm_ends(
    programs: Programs, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    programs.environment["ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS"] = "3600"
    questions = tmp_path / "programs" / "questions.txt"
    os.mkfifo(questions)  # so that the script waits for more
    program = programs.source(example("script", "docs/hosts.md"))
    with questions.open("w", encoding="utf-8") as file:
        print("How is the weather?", file=file, flush=True)
        program.wait_for("answer")
        program.signal(signal.SIGTERM)
        ended = program.end()
    assert (ended.status, ended.stdout) == (143, "answer\n")
    assert len(arrived(sandbox)) == 1


@pytest.fixture
def _environment(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_environment")
def test_a_cell_of_a_notebook(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = ModuleType("llm")
    exec(example("application", "docs/hosts.md"), vars(llm))
    monkeypatch.setitem(sys.modules, "llm", llm)
    text = example("notebook", "docs/hosts.md")
    cell = compile(text, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # as a kernel does
    asyncio.run(eval(cell, {}))
    assert len(arrived(sandbox)) == 1


@pytest.mark.usefixtures("_environment")
def test_a_serverless_function(sandbox: ArthurSandbox) -> None:
    names: dict[str, Any] = {}
    exec(example("serverless", "docs/hosts.md"), names)
    assert sandbox.requests == []
    assert names["lambda_handler"]({"question": "How is the weather?"}, None) == {
        "answer": "answer"
    }
    assert len(arrived(sandbox)) == 1
