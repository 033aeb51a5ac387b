"""LangChain's own agents: each call of a model makes one row, also one that middleware repeats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware, ModelRetryMiddleware
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.tools import tool
from pydantic import BaseModel

from . import answers
from .answers import ANSWERS, Answer, Stop, ToolCall
from .client import Client
from .clients import CLIENTS
from .server import Server
from .stage import Stage
from .wire import ANSWERED_BY

IDS = {"run_id": "STRING", "parent_run_id": "STRING", "user_id": "STRING"}

OPENAI, ANTHROPIC = (
    next(client for client in CLIENTS if client.name == name)
    for name in ("ChatOpenAI, Chat Completions", "ChatAnthropic")
)
BOTH = pytest.mark.parametrize("client", [OPENAI, ANTHROPIC], ids=lambda client: client.name)


class Weather(BaseModel):
    """A city's weather."""

    city: str
    degrees: int


@tool
def get_weather(city: str) -> str:
    """Return a city's weather."""
    return "text"  # what a tool returns is the next prompt, and so the next answer's name


class Script(dict[str, Answer]):
    """Answers by name; some are given in turn, the last of them for ever."""

    def __init__(self, **turns: list[Answer]) -> None:
        super().__init__(ANSWERS)
        self._turns = {name.replace("_", " "): given for name, given in turns.items()}
        self.update({name: given[-1] for name, given in self._turns.items()})

    def __getitem__(self, name: str) -> Answer:
        given = self._turns.get(name)
        return given.pop(0) if given and len(given) > 1 else super().__getitem__(name)


