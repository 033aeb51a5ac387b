"""What the LangChain tests share: a provider for the whole run, and a sandbox for each test."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from langchain_openai import ChatOpenAI, OpenAI

from .arthur import Arthur
from .provider import MODEL, Provider

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Make = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # LangChain knows no other


@pytest.fixture(scope="session")
def running_provider() -> Iterator[Provider]:
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: Provider) -> Iterator[Provider]:
    running_provider.forget()
    yield running_provider
    running_provider.forget()


@pytest.fixture
def make_arthur() -> Iterator[Callable[..., Arthur]]:
    with ExitStack() as stack:
        yield lambda *args, **settings: stack.enter_context(Arthur(*args, **settings))


@pytest.fixture
def arthur(make_arthur: Callable[..., Arthur]) -> Arthur:
    return make_arthur()


@pytest.fixture
def chat_openai(provider: Provider) -> Make:
    """Makes a real `ChatOpenAI` that speaks to the provider."""

    def make(**fields: Any) -> ChatOpenAI:
        # The time limit between chunks is kept with `asyncio.wait_for`, which loses cancellations
        # on Python 3.11 when they meet a chunk.
        return ChatOpenAI(**_common(provider) | {"stream_chunk_timeout": None} | fields)

    return make


@pytest.fixture
def openai_llm(provider: Provider) -> Make:
    """Makes a real `OpenAI`, the completion model."""

    def make(**fields: Any) -> OpenAI:
        return OpenAI(**_common(provider) | fields)

    return make


def _common(provider: Provider) -> dict[str, Any]:
    return {"model": MODEL, "base_url": provider.url, "api_key": "x", "max_retries": 0}
