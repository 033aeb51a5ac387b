"""The application of docs/hosts.md under ASGI servers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

from fastapi import FastAPI

from tests.hosts import hosted

page = import_module("asgi")
application: FastAPI = page.app
flushing = application.router.lifespan_context


@asynccontextmanager
async def lifespan(application: FastAPI) -> AsyncIterator[None]:
    """Flush at the end, and note what became of it: the signal then ends the process at once."""
    async with flushing(application):
        yield
    hosted.report()


application.router.lifespan_context = lifespan


@application.get("/log")
async def log() -> Any:
    """Log one inference."""
    assert await page.answer("prompt") == "answer"
    return {"pid": os.getpid()}
