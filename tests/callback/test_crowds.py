"""Many calls at once: each arrives, once, with its own texts; and a handler that is disabled."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.language_models import FakeListChatModel

from arthur_relay import ArthurCallbackHandler, RelaySettings

from .calls import ASYNC, SYNC
from .provider import said

if TYPE_CHECKING:
    from .arthur import Arthur

STREAMS = 50
THREADS = 16
CALLS = 5


def check(arthur: Arthur, prompts: list[str]) -> None:
    rows = arthur.rows()
    assert len({row["partner_inference_id"] for row in rows}) == len(prompts)
    pairs = {
        row["inference_data"]["input_text"]: row["inference_data"]["output_text"] for row in rows
    }
    assert pairs == {f"Human: {prompt}": said(prompt) for prompt in prompts}
    assert {row["inference_data"]["outcome"] for row in rows} == {"ok"}
    stats = arthur.stats()
    assert stats.captured == len(prompts)
    assert stats.unmatched_events == stats.capture_errors == stats.open_runs == 0


@pytest.mark.anyio
async def test_concurrent_streams(arthur: Arthur, chat_openai: Any) -> None:
    model = chat_openai()
    prompts = [f"stream {number}" for number in range(STREAMS)]

    async def read(prompt: str) -> None:
        config = {"callbacks": [arthur.handler]}
        found = "".join([chunk.text async for chunk in model.astream(prompt, config)])
        assert found == said(prompt)

    await asyncio.gather(*map(read, prompts))
    check(arthur, prompts)


@pytest.mark.anyio
async def test_a_concurrent_batch(arthur: Arthur, chat_openai: Any) -> None:
    prompts = [f"item {number}" for number in range(STREAMS)]
    await ASYNC["abatch"](chat_openai(), prompts, arthur.handler)
    check(arthur, prompts)


@pytest.mark.parametrize("how", ["invoke", "stream"])
def test_threads(arthur: Arthur, chat_openai: Any, how: str) -> None:
    model = chat_openai()
    together = threading.Barrier(THREADS)

    def work(thread: int) -> None:
        together.wait(30)
        SYNC[how](model, [f"{thread} {number}" for number in range(CALLS)], arthur.handler)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    check(arthur, [f"{thread} {number}" for thread in range(THREADS) for number in range(CALLS)])


def test_a_handler_for_each_thread(arthur: Arthur, chat_openai: Any) -> None:
    model = chat_openai()

    def work(thread: int) -> None:
        SYNC["invoke"](model, [str(thread)], arthur.make_handler())

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))
    check(arthur, [str(thread) for thread in range(THREADS)])


class Spy(ArthurCallbackHandler):
    """Notes which events it gets."""

    seen: list[str]

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")

    def on_llm_start(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("start")

    def on_llm_new_token(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("token")

    def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("end")

    def on_llm_error(self, *args: Any, **kwargs: Any) -> None:
        self.seen.append("error")


@pytest.mark.anyio
async def test_a_disabled_handler(openai_llm: Any) -> None:
    threads = set(threading.enumerate())
    handler = Spy.from_credentials("no-model", settings=RelaySettings(disabled=True))
    handler.seen = []
    assert set(threading.enumerate()) <= threads  # an earlier test's may just have ended
    chat = FakeListChatModel(responses=["ok"])
    for model in (chat, openai_llm()):
        for call in SYNC.values():
            call(model, ["hi"], handler)
        for acall in ASYNC.values():
            await acall(model, ["hi"], handler)
    assert handler.seen == []
    assert not any(thread.name.startswith("arthur-relay") for thread in threading.enumerate())
    stats = handler.relay.stats()
    assert (stats.captured, stats.pending, stats.open_runs) == (0, 0, 0)
    assert handler.flush() == handler.close()
    assert handler.relay.health().status == "disabled"