class Runs(BaseCallbackHandler):
    """Keeps what LangChain says of each run of a model when it starts."""

    run_inline = True

    def __init__(self) -> None:
        self.models: list[tuple[str, str]] = []
        self.others: list[str] = []

    def on_chat_model_start(self, *args: Any, **kwargs: Any) -> None:
        self.models.append((str(kwargs["run_id"]), str(kwargs["parent_run_id"])))

    def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
        self.others.append(str(kwargs["run_id"]))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give more answers to the server, for the time of a test."""

    def give(**turns: list[Answer]) -> None:
        monkeypatch.setattr(answers, "ANSWERS", Script(**turns))

    return give


@pytest.fixture
def stage() -> Iterator[Stage]:
    with Stage(**IDS) as stage:
        yield stage


def invoke(agent: Any, messages: Any, config: Any) -> Any:
    return agent.invoke(messages, config)


def ainvoke(agent: Any, messages: Any, config: Any) -> Any:
    return asyncio.run(agent.ainvoke(messages, config))


def stream(agent: Any, messages: Any, config: Any) -> Any:
    chunks = list(agent.stream(messages, config, stream_mode=["messages", "values"]))
    return [state for mode, state in chunks if mode == "values"][-1]


def astream(agent: Any, messages: Any, config: Any) -> Any:
    async def read() -> list[Any]:
        modes = ["messages", "values"]
        return [chunk async for chunk in agent.astream(messages, config, stream_mode=modes)]

    return [state for mode, state in asyncio.run(read()) if mode == "values"][-1]


def v3(agent: Any, messages: Any, config: Any) -> Any:
    with agent.stream_events(messages, config, version="v3") as run:
        return run.output


WAYS = pytest.mark.parametrize("way", [invoke, ainvoke, stream, astream, v3])


def run(
    stage: Stage, agent: Any, prompt: str, way: Callable[..., Any] = invoke
) -> tuple[Any, list[dict[str, Any]]]:
    """Return what an agent ends with, and its rows, which fit the runs that LangChain told of."""
    runs = Runs()
    config = {
        "callbacks": [stage.handler, runs],
        "metadata": {"user_id": "ada"},
        "recursion_limit": 12,
    }
    state = way(agent, {"messages": [("user", prompt)]}, config)
    rows = stage.rows()
    data = [row["inference_data"] for row in rows]
    ids = [(row["partner_inference_id"], row["inference_data"]["parent_run_id"]) for row in rows]
    assert ids == runs.models
    assert [row["run_id"] for row in data] == [run_id for run_id, _ in runs.models]
    assert all(row["parent_run_id"] in runs.others for row in data)
    assert all(row["user_id"] == "ada" for row in data)
    return state, data


def model(client: Client, server: Server, answer: str = "text") -> Any:
    return client.model(server.at(client.wire), answer)


@BOTH
@WAYS
def test_an_agent_with_a_tool_makes_a_row_of_each_of_its_two_calls(
    client: Client, way: Callable[..., Any], server: Server, stage: Stage
) -> None:
    agent = create_agent(model(client, server), [get_weather])
    state, (first, second) = run(stage, agent, "tool call", way)
    assert state["messages"][-1].text == "Hello there, user."
    (call,) = json.loads(first["tool_calls"])
    assert (call["name"], call["args"], call["id"]) == ("get_weather", {"city": "Ulm"}, "call_1")
    assert first["finish_reason"] == client.wire.finish_reasons[Stop.TOOL]
    assert first["output_text"] == ""
    assert first["input_text"] == "Human: tool call"
    assert second["output_text"] == "Hello there, user."
    assert second["finish_reason"] == client.wire.finish_reasons[Stop.END]
    assert "tool_calls" not in second
    # What the tool has returned is part of the second prompt, and so is the call.
    assert second["input_text"].startswith("Human: tool call\nAI: ")
    assert second["input_text"].endswith("\nTool: text")
    for row in (first, second):
        assert row["outcome"] == "ok"
        assert row["model_name"] == ANSWERED_BY
        assert row["prompt_tokens"] == 1013
        assert ("time_to_first_token" in row) == (way in (stream, astream, v3))


@BOTH
def test_structured_output_by_a_tool_is_that_tools_call(
    client: Client, server: Server, stage: Stage, script: Callable[..., None]
) -> None:
    call = ToolCall(id="call_9", name="Weather", arguments='{"city": "Ulm", "degrees": 21}')
    script(structured=[Answer(tool_calls=(call,), stop=Stop.TOOL)])
    agent = create_agent(model(client, server), response_format=ToolStrategy(Weather))
    state, (row,) = run(stage, agent, "structured")
    assert state["structured_response"] == Weather(city="Ulm", degrees=21)
    (told,) = json.loads(row["tool_calls"])
    assert (told["name"], told["args"]) == ("Weather", {"city": "Ulm", "degrees": 21})
    assert (row["outcome"], row["output_text"]) == ("ok", "")


@BOTH
def test_structured_output_that_does_not_fit_is_asked_for_again_in_a_row_of_its_own(
    client: Client, server: Server, stage: Stage, script: Callable[..., None]
) -> None:
    calls = [
        ToolCall(id=f"call_{number}", name="Weather", arguments=arguments)
        for number, arguments in enumerate(['{"city": "Ulm"}', '{"city": "Ulm", "degrees": 21}'])
    ]
    turns = [Answer(tool_calls=(call,), stop=Stop.TOOL) for call in calls]
    script(structured=turns)
    response_format = ToolStrategy(Weather, handle_errors="structured")
    agent = create_agent(model(client, server), response_format=response_format)
    state, (first, second) = run(stage, agent, "structured")
    assert state["structured_response"] == Weather(city="Ulm", degrees=21)
    assert json.loads(first["tool_calls"])[0]["args"] == {"city": "Ulm"}
    assert json.loads(second["tool_calls"])[0]["args"] == {"city": "Ulm", "degrees": 21}
    # The answer itself was well-formed: that it did not fit is the application's business.
    assert (first["outcome"], second["outcome"]) == ("ok", "ok")


@BOTH
def test_structured_output_by_the_provider_is_text(
    client: Client, server: Server, stage: Stage, script: Callable[..., None]
) -> None:
    script(structured=[Answer(text=('{"city": "Ulm",', ' "degrees": 21}'))])
    agent = create_agent(model(client, server), response_format=ProviderStrategy(Weather))
    state, (row,) = run(stage, agent, "structured")
    assert state["structured_response"] == Weather(city="Ulm", degrees=21)
    assert json.loads(row["output_text"]) == {"city": "Ulm", "degrees": 21}
    assert "tool_calls" not in row


@BOTH
@WAYS
def test_each_attempt_of_the_retrying_middleware_is_a_row(
    client: Client,
    way: Callable[..., Any],
    server: Server,
    stage: Stage,
    script: Callable[..., None],
) -> None:
    failure, answer = ANSWERS["provider error"], ANSWERS["text"]
    script(fails_twice=[failure, failure, answer])
    retry = ModelRetryMiddleware(max_retries=2, initial_delay=0.0, backoff_factor=0.0)
    agent = create_agent(model(client, server), middleware=[retry])
    state, (first, second, third) = run(stage, agent, "fails twice", way)
    assert state["messages"][-1].text == "Hello there, user."
    for row in (first, second):
        assert (row["outcome"], row["output_text"]) == ("error", "")
        assert "500" in row["error"]
        assert "finish_reason" not in row
    assert (third["outcome"], third["output_text"]) == ("ok", "Hello there, user.")
    assert "error" not in third
    assert {row["parent_run_id"] for row in (first, second, third)} == {third["parent_run_id"]}
    assert len({row["run_id"] for row in (first, second, third)}) == 3


@BOTH
def test_an_agent_that_gives_up_has_told_of_every_attempt(
    client: Client, server: Server, stage: Stage
) -> None:
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0.0, backoff_factor=0.0)
    agent = create_agent(model(client, server), middleware=[retry])
    state, rows = run(stage, agent, "provider error")
    # The middleware's own words are no answer of a model: they make no row.
    assert "failed after 2 attempts" in state["messages"][-1].text
    assert [row["outcome"] for row in rows] == ["error", "error"]


@WAYS
def test_the_model_that_another_falls_back_to_has_a_row_of_its_own(
    way: Callable[..., Any], server: Server, stage: Stage, script: Callable[..., None]
) -> None:
    script(fails_once=[ANSWERS["provider error"], ANSWERS["text"]])
    fallback = ModelFallbackMiddleware(model(ANTHROPIC, server))
    agent = create_agent(model(OPENAI, server), middleware=[fallback])
    _, (failed, answered) = run(stage, agent, "fails once", way)
    assert (failed["outcome"], failed["provider"]) == ("error", "openai")
    assert (answered["outcome"], answered["provider"]) == ("ok", "anthropic")
    assert answered["finish_reason"] == "end_turn"
    assert answered["output_text"] == "Hello there, user."


@BOTH
@WAYS
def test_a_refusal_in_an_agent_is_the_output_text(
    client: Client, way: Callable[..., Any], server: Server, stage: Stage
) -> None:
    _, (row,) = run(stage, create_agent(model(client, server)), "refused", way)
    # LangChain hands over no refusal of a Chat Completions stream; see the table.
    is_lost = client.name == "ChatOpenAI, Chat Completions" and way in (stream, astream, v3)
    assert row["output_text"] == ("" if is_lost else "I can't help with that.")
    assert row["finish_reason"] == client.wire.finish_reasons[Stop.BLOCKED]
    assert row["outcome"] == "ok"


@BOTH
def test_two_agents_at_once_do_not_mix(client: Client, server: Server, stage: Stage) -> None:
    agent = create_agent(model(client, server), [get_weather])

    async def both() -> None:
        config = {"callbacks": [stage.handler], "metadata": {"user_id": "ada"}}
        prompts = ["tool call", "text"]
        await asyncio.gather(
            *(agent.ainvoke({"messages": [("user", prompt)]}, config) for prompt in prompts)
        )

    asyncio.run(both())
    rows = [row["inference_data"] for row in stage.rows()]
    texts = sorted((row["input_text"].splitlines()[0], row["output_text"]) for row in rows)
    assert texts == [
        ("Human: text", "Hello there, user."),
        ("Human: tool call", ""),
        ("Human: tool call", "Hello there, user."),
    ]
