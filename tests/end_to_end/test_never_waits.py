"""The caller never waits: whatever Arthur does, calls end while it still does it.

No time is measured: the server stays broken until all calls have ended, so a call that waited for
it would never end. blockbuster makes any blocking call on the event loop's thread an error.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage

from arthur_relay import ArthurCallbackHandler, Inference
from tests.end_to_end.conftest import check_invariant, posts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox

CALLS = 50


def break_it(how: str, sandbox: ArthurSandbox) -> None:
    match how:
        case "hanging":
            sandbox.faults.hang()
        case "slow":
            sandbox.faults.slow(0.5)
        case "answering 503":
            sandbox.faults.status(503, times=None)
        case "refusing":
            sandbox.go_away()


def mend_it(how: str, sandbox: ArthurSandbox) -> None:
    sandbox.faults.reset()
    if how == "refusing":
        sandbox.come_back()


@contextmanager
def blocking_is_an_error() -> Iterator[None]:
    with blockbuster_ctx() as blockbuster:
        # Where coverage is measured, its tracer takes a lock of its own on whatever thread it is.
        lock = blockbuster.functions["threading.Lock.acquire"]
        lock.can_block_in("coverage/collector.py", "lock_data")
        yield


@pytest.mark.parametrize("how", ["up", "slow", "hanging", "answering 503", "refusing"])
def test_calls_end_whatever_arthur_does(
    how: str, sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(request_timeout_seconds=1.0)
    handler = ArthurCallbackHandler(relay=relay)
    break_it(how, sandbox)

    def model() -> GenericFakeChatModel:
        answers = iter([AIMessage("one two three")] * CALLS)
        return GenericFakeChatModel(messages=answers, callbacks=[handler])

    async def stream(llm: GenericFakeChatModel) -> None:
        async for _ in llm.astream("prompt"):
            pass

    async def many() -> None:
        llm = model()
        await asyncio.gather(*(stream(llm) for _ in range(CALLS)))

    llm = model()
    for _ in range(CALLS):
        llm.invoke("prompt")
        relay.capture(Inference(input_text="prompt", output_text="answer"))
    with blocking_is_an_error():
        asyncio.run(many())
    assert relay.stats().captured == 3 * CALLS
    mend_it(how, sandbox)
    assert relay.flush(60).pending == 0
    stats = relay.stats()
    assert stats.delivered == 3 * CALLS
    check_invariant(relay, sandbox)


def test_sync_calls_end_before_any_answer_is_given(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    """Nothing but the test can end a request, so a call that waited for one would never end."""
    relay = make_relay(request_timeout_seconds=3600.0, max_in_flight=1, flush_interval_seconds=0.0)
    handler = ArthurCallbackHandler(relay=relay)
    sandbox.faults.hang()
    answers = iter([AIMessage("one two three")] * 2 * CALLS)
    llm = GenericFakeChatModel(messages=answers, callbacks=[handler])
    for _ in range(CALLS):
        llm.invoke("prompt")
        for _ in llm.stream("prompt"):
            pass
        relay.capture(Inference(input_text="prompt", output_text="answer"))
    stats = relay.stats()
    assert (stats.captured, stats.pending, stats.delivered) == (3 * CALLS, 3 * CALLS, 0)
    assert (stats.retries, stats.dropped, stats.rejected) == (0, {}, 0)
    assert relay.flush(0.01).timed_out
    assert posts(sandbox) <= 1  # the one that hangs
    sandbox.faults.reset()
    assert relay.flush(60).delivered == 3 * CALLS
    assert relay.stats().retries == 0
    assert sandbox.duplicates == 0
    check_invariant(relay, sandbox)


def test_the_relays_own_loop_never_blocks(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    # Users run blockbuster over their tests; the relay's worker has a loop too.
    relay = make_relay()
    relay.connect(sandbox.model_id)
    with blocking_is_an_error():
        for _ in range(100):
            relay.capture(Inference(input_text="prompt", output_text="answer"))
        assert relay.flush(30).delivered == 100
    assert relay.stats().worker_restarts == 0
