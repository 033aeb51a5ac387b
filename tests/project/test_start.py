"""What docs/start.md has a newcomer do and see."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur
from tests.readme import command, example, page

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

pytestmark = pytest.mark.one_python


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[ArthurSandbox]:
    forget_arthur(monkeypatch)
    with ArthurSandbox() as running:
        yield running


def run_first_program(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    exec(compile(example("first", "docs/start.md"), "first.py", "exec"), names)
    names["handler"].relay.close()


def test_the_first_program_is_an_inference(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_first_program(monkeypatch, sandbox.environment())
    assert capsys.readouterr().out == example("an inference's output", "docs/start.md")
    (row,) = sandbox.inferences
    assert row["inference_data"]["input_text"] == "Human: How is the weather in Ulm?"
    assert row["inference_data"]["output_text"] == "It is sunny."


def test_and_with_other_variables_a_trace(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_first_program(monkeypatch, sandbox.engine_environment())
    assert capsys.readouterr().out == example("a trace's output", "docs/start.md")
    (trace,) = sandbox.traces
    (root,) = trace["root_spans"]
    assert [child["span_kind"] for child in root["children"]] == ["PROMPT", "LLM"]


def test_the_page_is_where_the_command_puts_it() -> None:
    words = shlex.split(command("sandbox", "docs/start.md"))
    port = words[words.index("--port") + 1]
    assert f"<http://127.0.0.1:{port}/>" in page("docs/start.md")
