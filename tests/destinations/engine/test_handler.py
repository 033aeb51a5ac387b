"""What a user does: a handler for Arthur Engine, an agent, and feedback on its answer."""

from __future__ import annotations

import re
import sys
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool

from arthur_relay import (
    ArthurCallbackHandler,
    ConfigurationError,
    CredentialsError,
    ModelError,
    Relay,
    RelaySettings,
)
from arthur_relay.settings import Trace
from tests.destinations.engine.models import answer, call, chat
from tests.readme import example

from .conftest import QUICK, TASK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from arthur_relay.sandbox import ArthurSandbox


@pytest.fixture
def make_handler(sandbox: ArthurSandbox) -> Iterator[Callable[..., ArthurCallbackHandler]]:
    """Return a function that makes handlers for the sandbox; their relays are closed at the end."""
    made: list[ArthurCallbackHandler] = []

    def make(task: str | None = None, **given: Any) -> ArthurCallbackHandler:
        settings = RelaySettings(**{**QUICK, **given.pop("options", {})})
        arguments = {"base_url": sandbox.url, "api_key": sandbox.api_key, **given}
        made.append(ArthurCallbackHandler.from_engine(task, settings=settings, **arguments))
        return made[-1]

    yield make
    for handler in made:
        handler.relay.close(5)


@tool
def weather(city: str) -> str:
    """Say how the weather is."""
    return f"sunny in {city}"


def agent(*answers: Any) -> Any:
    prebuilt = pytest.importorskip("langgraph.prebuilt", reason="needs LangGraph")
    return prebuilt.create_react_agent(chat(*answers), [weather])


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = span["raw_data"]["attributes"]
    return found


