"""The demo itself: prepares it, streams the conversations, and reports how it ended."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from rich.console import Console

from arthur_relay.cli import INTERRUPTED, fail, is_interactive
from arthur_relay.cli.demo.recording import Recording, Verdict, judge, pace_table, story
from arthur_relay.cli.demo.screen import PlainView, ScreenView, View, logging_to
from arthur_relay.cli.demo.script import (
    Conversation,
    PromptsError,
    conversation,
    read_conversations,
)
from arthur_relay.cli.demo.stage import Outage, Stage, local_stage, real_stage

LIVE_TURNS: Final = 4
"""Of the built-in conversation, with a model that costs money."""

FLUSH_SECONDS: Final = 20.0


def run_demo(
    *, prompts: Path | None, live: bool, outage_seconds: float, tokens_per_second: float | None
) -> None:
    """Run the demo, and print as the last line whether anything is missing.

    Raises:
        typer.Exit: With 1 when something is missing or can't be used, 2 when something is not
            installed, 130 when it was interrupted.
    """
    conversations = _conversations(prompts, live=live)
    stage = real_stage() if live else local_stage(conversations, tokens_per_second)
    try:
        with stage as ready:
            verdict = _play(ready, conversations, outage_seconds)
    except KeyboardInterrupt:
        fail(INTERRUPTED, code=130)
    print(verdict.line, flush=True)
    if not verdict.is_complete:
        raise typer.Exit(1)


def _conversations(prompts: Path | None, *, live: bool) -> list[Conversation]:
    if prompts is None:
        return [conversation()[:LIVE_TURNS] if live else conversation()]
    try:
        return read_conversations(prompts)
    except PromptsError as error:
        fail(str(error), code=2)


def _play(stage: Stage, conversations: Sequence[Conversation], outage_seconds: float) -> Verdict:
    """Stream everything, show it, and wait until it is settled."""
    console = Console(highlight=False)
    relay = stage.handler.relay
    recording = Recording()
    turns = sum(map(len, conversations))
    with contextlib.ExitStack() as stack:
        view = _view(console, stage, recording, turns)
        stack.enter_context(view)
        stack.enter_context(logging_to(view))
        outage = None
        if stage.sandbox is None:
            view.note(f"Arthur at {stage.arthur_url} is the real one: it is not taken away.")
        else:
            outage = Outage(stage.sandbox, recording, view, seconds=outage_seconds)
            stack.enter_context(outage)
        stack.enter_context(recording.sampling(relay))
        answers = _stream(stage, conversations, recording, view, outage)
        if outage is not None:
            outage.wait()
        relay.flush(FLUSH_SECONDS)
    stats = relay.stats()
    stored = None if stage.sandbox is None else len(stage.sandbox.inferences)
    verdict = judge(stats, answers=answers, turns=turns, stored=stored)
    console.print()
    console.print(pace_table(recording))
    if (text := story(recording, stats)) is not None:
        console.print()
        console.print(text)
    if stage.sandbox is not None and is_interactive():
        console.print(verdict.line, style="bold green" if verdict.is_complete else "bold red")
        _wait_for_enter(f"Press Enter to end; the page stays at {stage.sandbox.url}/ until then. ")
    return verdict


def _view(console: Console, stage: Stage, recording: Recording, turns: int) -> View:
    if console.is_terminal and sys.stdout.isatty() and not console.is_dumb_terminal:
        return ScreenView(console, stage, recording, turns)
    print(f"Streaming {turns} answers of {stage.who}; Arthur is at {stage.arthur_url}/", flush=True)
    return PlainView(turns)


def _stream(
    stage: Stage,
    conversations: Sequence[Conversation],
    recording: Recording,
    view: View,
    outage: Outage | None,
) -> int:
    """Stream one conversation after the other; Arthur goes away a third of the way.

    Returns:
        How many turns were asked; a model that fails at one leaves the others out.
    """
    away_from = sum(map(len, conversations)) // 3 + 1
    number = 0
    for index, turns in enumerate(conversations, start=1):
        history: list[BaseMessage] = []
        tags = ["demo", f"conversation-{index}"]
        for prompt in turns:
            number += 1
            history.append(HumanMessage(prompt))
            view.asked(number, prompt)
            answer, tokens, began_at = "", 0, time.perf_counter()
            try:
                for text in _texts(stage, history, tags):
                    recording.token()
                    view.token(text)
                    answer += text
                    tokens += 1
                    if outage is not None and number == away_from:
                        outage.begin()
            except Exception as error:  # noqa: BLE001 - a provider's own; its text may hold a key
                view.note(f"the model failed: {type(error).__name__}")
                return number
            history.append(AIMessage(answer))
            seconds = time.perf_counter() - began_at
            view.answered(stage.handler.relay.stats(), tokens / seconds)
    return number


def _texts(stage: Stage, history: list[BaseMessage], tags: list[str]) -> Iterator[str]:
    """Yield the pieces of the model's answer as they come: as an application would, and no more."""
    config: Any = {
        "callbacks": [stage.handler],
        "tags": tags,
        "metadata": {"user_id": "demo-user"},
    }
    for chunk in stage.model.stream(history, config=config):
        if isinstance(chunk.content, str) and chunk.content:
            yield chunk.content


def _wait_for_enter(question: str) -> None:
    # Ctrl-C and the end of the input are answers too.
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        input(question)
