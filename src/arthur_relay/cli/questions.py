"""Asks Arthur a question from the command, once and within a time limit. Nothing is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import NoReturn, TypeVar

import anyio

from arthur_relay.credentials import Credentials
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.errors import RelayError
from arthur_relay.runtime.daemon_thread_executor import DaemonThreadExecutor
from arthur_relay.runtime.event_loop import RelayEventLoop
from arthur_relay.sentences import named, unreachable
from arthur_relay.settings import RelaySettings

EnteredT = TypeVar("EnteredT")
AnswerT = TypeVar("AnswerT")


def ask(
    destination: AbstractAsyncContextManager[EnteredT, None],
    question: Callable[[EnteredT], Awaitable[AnswerT]],
    *,
    url: str,
    seconds: float,
) -> AnswerT:
    """Ask a destination, once and for no longer than connecting at start-up may take.

    Args:
        destination: Is entered for the question, and left.
        question: Asks it.
        url: Its address, for the error.
        seconds: How long it may take.

    Raises:
        RelayError: Arthur can't be reached or refuses, or the time is over.
    """
    # As in the worker: asyncio's own look-up of names would outlast the deadline.
    resolver = DaemonThreadExecutor("arthur-relay-resolver")
    resolver.start()

    async def enter_and_ask() -> AnswerT:
        try:
            with anyio.fail_after(seconds):
                async with destination as entered:
                    return await question(entered)
        except TimeoutError:
            _too_late(url, seconds)

    loop = {"loop_factory": partial(RelayEventLoop, resolver)}
    try:
        return anyio.run(enter_and_ask, backend_options=loop)
    finally:
        resolver.stop()


def may_read_spans(
    credentials: Credentials, settings: RelaySettings, task_id: str | None = None
) -> bool | None:
    """Ask whether a key may read spans of the Engine; None when it did not say.

    Args:
        credentials: The Engine's address, and the key.
        settings: How it is asked.
        task_id: The task whose spans, or None for whatever task.
    """
    try:
        return ask(
            EngineDestination.of(credentials, settings),
            lambda engine: engine.may_read(task_id),
            url=credentials.url,
            seconds=settings.connect_timeout_seconds,
        )
    except RelayError:
        return None


def _too_late(url: str, seconds: float) -> NoReturn:
    limit = named("connect_timeout_seconds")
    problem = f"no answer within {seconds:g} s; the limit is {limit}"
    raise RelayError(unreachable(problem, url)) from None
