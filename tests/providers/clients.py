"""The real client classes of LangChain that are tried.

The packages are imported when a client is made, so that the table can be read without them.
"""

from __future__ import annotations

from typing import Any

from .client import ASKED_FOR, KEY, LIKELIHOODS, Client, but
from .native_clients import NATIVE_CLIENTS
from .wire import chat_completions


def _chat_openai(url: str, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        model=ASKED_FOR,
        base_url=f"{url}/v1",
        api_key=KEY,  # type: ignore[arg-type]  # pydantic makes a secret of it
        max_retries=0,
        stream_usage=True,
        # The time limit between chunks is kept with `asyncio.wait_for`, which loses cancellations
        # on Python 3.11 when they meet a chunk.
        stream_chunk_timeout=None,
        **options,
    )


CLIENTS: tuple[Client, ...] = (
    Client(
        name="ChatOpenAI, Chat Completions",
        package="langchain-openai",
        make=_chat_openai,
        wire=chat_completions.OPENAI,
        provider="openai",
        answers=but("reasoning"),
        options=LIKELIHOODS,
    ),
    *NATIVE_CLIENTS,
)
