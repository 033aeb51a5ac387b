"""Runs that are cancelled, that nobody listens to any more, or that never end."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
from anyio import to_thread
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel
from langchain_core.rate_limiters import BaseRateLimiter

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.testing import MemoryDestination

from .provider import Reply, pieces, said

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay.row import Attempt, Batch

    from .arthur import Arthur
    from .provider import Provider

    Make = Callable[..., Any]

PARTIAL = "".join(pieces(said("hi"))[:2])


@pytest.fixture(params=["chat_openai", "openai_llm"])
def make(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


class Ended(BaseCallbackHandler):
    """Tells when LangChain has ended a run with an error."""

    run_inline = True

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self.event.set()


def text_of(chunk: Any) -> str:
    return chunk if isinstance(chunk, str) else chunk.text


def is_over(chunk: Any) -> bool:
    return bool(chunk.response_metadata.get("finish_reason"))


def check_complete(arthur: Arthur) -> None:
    row = arthur.only()
    assert row["outcome"] == "ok"
    assert row["output_text"] == said("hi")
    assert row["finish_reason"] == "stop"
    assert "error" not in row


async def cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.anyio
@pytest.mark.parametrize(("after", "text"), [(0, ""), (2, PARTIAL)])
async def test_a_stream_is_cancelled(
    arthur: Arthur, make: Make, provider: Provider, after: int, text: str
) -> None:
    provider.default = Reply(hold_after=after)
    stream = make().astream("hi", {"callbacks": [arthur.handler]})
    found = ""
    while found != text:
        found += text_of(await anext(stream))
    waiting: asyncio.Future[Any] = asyncio.ensure_future(read_on(stream))
    await to_thread.run_sync(provider.held.wait)
    await cancel(waiting)
    row = arthur.only()
    assert row["outcome"] == "cancelled"
    assert row["output_text"] == text
    assert row["error"] == "CancelledError"
    assert ("time_to_first_token" in row) == bool(text)


async def read_on(stream: Any) -> None:
    async for _ in stream:
        pass


# The collector may close the forgotten stream's socket, the provider client's own, and say so.
@pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["close", "forget"])
def test_the_consumer_leaves(arthur: Arthur, make: Make, provider: Provider, how: str) -> None:
    provider.default = Reply(hold_after=2)
    stream = make().stream("hi", {"callbacks": [arthur.handler]})
    found = ""
    for chunk in stream:
        found += text_of(chunk)
        if found == PARTIAL:
            break
    if how == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    row = arthur.only()
    assert row["outcome"] == "disconnected"
    assert row["output_text"] == PARTIAL
    assert row["error"] == "GeneratorExit"


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["close", "late"])
async def test_the_async_consumer_leaves(
    arthur: Arthur, make: Make, provider: Provider, how: str
) -> None:
    provider.default = Reply(hold_after=2)
    ended = Ended()
    stream = make().astream("hi", {"callbacks": [arthur.handler, ended]})
    found = ""
    async for chunk in stream:
        found += text_of(chunk)
        if found == PARTIAL:
            break
    if how == "close":
        await stream.aclose()
    else:  # the generator is finalised when the loop gets to it
        assert arthur.stats().open_runs == 1
        del stream
        gc.collect()
        await ended.event.wait()
    row = arthur.only()
    assert row["outcome"] == "disconnected"
    assert row["output_text"] == PARTIAL


def test_a_stream_of_a_fake_is_closed(arthur: Arthur) -> None:
    stream: Any = FakeListChatModel(responses=["abc"]).stream("hi", {"callbacks": [arthur.handler]})
    assert next(stream).text == "a"
    stream.close()
    row = arthur.only()
    assert (row["outcome"], row["output_text"]) == ("disconnected", "a")


def test_a_stream_is_closed_at_its_end(
    arthur: Arthur, chat_openai: Make, provider: Provider
) -> None:
    provider.default = Reply(hold_at_end=True)
    stream = chat_openai(stream_usage=True).stream("hi", {"callbacks": [arthur.handler]})
    while not is_over(next(stream)):
        pass
    stream.close()
    check_complete(arthur)


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["close", "cancel"])
async def test_an_async_stream_is_left_at_its_end(
    arthur: Arthur, chat_openai: Make, provider: Provider, how: str
) -> None:
    provider.default = Reply(hold_at_end=True)
    stream = chat_openai(stream_usage=True).astream("hi", {"callbacks": [arthur.handler]})
    while not is_over(await anext(stream)):
        pass
    if how == "close":
        await stream.aclose()
    else:
        waiting: asyncio.Future[Any] = asyncio.ensure_future(anext(stream))
        await to_thread.run_sync(provider.held.wait)
        await cancel(waiting)
    check_complete(arthur)


async def cancel_ainvoke(model: Any, prompt: str, handler: Any, provider: Provider) -> None:
    """Leaves a run behind that never ends."""
    provider.default = Reply(hold_after=0)
    provider.held.clear()
    task = asyncio.create_task(model.ainvoke(prompt, {"callbacks": [handler]}))
    await to_thread.run_sync(provider.held.wait)
    await cancel(task)


@pytest.mark.anyio
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_ainvoke_is_abandoned_at_the_close(
    arthur: Arthur, chat_openai: Make, provider: Provider, streaming: bool
) -> None:
    await cancel_ainvoke(chat_openai(streaming=streaming), "hi", arthur.handler, provider)
    assert arthur.rows() == []
    assert arthur.stats().open_runs == 1
    arthur.handler.relay.close()
    row = arthur.only()
    assert row["outcome"] == "abandoned"
    assert row["input_text"] == "Human: hi"
    assert row["output_text"] == ""
    assert "duration" not in row
    assert arthur.stats().abandoned == 1
    assert arthur.stats().open_runs == 0


@pytest.mark.anyio
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_cancelled_ainvoke_of_a_completion_model(
    arthur: Arthur, openai_llm: Make, provider: Provider, streaming: bool
) -> None:
    await cancel_ainvoke(openai_llm(streaming=streaming), "hi", arthur.handler, provider)
    row = arthur.only()  # these do get an end event
    assert (row["outcome"], row["input_text"]) == ("cancelled", "hi")


class Turnstile(BaseRateLimiter):
    """Lets nobody in."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    def acquire(self, *, blocking: bool = True) -> bool:
        return False

    async def aacquire(self, *, blocking: bool = True) -> bool:
        self.reached.set()
        await asyncio.Event().wait()
        return True


