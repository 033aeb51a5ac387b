"""Runs of many threads and tasks, ends that come twice or never, and parents that never come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from tests.destinations.engine.models import answer, chat
from tests.destinations.engine.stage import traced


@tool
def double(x: int) -> int:
    """Double a number."""
    return 2 * x


def test_a_handler_of_many_threads_keeps_traces_apart() -> None:
    def work(number: int) -> int:
        return int(double.invoke({"x": number}))

    def chain(number: int) -> int:
        return work(number)

    with traced() as stage:
        with ThreadPoolExecutor(16) as pool:
            runnable = RunnableLambda(chain)
            found = list(pool.map(lambda n: runnable.invoke(n, config=stage.config), range(400)))
        spans = stage.spans()
        stats = stage.relay.stats()
    assert found == [2 * number for number in range(400)]
    assert len(spans) == 800
    assert set(Counter(span.trace_id for span in spans).values()) == {2}
    assert (stats.unmatched_events, stats.capture_errors, stats.open_runs) == (0, 0, 0)


def test_sync_in_async_in_sync_is_one_tree() -> None:
    def inner(number: int) -> int:
        return int(double.invoke({"x": number}))

    async def middle(number: int) -> int:
        parts: Any = await asyncio.gather(
            *[RunnableLambda(inner).ainvoke(number) for _ in range(3)],
            chat(answer("Yes.")).ainvoke("Yes?"),
        )
        return int(sum(parts[:3]))

    def outer(number: int) -> int:
        return asyncio.run(RunnableLambda(inner, afunc=middle).ainvoke(number))

    with traced() as stage:
        assert RunnableLambda(outer).invoke(2, config=stage.config) == 12
        spans = stage.spans()
    assert len({span.trace_id for span in spans}) == 1
    assert [span.is_root for span in spans].count(True) == 1
    known = {span.span_id for span in spans}
    assert all(span.is_root or span.parent_id in known for span in spans)
    assert Counter(span.kind for span in spans) == {"CHAIN": 5, "TOOL": 3, "LLM": 1}


def test_an_end_that_comes_twice_or_from_two_threads_is_one_span() -> None:
    with traced() as stage:
        for _ in range(50):
            run_id = uuid4()
            stage.handler.on_chain_start({}, {"a": 1}, run_id=run_id)
            threads = [
                threading.Thread(
                    target=stage.handler.on_chain_end, args=({},), kwargs={"run_id": run_id}
                ),
                threading.Thread(
                    target=stage.handler.on_chain_error,
                    args=(ValueError("x"),),
                    kwargs={"run_id": run_id},
                ),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert len(stage.spans()) == 50
        assert stage.relay.stats().unmatched_events == 50


def test_a_parent_that_never_comes() -> None:
    with traced() as stage:
        parent = uuid4()
        for _ in range(3):
            run_id = uuid4()
            stage.handler.on_tool_start({"name": "t"}, "x", run_id=run_id, parent_run_id=parent)
            stage.handler.on_tool_end("y", run_id=run_id)
        spans = stage.spans()
    assert all(span.is_root for span in spans), "a span below nothing shows no input"


def test_children_that_end_after_their_parent() -> None:
    with traced() as stage:
        parent, child = uuid4(), uuid4()
        stage.handler.on_chain_start({}, {}, run_id=parent)
        stage.handler.on_tool_start({"name": "t"}, "x", run_id=child, parent_run_id=parent)
        stage.handler.on_chain_end({}, run_id=parent)
        stage.handler.on_tool_end("y", run_id=child)
        root, late = stage.spans()
    assert (late.trace_id, late.parent_id) == (root.trace_id, root.span_id)


def test_a_run_over_hours_has_its_times() -> None:
    with traced() as stage:
        run_id = uuid4()
        stage.handler.on_chain_start({}, {}, run_id=run_id)
        (run,) = stage.host.open_runs.runs()
        hours = 5 * 3600
        run.started_at -= hours
        run.began_at -= hours
        stage.handler.on_chain_end({}, run_id=run_id)
        span = stage.span()
    assert span.end - span.start >= hours * 1_000_000_000
    assert abs(span.end / 1e9 - time.time()) < 60


def test_a_run_that_is_its_own_parent_ends() -> None:
    with traced() as stage:
        run_id = uuid4()
        stage.handler.on_chain_start({}, {}, run_id=run_id, parent_run_id=run_id)
        stage.handler.on_chain_end({}, run_id=run_id)
        assert stage.span().is_root
