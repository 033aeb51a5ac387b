"""`arthur_relay.testing.memory_engine`: spans and feedback that users can look at."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from langchain_core.runnables import RunnableLambda

from arthur_relay import ArthurCallbackHandler, ConfigurationError, RelaySettings
from arthur_relay.destinations.engine import libraries
from arthur_relay.settings import Trace
from arthur_relay.testing import memory_engine

from .models import Documents, answer, chat


def test_spans_as_a_tree() -> None:
    relay, destination = memory_engine(task="shop")
    handler = ArthurCallbackHandler(relay=relay)
    first: Any = RunnableLambda(lambda found: found[0].page_content)
    chain = Documents() | first | chat(answer("Good"))
    with relay:
        chain.invoke("Ulm?", {"callbacks": [handler], "tags": ["a", "b"]})
    *others, root = destination.spans
    assert [each["kind"] for each in others] == ["RETRIEVER", "CHAIN", "LLM"]
    assert {each["parent"] for each in others} == {root["span_id"]}
    assert root["parent"] is None
    assert root["attributes"]["tag.tags"] == ["a", "b"]
    model = others[-1]
    assert model["attributes"]["llm.token_count.prompt"] == 5
    assert model["attributes"]["output.value"]
    assert {each["trace_id"] for each in destination.spans} == {root["trace_id"]}
    assert {each["task"] for each in destination.spans} == {"shop"}
    assert all(each["error"] is None and each["events"] == [] for each in destination.spans)


def test_a_failed_run() -> None:
    relay, destination = memory_engine()

    def fail(text: str) -> str:
        raise KeyError(text)

    handler = ArthurCallbackHandler(relay=relay)
    with relay, pytest.raises(KeyError):
        RunnableLambda(fail).invoke("absent", {"callbacks": [handler]})
    (span,) = destination.spans
    assert "absent" in span["error"]
    (event,) = span["events"]
    assert (event["name"], event["attributes"]["exception.type"]) == ("exception", "KeyError")


def test_llm_runs_alone() -> None:
    settings = RelaySettings(trace=Trace.LLM)
    relay, destination = memory_engine(settings=settings)
    with relay:
        handler = ArthurCallbackHandler(relay=relay)
        chain: Any = RunnableLambda(str.strip) | chat(answer("Good"))
        chain.invoke(" in ", {"callbacks": [handler]})
    (span,) = destination.spans
    assert (span["kind"], span["parent"]) == ("LLM", None)


def test_the_last_feedback_of_a_trace() -> None:
    relay, destination = memory_engine()
    run_id = uuid.uuid4()
    judged = {"trace_id": run_id.hex, "annotation_score": 1, "annotation_description": "helpful"}
    with relay:
        handler = ArthurCallbackHandler(relay=relay)
        chat(answer("Good")).invoke("in", {"callbacks": [handler], "run_id": run_id})
        handler.log_feedback(run_id, True, "helpful")
        relay.flush()
        assert destination.annotations == [judged]
        handler.log_feedback(run_id, False)
    (last,) = destination.annotations
    assert (last["annotation_score"], last["annotation_description"]) == (0, None)


def test_without_the_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "_NEEDED", ("none.at_all",))
    with pytest.raises(ConfigurationError, match=r"arthur-relay\[engine\]"):
        memory_engine()
