"""The hosted application under ASGI servers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

import arthur_relay
from tests.hosts import hosted


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Flush at the end, and note what became of it: the signal then ends the process at once."""
    async with arthur_relay.lifespan(hosted.handler)(application):
        yield
    hosted.report()


application = FastAPI(lifespan=lifespan)


@application.get("/log")
async def log() -> Any:
    """Log one inference."""
    return hosted.log()
