"""The guide that users follow, word for word: each answer of a chat is one inference."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.callbacks import StreamingStdOutCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, get_buffer_string
from langchain_openai import ChatOpenAI

from arthur_relay import ArthurCallbackHandler, CredentialsError
from arthur_relay.sandbox import ArthurSandbox
from tests.environment import forget_arthur
from tests.readme import example

from .provider import said

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from .provider import Provider

QUESTIONS = ["What is a callback?", "And what is a relay?"]
PROMPT = b"Please enter password for admin: "
ASKED = b">>> input >>>\r\n>>>: "


@pytest.fixture
def environment(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the provider is, and nothing about Arthur."""
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("OPENAI_API_BASE", provider.url)
    monkeypatch.setenv("OPENAI_BASE_URL", provider.url)
    forget_arthur(monkeypatch)


def histories() -> list[str]:
    """The input text of each turn."""
    history: list[BaseMessage] = []
    texts = []
    for question in QUESTIONS:
        history.append(HumanMessage(question))
        texts.append(get_buffer_string(history))
        history.append(AIMessage(said(question)))
    return texts


def check(sandbox: ArthurSandbox) -> None:
    rows = [row["inference_data"] for row in sandbox.inferences]
    assert [row["input_text"] for row in rows] == histories()
    assert [row["output_text"] for row in rows] == [said(question) for question in QUESTIONS]
    for row in rows:
        assert row["outcome"] == "ok"
        assert row["finish_reason"] == "stop"
        assert row["time_to_first_token"] <= row["duration"]
    assert len({row["partner_inference_id"] for row in sandbox.inferences}) == len(QUESTIONS)


@pytest.mark.usefixtures("environment")
def test_the_guides_program_in_a_terminal(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    """As it is written there, with the three names that it leaves to its reader before it."""
    program = tmp_path / "chat.py"
    program.write_text(
        f"arthur_model_id = {sandbox.model_id!r}\n"
        f"arthur_url = {sandbox.url!r}\n"
        f"arthur_login = {sandbox.login!r}\n" + example("guide", "docs/migration.md"),
        encoding="utf-8",
    )
    user, terminal = pty.openpty()
    shown = b""
    try:
        process = subprocess.Popen(
            [sys.executable, str(program)],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,  # so that it asks at this terminal, not at the tests' own
        )
        os.close(terminal)
        with process:
            try:
                for number, line in enumerate([sandbox.password, *QUESTIONS, "q"]):
                    while PROMPT not in shown or shown.count(ASKED) < number:
                        shown += os.read(user, 4096)
                    os.write(user, f"{line}\n".encode())
                with suppress(OSError):  # how the end of a terminal is told
                    while more := os.read(user, 4096):
                        shown += more
                assert process.wait(60) == 0, shown.decode()
            finally:
                process.kill()
    finally:
        os.close(user)
    assert sandbox.password.encode() not in shown.replace(sandbox.url.encode(), b"")
    assert b"Traceback" not in shown
    for question in QUESTIONS:
        assert said(question).encode() in shown
    check(sandbox)


@pytest.mark.usefixtures("environment")
def test_with_the_password_in_the_environment(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ARTHUR_PASSWORD", sandbox.password)
    handler = ArthurCallbackHandler.from_credentials(
        sandbox.model_id, arthur_url=sandbox.url, arthur_login=sandbox.login
    )
    with handler:
        chat = ChatOpenAI(
            streaming=True,
            temperature=0.1,
            callbacks=[StreamingStdOutCallbackHandler(), handler],
        )
        history: list[BaseMessage] = []
        for question in QUESTIONS:
            history.append(HumanMessage(content=question))
            history.append(chat.invoke(history))
    assert capsys.readouterr().out == "".join(map(said, QUESTIONS))
    check(sandbox)
    assert handler.relay.stats().delivered == len(QUESTIONS)


@pytest.mark.usefixtures("environment")
def test_without_a_terminal_to_ask_at(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        with pytest.raises(CredentialsError, match="ARTHUR_PASSWORD"):
            ArthurCallbackHandler.from_credentials(
                sandbox.model_id, arthur_url=sandbox.url, arthur_login=sandbox.login
            )


@pytest.mark.usefixtures("environment")
def test_the_readmes_example(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_PASSWORD", sandbox.password)
    code = example("scope").replace('"admin"', f"{sandbox.login!r}, arthur_url={sandbox.url!r}")
    names: dict[str, Any] = {"model_id": sandbox.model_id, "run_id": uuid.uuid4()}
    exec(compile(code, "README.md", "exec"), names)
    names["handler"].relay.close()
    (row,) = sandbox.inferences
    assert row["partner_inference_id"] == str(names["run_id"])
    assert row["inference_data"]["output_text"] == names["answer"].content
    assert row["ground_truth_data"] == {"thumbs_up": True}
