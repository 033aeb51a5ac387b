"""`arthur-relay demo` as a whole: an outage, and nothing missing."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import HumanMessage

from arthur_relay.callback import ArthurCallbackHandler
from arthur_relay.cli.demo import run as run_module
from arthur_relay.cli.demo import stage as stage_module
from arthur_relay.cli.demo.model import DemoChatModel, split_tokens
from arthur_relay.cli.demo.script import SCRIPT, answer_to
from arthur_relay.cli.demo.stage import local_stage
from arthur_relay.cli.sandbox import open_sandbox
from arthur_relay.sandbox import ArthurSandbox

from .test_prompts import MT_BENCH

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Run

pytestmark = pytest.mark.one_python

QUICK = ("--pace", "300", "--outage", "1")


@pytest.fixture
def sandboxes(monkeypatch: pytest.MonkeyPatch) -> list[ArthurSandbox]:
    """The sandboxes that a demo makes; in memory, so that they can be looked at afterwards."""
    made: list[ArthurSandbox] = []
    original = open_sandbox

    def remember() -> ArthurSandbox:
        made.append(original())
        return made[-1]

    monkeypatch.setattr(stage_module, "open_sandbox", remember)
    return made


def retries(output: str) -> int:
    found = re.search(r"Requests made again meanwhile: (\d+)\.", output)
    assert found is not None
    return int(found[1])


def test_the_built_in_conversation(run: Run, sandboxes: list[ArthurSandbox]) -> None:
    result = run("demo", *QUICK)
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[-1] == "captured 12 = delivered 12: nothing is missing."
    assert sum(line.lstrip().startswith(f"{n}/12 ") for n in range(1, 13) for line in lines) == 12
    assert any("Arthur is gone" in line for line in lines)
    assert any("Arthur is back" in line for line in lines)
    assert retries(result.output) > 0
    assert "\x1b" not in result.output
    rows = sorted(  # batches may overtake each other
        (row["inference_data"] for row in sandboxes[0].inferences),
        key=lambda row: len(row["input_text"]),
    )
    assert [row["output_text"] for row in rows] == [answer for _, answer in SCRIPT]
    for row in rows:
        assert row["finish_reason"] == "stop"
        assert row["model_name"] == "demo-model"
        assert row["user_id"] == "demo-user"
        assert "".join(row["output_tokens"]) == row["output_text"]
        assert len(row["output_likelihoods"]) == row["completion_tokens"]
    assert "Why is it still there?" in rows[11]["input_text"]  # the history of the conversation


def test_its_lines_tell_how_the_relay_and_the_stream_fare(
    run: Run, sandboxes: list[ArthurSandbox]
) -> None:
    lines = run("demo", *QUICK).output.splitlines()
    assert lines[0].endswith(f"Arthur is at {sandboxes[0].url}/")
    counts = [
        [int(number) for number in found.groups()]
        for line in lines
        if (
            found := re.match(
                r" *\d+/12  captured (\d+) +pending (\d+) +delivered (\d+) +retries (\d+)  ", line
            )
        )
    ]
    assert len(counts) == 12
    for turn, (captured, pending, delivered, _retries) in enumerate(counts, start=1):
        assert captured == pending + delivered == turn
    gone = next(index for index, line in enumerate(lines) if "Arthur is gone" in line)
    back = next(index for index, line in enumerate(lines) if "Arthur is back" in line)
    assert gone < back
    assert max(pending for _, pending, _, _ in counts) > 0
    assert [each[3] for each in counts] == sorted(each[3] for each in counts)
    assert counts[-1][3] <= retries("\n".join(lines))
    (away,) = [line.split() for line in lines if line.startswith("Arthur away ")]
    (there,) = [line.split() for line in lines if line.startswith("Arthur there ")]
    assert int(away[2]) > 0
    # All tokens but the first, which has none before it.
    tokens = sum(len(split_tokens(answer)) for _, answer in SCRIPT)
    assert int(away[2]) + int(there[2]) == tokens - 1
    assert away[5] == there[5] == "ms"
    assert 0 < int(away[4]) < 1000  # the outage, which the stream would have waited for


def test_as_a_process(command: tuple[list[str], dict[str, str]]) -> None:
    arguments, environment = command
    found = subprocess.run(
        [*arguments, "demo", "--pace", "200"],
        env={**environment, "ARTHUR_RELAY_QUEUE_SIZE": "1", "ARTHUR_RELAY_DISABLED": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.splitlines()[-1] == "captured 12 = delivered 12: nothing is missing."
    assert retries(found.stdout) > 0


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("p.txt", "one\ntwo\nthree\n", 3),
        ("p.jsonl", '{"turns": ["one", "two"]}\n{"prompt": "three"}\n', 3),
        ("p.jsonl", '{"input": "one"}\n', 1),
        ("p.jsonl", '{"text": "[/bold] \\u001b[31m"}\n', 1),
    ],
)
def test_prompts(
    run: Run,
    sandboxes: list[ArthurSandbox],
    tmp_path: Path,
    name: str,
    content: str,
    count: int,
) -> None:
    path = tmp_path / name
    path.write_text(content)
    result = run("demo", "--prompts", str(path), *QUICK)
    assert result.exit_code == 0, result.output
    last = f"captured {count} = delivered {count}: nothing is missing."
    assert result.output.splitlines()[-1] == last
    assert retries(result.output) > 0
    assert len(sandboxes[0].inferences) == count
    if "turns" in content:
        texts = {row["inference_data"]["input_text"] for row in sandboxes[0].inferences}
        assert texts == {
            "Human: one",
            f"Human: one\nAI: {answer_to('one')}\nHuman: two",
            "Human: three",
        }


def test_bad_prompts_are_one_line(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one"}\nnothing\n')
    result = run("demo", "--prompts", str(path))
    assert result.exit_code == 2
    assert (result.stdout, result.stderr.count("\n")) == ("", 1)
    assert f"{path}, line 2: this is not JSON" in result.stderr


@pytest.mark.skipif(not MT_BENCH.exists(), reason="MT-bench is not beside the repository")
def test_mt_bench(run: Run, sandboxes: list[ArthurSandbox]) -> None:
    result = run("demo", "--prompts", str(MT_BENCH), "--pace", "1500", "--outage", "1")
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "captured 160 = delivered 160: nothing is missing."
    assert len({row["partner_inference_id"] for row in sandboxes[0].inferences}) == 160


def test_so_many_prompts_are_streamed_faster() -> None:
    with local_stage([("one",)] * 1000, None) as stage:
        assert isinstance(stage.model, DemoChatModel)
        tokens = 1000 * len(split_tokens(answer_to("one")))
        assert stage.model.delay_seconds * tokens == pytest.approx(25)
    with local_stage([("one",)], None) as stage:
        assert isinstance(stage.model, DemoChatModel)
        assert stage.model.delay_seconds == pytest.approx(1 / 30)


def test_an_environment_that_can_not_be_used(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VERIFY_SSL", "perhaps")
    result = run("demo")
    assert result.exit_code == 2
    assert "VERIFY_SSL can't be 'perhaps'" in result.stderr


def test_what_is_missing_is_told(
    run: Run, sandboxes: list[ArthurSandbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ArthurSandbox.come_back

    def refuse(self: ArthurSandbox) -> None:
        self.faults.fail_rows(every=1, status=400)
        original(self)

    monkeypatch.setattr(ArthurSandbox, "come_back", refuse)
    result = run("demo", *QUICK)
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert re.fullmatch(
        r"asked 12, captured 12, delivered \d+: \d+ missing \(\d+ rejected\)\.", last
    )


def test_an_interrupt_ends_it_without_a_traceback(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "_stream", interrupt)
    result = run("demo")
    assert result.exit_code == 130
    assert result.stderr == "arthur-relay: interrupted.\n"


def test_the_model_without_streaming_says_the_same() -> None:
    model = DemoChatModel()
    answer = model.invoke([HumanMessage(SCRIPT[0][0])])
    assert answer.content == SCRIPT[0][1]
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == len(split_tokens(SCRIPT[0][1]))
    assert answer.response_metadata["finish_reason"] == "stop"
    assert model._llm_type == "arthur-relay-demo"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_it_waits_for_enter(command: tuple[list[str], dict[str, str]]) -> None:
    arguments, environment = command
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*arguments, "demo", *QUICK],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"},
    )
    os.close(theirs)
    shown = b""
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and select.select([ours], [], [], 60)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end was closed
                break
            if not piece:
                break
            if b"Press Enter" in shown + piece and b"Press Enter" not in shown:
                assert process.poll() is None
                os.write(ours, b"\n")
            shown += piece
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert shown.decode().rstrip().endswith("captured 12 = delivered 12: nothing is missing.")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\", "", shown.decode())
    for name, value in {"captured": r"12", "pending": r"[1-9]\d*", "delivered": r"12"}.items():
        assert re.search(rf"\b{name} +{value} ", plain), name
    assert re.search(r"\bretries +[1-9]", plain)
    assert re.search(r"Arthur's page: http://127\.0\.0\.1:\d+/", plain)
    assert b"Traceback" not in shown


def test_enter_is_offered_and_ctrl_c_is_taken_for_it(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def interrupt(question: str) -> str:
        asked.append(question)
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "is_interactive", lambda: True)
    monkeypatch.setattr("builtins.input", interrupt)
    result = run("demo", *QUICK)
    assert result.exit_code == 0
    assert "the page stays at http://127.0.0.1:" in asked[0]
    assert result.output.count("nothing is missing") == 2


def test_a_demo_leaves_no_handler_behind(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[object] = []
    original = ArthurCallbackHandler.close

    def close(self: ArthurCallbackHandler, timeout: float | None = None) -> Any:
        closed.append(self)
        return original(self, timeout)

    monkeypatch.setattr(ArthurCallbackHandler, "close", close)
    run("demo", "--pace", "5000", "--outage", "0.5")
    assert len(closed) == 1