def config(handler: ArthurCallbackHandler, **more: Any) -> Any:
    return {"callbacks": [handler], **more}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_agent_and_feedback(
    sandbox: ArthurSandbox, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler(task_id=TASK)
    run_id = uuid.uuid4()
    found = agent(call("weather", city="Ulm"), answer("It is sunny.")).invoke(
        {"messages": [HumanMessage("How is the weather in Ulm?")]},
        config(
            handler, run_id=run_id, metadata={"session_id": "s1", "user_id": "u1"}, tags=["demo"]
        ),
    )
    assert found["messages"][-1].content == "It is sunny."
    handler.log_feedback(run_id, True, "helpful")
    result = handler.flush(10)
    assert not result.timed_out
    assert result.rejected == 0
    spans = {each["span_id"]: each for each in sandbox.spans}
    assert {each["trace_id"] for each in spans.values()} == {run_id.hex}
    (root,) = [each for each in spans.values() if not each.get("parent_span_id")]
    assert root["span_id"] == run_id.hex[16:]
    kinds = [attributes(each)["openinference.span.kind"] for each in spans.values()]
    assert (kinds.count("LLM"), kinds.count("TOOL")) == (2, 1)
    for each in spans.values():
        assert attributes(each)["session.id"] == "s1"
        assert attributes(each)["user.id"] == "u1"
        if each is not root:
            assert each["parent_span_id"] in spans
    (judged,) = sandbox.annotations
    assert judged["trace_id"] == run_id.hex
    assert (judged["annotation_score"], judged["annotation_description"]) == (1, "helpful")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_readmes_example(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTHUR_BASE_URL", sandbox.url)
    monkeypatch.setenv("ARTHUR_API_KEY", sandbox.api_key)
    run_id = uuid.uuid4()
    names: dict[str, Any] = {
        "agent": agent(call("weather", city="Ulm"), answer("It is sunny.")),
        "run_id": run_id,
    }
    exec(example("engine"), names)
    names["handler"].relay.close(10)
    (trace,) = sandbox.traces
    assert (trace["trace_id"], trace["session_id"], trace["user_id"]) == (run_id.hex, "s1", "u1")
    (judged,) = sandbox.annotations
    assert judged["annotation_description"] == "helpful"


# By langchain-core 0.3.0, which reads a prompt's fields so when it is run.
@pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute")
def test_the_guides_examples(
    sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in sandbox.engine_environment().items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {}
    exec(example("trial", "docs/engine.md"), names)
    assert "delivered=4, rejected=0, dropped={}, pending=0" in capsys.readouterr().out
    (trace,) = sandbox.traces
    assert trace["trace_id"] == names["run_id"].hex
    assert (trace["session_id"], trace["user_id"], trace["span_count"]) == ("s1", "u1", 3)
    assert sandbox.annotations[0]["annotation_description"] == "helpful"
    exec(example("feedback", "docs/engine.md"), names)
    names["handler"].relay.close(10)
    monkeypatch.delenv("ARTHUR_TASK_ID")
    exec(example("handler", "docs/engine.md"), names)
    names["handler"].relay.close(10)
    assert {span["task_id"] for span in sandbox.spans} == {sandbox.task_id}


def test_what_is_kept_does_not_shrink_once_the_task_is_known(
    sandbox: ArthurSandbox, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler(TASK)
    for _ in range(2):
        chat(answer("Good.")).invoke(
            "How are you?", config(handler, metadata={"color": "blue", "session_id": "s1"})
        )
        handler.flush(10)
    first, second = [attributes(each) for each in sandbox.spans]
    assert first.keys() == second.keys()
    assert '"color"' in second["metadata"]


def test_llm_runs_alone(
    sandbox: ArthurSandbox, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler(TASK, options={"trace": Trace.LLM})
    chain: Any = RunnableLambda(lambda text: [HumanMessage(text)]) | chat(answer("Good."))
    chain.invoke("How are you?", config(handler))
    handler.flush(10)
    (span,) = sandbox.spans
    assert not span.get("parent_span_id")
    assert attributes(span)["openinference.span.kind"] == "LLM"


def test_feedback_of_a_run_within_a_trace_goes_to_the_trace(
    sandbox: ArthurSandbox, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler(TASK)
    inner: list[uuid.UUID] = []

    def step(text: str, config: RunnableConfig) -> str:
        model = chat(answer("Good."))
        inner.append(uuid.uuid4())
        said = model.invoke(text, {**config, "run_id": inner[-1]})
        handler.log_feedback(inner[-1], False)  # its trace is still open
        return str(said.content)

    run_id = uuid.uuid4()
    RunnableLambda(step).invoke("How are you?", config(handler, run_id=run_id))
    handler.flush(10)
    (judged,) = sandbox.annotations
    assert (judged["trace_id"], judged["annotation_score"]) == (run_id.hex, 0)
    handler.log_feedback(str(inner[0]), True)
    handler.flush(10)
    (judged,) = sandbox.annotations
    assert (judged["trace_id"], judged["annotation_score"]) == (run_id.hex, 1)


@pytest.mark.parametrize("truth", [{"liked": True}, {"good": 1}], ids=["boolean", "number"])
def test_ground_truth_that_is_one_judgement(
    truth: dict[str, Any],
    sandbox: ArthurSandbox,
    make_handler: Callable[..., ArthurCallbackHandler],
) -> None:
    handler = make_handler(TASK)
    run_id = uuid.uuid4()
    chat(answer("Good.")).invoke("How are you?", config(handler, run_id=run_id))
    handler.log_ground_truth(run_id, truth)
    handler.flush(10)
    (judged,) = sandbox.annotations
    assert (judged["trace_id"], judged["annotation_score"]) == (run_id.hex, 1)


@pytest.mark.parametrize("truth", [{"rating": 4}, {"a": True, "b": True}, {"liked": "yes"}])
def test_ground_truth_that_is_no_judgement_is_rejected(
    truth: dict[str, Any],
    sandbox: ArthurSandbox,
    make_handler: Callable[..., ArthurCallbackHandler],
) -> None:
    handler = make_handler(TASK)
    handler.log_ground_truth(uuid.uuid4(), truth)
    assert handler.flush(10).rejected == 1
    assert not sandbox.annotations


@pytest.mark.parametrize("run_id", ["no id", None, 7])
def test_feedback_of_no_run_is_counted_and_nothing_is_raised(
    run_id: Any, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler(TASK)
    handler.log_feedback(run_id, True)
    stats = handler.relay.stats()
    assert (stats.captured, sum(stats.dropped.values())) == (1, 1)


@pytest.mark.parametrize("package", ["opentelemetry.proto", "openinference.semconv"])
def test_without_the_packages_that_write_spans(
    package: str,
    make_handler: Callable[..., ArthurCallbackHandler],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigurationError, match=re.escape("pip install 'arthur-relay[engine]'")):
        make_handler(TASK)


def test_wrong_credentials(make_handler: Callable[..., ArthurCallbackHandler]) -> None:
    with pytest.raises(CredentialsError, match="ARTHUR_API_KEY"):
        make_handler(TASK, api_key="wrong")


def test_an_unknown_task(make_handler: Callable[..., ArthurCallbackHandler]) -> None:
    with pytest.raises(ModelError, match="no task with id"):
        make_handler(task_id=str(uuid.uuid4()))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "needs a task"),
        ({"task": " "}, "can't be ' '"),
        ({"task": "a", "task_id": TASK}, "not by both"),
        ({"task_id": "my-chatbot"}, "a UUID"),
    ],
)
def test_tasks_that_can_not_be(
    given: dict[str, Any], said: str, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        make_handler(**given)


class TestFromEnv:
    @pytest.fixture(autouse=True)
    def _settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in QUICK.items():
            monkeypatch.setenv(f"ARTHUR_RELAY_{name.upper()}", str(value))

    @pytest.fixture
    def relays(self) -> Iterator[list[Relay]]:
        made: list[Relay] = []
        yield made
        for relay in made:
            relay.close(5)

    @pytest.mark.parametrize("named", ["ARTHUR_TASK_ID", "OTEL_SERVICE_NAME"])
    def test_the_engine(
        self,
        named: str,
        sandbox: ArthurSandbox,
        monkeypatch: pytest.MonkeyPatch,
        relays: list[Relay],
    ) -> None:
        monkeypatch.setenv("ARTHUR_BASE_URL", sandbox.url)
        monkeypatch.setenv("ARTHUR_API_KEY", sandbox.api_key)
        monkeypatch.setenv(named, TASK)
        handler = ArthurCallbackHandler.from_env()
        relays.append(handler.relay)
        chat(answer("Good.")).invoke("How are you?", config(handler))
        handler.flush(10)
        assert len(sandbox.spans) == 1
        assert handler.relay is ArthurCallbackHandler.from_env().relay

    @pytest.mark.parametrize("name", ["ARTHUR_BASE_URL", "ARTHUR_TASK_ID"])
    def test_both_products(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ARTHUR_MODEL_ID", "a-model")
        monkeypatch.setenv("ARTHUR_API_KEY", "k")
        monkeypatch.setenv(name, TASK if name == "ARTHUR_TASK_ID" else "http://localhost:1")
        with pytest.raises(ConfigurationError, match=f"{name} is for Arthur Engine"):
            ArthurCallbackHandler.from_env()

    def test_no_product(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ARTHUR_API_KEY", "k")
        with pytest.raises(ConfigurationError, match="ARTHUR_TASK_ID"):
            ArthurCallbackHandler.from_env()


def test_the_root_of_a_trace_comes_last(
    sandbox: ArthurSandbox, make_handler: Callable[..., ArthurCallbackHandler]
) -> None:
    handler = make_handler(TASK, options={"batch_size": 1})  # each span in a request of its own
    chain: Any = RunnableLambda(lambda text: [HumanMessage(text)]) | chat("Good.", "Good.")
    chain.invoke("How are you?", config(handler))
    handler.flush(10)
    sandbox.faults.slow(0.3, times=1)  # so that a request at the same time would be first
    chain.invoke("How are you?", config(handler))
    handler.flush(10)
    assert [not each["parent_span_id"] for each in sandbox.spans] == [False, False, True] * 2
