"""The ways to call a model, as functions of a model, a prompt and a config."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

Call = Callable[[Any, str, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way to call a model.

    Attributes:
        name: Its own.
        call: Calls; raises what the model raises.
        streamed: Whether the answer comes in pieces.
        chat: Whether only chat models have it.
        left: Whether the consumer goes away behind the last chunk, before the stream's end.
    """

    name: str
    call: Call
    streamed: bool = True
    chat: bool = False
    left: bool = False


TURNS = 3
"""Turns of the loop until it closes a generator that nobody has any more."""

TASKS_SECONDS = 10.0
"""How long that may take."""


def invoke(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Call for a whole answer."""
    model.invoke(prompt, config)


def ainvoke(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Call for a whole answer, on a loop."""
    _run(model, model.ainvoke(prompt, config))


def stream(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Read a stream to its end."""
    for _ in model.stream(prompt, config):
        pass


def astream(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Read a stream to its end, on a loop."""

    async def read() -> None:
        async for _ in model.astream(prompt, config):
            pass

    _run(model, read())


def v3(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Read the events of version 3 to their end."""
    for _ in model.stream_events(prompt, config, version="v3"):
        pass


def av3(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Read the events of version 3 to their end, on a loop."""

    async def read() -> None:
        events = await model.astream_events(prompt, config, version="v3")
        try:
            async for _ in events:
                pass
        finally:
            await events.aclose()  # its events end before its run does

    _run(model, read())


def left(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Read a stream's last chunk and go away, before the stream says that it has ended."""
    count = sum(1 for _ in model.stream(prompt))
    chunks = model.stream(prompt, config)
    for _ in range(count):
        next(chunks)
    chunks.close()


def aleft(model: Any, prompt: str, config: dict[str, Any]) -> None:
    """Read a stream's last chunk and go away, on a loop."""

    async def read() -> None:
        count = 0
        async for _ in model.astream(prompt):
            count += 1
        chunks = model.astream(prompt, config)
        for _ in range(count):
            await anext(chunks)
        await chunks.aclose()
        # Where a client wraps LangChain's generator, the loop closes that, in a task of its own.
        del chunks
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=TASKS_SECONDS)

    _run(model, read())


def _run(model: Any, call: Coroutine[Any, Any, Any]) -> None:
    """Run a call on a loop of its own, on which the model closes what it has opened there."""

    async def run() -> None:
        try:
            await call
        finally:
            if aclose := getattr(model, "aclose", None):
                await aclose()

    asyncio.run(run())


FORMS: Mapping[str, Form] = {
    form.name: form
    for form in (
        Form(name="invoke", call=invoke, streamed=False),
        Form(name="ainvoke", call=ainvoke, streamed=False),
        Form(name="stream", call=stream),
        Form(name="astream", call=astream),
        Form(name="v3", call=v3, chat=True),
        Form(name="av3", call=av3, chat=True),
        Form(name="left", call=left, left=True),
        Form(name="aleft", call=aleft, left=True),
    )
}
