"""What an application's runs are when they have arrived: whole traces, by real requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.runnables import RunnableLambda

from arthur_relay import ArthurCallbackHandler
from arthur_relay.capture.tracing import Tracing
from arthur_relay.inference import TraceScope
from arthur_relay.relay import host_of
from tests.destinations.engine.models import answer, chat

from .conftest import TASK

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay import Relay
    from arthur_relay.sandbox import ArthurSandbox


def test_a_chain_arrives_as_one_trace(
    sandbox: ArthurSandbox, make_relay: Callable[..., Relay]
) -> None:
    relay = make_relay(max_in_flight=1)  # so that spans arrive in the order of their capture
    host_of(relay).tracing = Tracing(TraceScope.FULL)
    handler = ArthurCallbackHandler(relay=relay, model_id=TASK)
    config: Any = {"callbacks": [handler], "metadata": {"session_id": "s-1", "path": {"/a": 1}}}
    step: Any = RunnableLambda(lambda given: {"messages": given, "files": {"/etc/x.py": "\x00"}})
    pick: Any = RunnableLambda(lambda given: given["messages"])
    (step | pick | chat(answer("Hello"))).invoke("Hello\x00", config=config)
    result = relay.flush(10)
    assert (result.delivered, result.rejected, result.pending) == (4, 0, 0)
    spans = sandbox.spans
    assert len({span["trace_id"] for span in spans}) == 1
    assert [span for span in spans if not span["parent_span_id"]] == spans[-1:]
