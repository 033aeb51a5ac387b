"""The hosted application under servers whose threads are greenlets: it uses asyncio.

One greenlet at a time does: they are in one thread, which has no more than one running loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from functools import cache
from typing import TYPE_CHECKING

from asgiref.sync import async_to_sync

from arthur_relay import ArthurCallbackHandler, RelaySettings
from arthur_relay.runtime.process_registry import registry
from tests.hosts import hosted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment


@cache
def turn() -> threading.Lock:
    """Return whose turn it is to use asyncio; made when all is patched."""
    return threading.Lock()


def use_asyncio() -> None:
    """Do with asyncio what works without a relay, and make another relay in a loop."""
    with turn():
        _use_asyncio()


def _use_asyncio() -> None:
    try:
        loop: object = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    assert loop is None, "the worker's loop runs in this thread"

    async def log() -> None:
        # Other settings each time, so that each is a relay of its own.
        settings = RelaySettings(batch_size=10 + len(registry().running()))
        other = ArthurCallbackHandler.from_env(settings=settings)
        await asyncio.sleep(0.001)  # so that the loop has waited for something
        with other:
            hosted.log()

    async_to_sync(asyncio.sleep)(0.001)
    asyncio.run(log())


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Log two inferences; `/slow` answers when nothing else has been asked for a while."""
    if environ["PATH_INFO"] == "/slow":
        for _ in range(20):
            threading.Event().wait(0.01)
    use_asyncio()
    hosted.log()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid()}).encode()]