@pytest.mark.anyio
async def test_a_run_cancelled_at_its_rate_limiter(arthur: Arthur) -> None:
    limiter = Turnstile()
    model = FakeListChatModel(responses=["ok"], rate_limiter=limiter)
    stream = model.astream("hi", {"callbacks": [arthur.handler]})
    waiting: asyncio.Future[Any] = asyncio.ensure_future(read_on(stream))
    await limiter.reached.wait()
    await cancel(waiting)
    assert arthur.stats().open_runs == 1
    arthur.handler.relay.close()
    assert arthur.only()["outcome"] == "abandoned"


@pytest.mark.anyio
async def test_too_many_open_runs(make_arthur: Make, chat_openai: Make, provider: Provider) -> None:
    arthur: Arthur = make_arthur(max_open_runs=2)
    model = chat_openai()
    for prompt in ("oldest", "older", "old"):
        await cancel_ainvoke(model, prompt, arthur.handler, provider)
    row = arthur.only()
    assert row["outcome"] == "abandoned"
    assert row["input_text"] == "Human: oldest"
    provider.default = Reply()
    await model.ainvoke("new", {"callbacks": [arthur.handler]})
    inputs = [(each["input_text"], each["outcome"]) for each in arthur.data()]
    assert inputs == [
        ("Human: oldest", "abandoned"),
        ("Human: older", "abandoned"),
        ("Human: new", "ok"),
    ]
    assert arthur.stats().open_runs == 1


class Doorbell(MemoryDestination):
    """Rings when something was delivered."""

    def __init__(self) -> None:
        super().__init__()
        self.rung = threading.Event()

    async def deliver(self, batch: Batch) -> Attempt:
        attempt = await super().deliver(batch)
        self.rung.set()
        return attempt


@pytest.mark.anyio
async def test_a_run_that_is_too_old(
    chat_openai: Make, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.worker.worker.SWEEP_SECONDS", 0.01)
    destination = Doorbell()
    settings = RelaySettings(run_max_age_seconds=0.05, flush_interval_seconds=0.01)
    with Relay(destination, model_id="model", settings=settings) as relay:
        handler = ArthurCallbackHandler(relay=relay)
        await cancel_ainvoke(chat_openai(), "hi", handler, provider)
        assert await to_thread.run_sync(destination.rung.wait, 30)
        (row,) = destination.inferences
        assert row["inference_data"]["outcome"] == "abandoned"
        assert row["inference_data"]["input_text"] == "Human: hi"
        assert relay.flush(30).pending == 0
        stats = relay.stats()
        assert (stats.captured, stats.delivered) == (1, 1)
        assert (stats.abandoned, stats.open_runs) == (1, 0)


def test_an_end_that_comes_after_the_run_was_given_up(make_arthur: Make) -> None:
    arthur: Arthur = make_arthur(max_open_runs=1)
    config: Any = {"callbacks": [arthur.handler]}
    first: Any = FakeListChatModel(responses=["abc"]).stream("first", config)
    assert next(first).text == "a"
    FakeListChatModel(responses=["xyz"]).invoke("second", config)
    assert "".join(chunk.text for chunk in first) == "bc"
    assert [row["outcome"] for row in arthur.data()] == ["abandoned", "ok"]
    assert arthur.stats().unmatched_events == 1
