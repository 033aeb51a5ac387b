"""For the same run, the relay puts on the wire what the SDK puts there for the old handler.

Both handlers hang on the same model call. Ids differ (the old one's are random), durations and
times by a moment; everything else has to be equal, type for type. But for one thing: the old one
sends null for a finish reason that the provider gave as None, and the relay leaves it out, as it
does with whatever a run does not tell. Null is the SDK's form of a missing value: it makes NaN one.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
import requests
from arthurai import ArthurAI
from arthurai.client.validation import validate_multistatus_response_and_get_failures
from langchain_community.callbacks.arthur_callback import (
    ArthurCallbackHandler as OldHandler,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.llms import LLM, BaseLLM
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.outputs import (
    ChatGeneration,
    ChatGenerationChunk,
    ChatResult,
    Generation,
    LLMResult,
)

from arthur_relay import ArthurCallbackHandler, RelaySettings
from arthur_relay.runtime.process_registry import registry
from arthur_relay.sandbox import ArthurSandbox, demo_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.conformance

SETTINGS = RelaySettings(flush_interval_seconds=0.0)
# What the old handler knows; TOKENS and the rest is new.
OLD_ATTRIBUTES = [
    each
    for each in demo_attributes()
    if each["name"]
    in {
        "input_text",
        "output_text",
        "output_likelihoods",
        "finish_reason",
        "prompt_tokens",
        "completion_tokens",
        "duration",
    }
]
LOGPROBS = {
    "tokens": ["Hel", "lo"],
    "token_logprobs": [-0.11, -0.7],
    "top_logprobs": [{"Hel": -0.11, "Hi": -2.3, "H": -4.0}, {"lo": -0.7, "p": -1.1}],
}
USAGE = {"prompt_tokens": 11, "completion_tokens": 2, "total_tokens": 13}


@pytest.fixture(autouse=True)
def no_relay_is_left() -> Iterator[None]:
    yield
    registry().close_all()


WAIT_SECONDS = 0.25
"""How long the models think: enough to tell seconds from milliseconds."""


class Chat(BaseChatModel):
    """Answers with what the test gives it, after a while."""

    infos: list[dict[str, Any]]
    llm_output: dict[str, Any] | None = None
    message: Any = None

    @property
    def _llm_type(self) -> str:
        return "conformance"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> ChatResult:
        time.sleep(WAIT_SECONDS)
        generations = [
            ChatGeneration(
                message=self.message or AIMessage(f"Hello {n}"),
                generation_info=info,
            )
            for n, info in enumerate(self.infos)
        ]
        return ChatResult(generations=generations, llm_output=self.llm_output)

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        time.sleep(WAIT_SECONDS)
        for text in ("", "Hel", "lo"):
            yield ChatGenerationChunk(message=AIMessageChunk(content=text))
        yield ChatGenerationChunk(
            message=AIMessageChunk(content=""),
            generation_info={"finish_reason": "stop", "logprobs": None},
        )


class Completion(BaseLLM):
    """A completion model that answers with what the test gives it, after a while."""

    infos: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "conformance"

    def _generate(
        self, prompts: list[str], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> LLMResult:
        time.sleep(WAIT_SECONDS)
        generations = [
            [
                Generation(text=f"Hello {n}", generation_info=info)
                for n, info in enumerate(self.infos)
            ]
            for _ in prompts
        ]
        return LLMResult(generations=generations, llm_output={"token_usage": USAGE})


def with_info(**info: Any) -> dict[str, Any]:
    # Without the key the old handler crashes, and the inference is lost.
    return {"logprobs": None, **info}


HISTORY = [SystemMessage("Be kind."), HumanMessage("Hi"), AIMessage("Yes?"), HumanMessage("So")]
OUTPUT = {"token_usage": USAGE, "model_name": "gpt"}
TOOL_CALL: Any = {"name": "add", "args": {"a": 1}, "id": "c1", "type": "tool_call"}
TEXT_BLOCKS: Any = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]


def answering(message: AIMessage, **info: Any) -> Chat:
    return Chat(infos=[with_info(**info)], llm_output=OUTPUT, message=message)


async def read(chunks: Any) -> None:
    async for _ in chunks:
        pass


SCENARIOS: dict[str, Any] = {
    "a tool call": lambda call: answering(
        AIMessage("", tool_calls=[TOOL_CALL]), finish_reason="tool_calls"
    ).invoke("What is 1 + 1?", call),
    "after a tool call": lambda call: answering(AIMessage("2"), finish_reason="stop").invoke(
        [
            HumanMessage("What is 1 + 1?"),
            AIMessage("", tool_calls=[TOOL_CALL]),
            ToolMessage("2", tool_call_id="c1"),
        ],
        call,
    ),
    "content blocks": lambda call: answering(AIMessage(TEXT_BLOCKS), finish_reason="stop").invoke(
        [HumanMessage(TEXT_BLOCKS)], call
    ),
    "async": lambda call: asyncio.run(
        Chat(infos=[with_info(finish_reason="stop")], llm_output=OUTPUT).ainvoke(HISTORY, call)
    ),
    "async, streamed": lambda call: asyncio.run(read(Chat(infos=[]).astream(HISTORY, call))),
    "async, a batch": lambda call: asyncio.run(
        Chat(infos=[with_info(finish_reason="stop")], llm_output=OUTPUT).abatch(["a", "b"], call)
    ),
    "stop and temperature": lambda call: (
        Chat(infos=[with_info(finish_reason="stop")], llm_output=OUTPUT)
        .bind(temperature=0.1, stop=["."])
        .invoke("Hi", call)
    ),
    "completion with stop": lambda call: (
        Completion(infos=[with_info(finish_reason="stop")])
        .bind(stop=["."], temperature=0.1)
        .invoke("Once upon", call)
    ),
    "chat": lambda call: Chat(infos=[with_info(finish_reason="stop")], llm_output=OUTPUT).invoke(
        HISTORY, call
    ),
    "chat without usage": lambda call: Chat(infos=[with_info()]).invoke("Hi", call),
    "chat with likelihoods": lambda call: Chat(
        infos=[{"logprobs": LOGPROBS, "finish_reason": "length"}], llm_output=OUTPUT
    ).invoke("Hi", call),
    "chat, three generations": lambda call: Chat(
        infos=[with_info(finish_reason=reason) for reason in ("stop", "length", None)],
        llm_output=OUTPUT,
    ).invoke("Hi", call),
    "chat, a batch of three": lambda call: Chat(
        infos=[with_info(finish_reason="stop")], llm_output=OUTPUT
    ).batch(["one", "two", "three"], call),
    "chat, streamed": lambda call: list(Chat(infos=[]).stream(HISTORY, call)),
    "completion": lambda call: Completion(infos=[with_info(finish_reason="stop")]).invoke(
        "Once upon", call
    ),
    "completion with likelihoods": lambda call: Completion(
        infos=[{"logprobs": LOGPROBS, "finish_reason": "stop"}]
    ).invoke("Once upon", call),
    "completion, several prompts": lambda call: Completion(
        infos=[with_info(finish_reason="stop"), with_info(finish_reason="length")]
    ).generate(["one", "two"], callbacks=call["callbacks"]),
    "unicode": lambda call: Chat(infos=[with_info()]).invoke('Grüße 🙂 \u2028 "quoted" \\', call),
}


COUNTS = ("prompt_tokens", "completion_tokens")

ON_PURPOSE: dict[str, tuple[str, ...]] = {
    # The SDK's LangChain takes the first text block for the text; the row has the whole text.
    "content blocks": ("output_text",),
    # The old handler repeats a request's counts with each of its answers, so that sums are too
    # large; a row's counts go with the first answer alone.
    "chat, three generations": COUNTS,
    "completion, several prompts": COUNTS,
}
"""By scenario, what a row has otherwise than the old handler's, and why."""


def take_out_what_differs(scenario: str, new_row: dict[str, Any], old_row: dict[str, Any]) -> None:
    """Hold what differs on purpose against what it has to be, and take it out of both rows."""
    new_data, old_data = new_row["inference_data"], old_row["inference_data"]
    is_first = len(new_row["partner_inference_id"]) == len(str(UUID(int=0)))
    for name in ON_PURPOSE.get(scenario, ()):
        new, old = new_data.pop(name, None), old_data.pop(name, None)
        if name == "output_text":
            assert new == "".join(block["text"] for block in TEXT_BLOCKS if "text" in block)
            assert new.startswith(old)
            assert new != old
        else:
            assert new == (old if is_first else None)


def by_agent(sandbox: ArthurSandbox, agent: str) -> list[dict[str, Any]]:
    """Return the rows that one of the two has put on the wire, in a stable order."""
    rows = [
        row
        for request in sandbox.requests
        if request.method == "POST" and request.path.endswith("/inferences")
        if request.headers["user-agent"].startswith(agent)
        for row in json.loads(request.body)
    ]

    def texts(row: dict[str, Any]) -> str:
        return json.dumps([row["inference_data"][name] for name in ("input_text", "output_text")])

    return sorted(rows, key=texts)


def typed(value: Any) -> Any:
    """Make 1 and 1.0 differ."""
    match value:
        case dict():
            return {key: typed(item) for key, item in value.items()}
        case list():
            return [typed(item) for item in value]
        case float():
            # NumPy's exp and the standard library's may differ in the last digit.
            return ("float", pytest.approx(value, rel=1e-12))
        case _:
            return (type(value).__name__, value)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_row(scenario: str, sandbox: ArthurSandbox) -> None:
    model_id = sandbox.add_model(OLD_ATTRIBUTES)
    arthur = ArthurAI(url=sandbox.url, access_key=sandbox.api_key, allow_insecure=True)
    arthur_model = arthur.get_model(model_id)
    new = ArthurCallbackHandler(arthur_model, settings=SETTINGS)
    # The new one first: the old one posts inside of the call, and that is not to be measured.
    SCENARIOS[scenario]({"callbacks": [new, OldHandler(arthur_model)]})
    assert new.flush(30).pending == 0
    theirs, ours = by_agent(sandbox, "arthur-sdk/"), by_agent(sandbox, "arthur-relay/")
    assert len(theirs) == len(ours) > 0
    for old_row, new_row in zip(theirs, ours, strict=True):
        assert set(old_row) == set(new_row)
        times = [datetime.fromisoformat(r["inference_timestamp"]) for r in (old_row, new_row)]
        assert abs((times[0] - times[1]).total_seconds()) < 5
        assert all(moment.tzinfo is not None for moment in times)
        old_data, new_data = old_row["inference_data"], new_row["inference_data"]
        durations = new_data.pop("duration"), old_data.pop("duration")
        assert min(durations) >= WAIT_SECONDS - 0.01  # the old one's is by the wall clock
        assert durations[0] == pytest.approx(durations[1], abs=0.1)
        if old_data.get("finish_reason", "") is None:
            del old_data["finish_reason"]  # the one null that it sends; see above
        take_out_what_differs(scenario, new_row, old_row)
        assert typed(new_data) == typed(old_data)


def test_the_old_handler_loses_what_the_new_one_keeps(sandbox: ArthurSandbox) -> None:
    model_id = sandbox.add_model(OLD_ATTRIBUTES)
    arthur = ArthurAI(url=sandbox.url, access_key=sandbox.api_key, allow_insecure=True)
    arthur_model = arthur.get_model(model_id)
    new = ArthurCallbackHandler(arthur_model, settings=SETTINGS)
    Chat(infos=[{"finish_reason": "stop"}]).invoke(
        "Hi", {"callbacks": [OldHandler(arthur_model), new]}
    )
    new.flush(30)
    assert by_agent(sandbox, "arthur-sdk/") == []  # no "logprobs": a swallowed KeyError
    assert len(by_agent(sandbox, "arthur-relay/")) == 1


@pytest.mark.parametrize("how", ["key", "login"])
def test_an_arthur_model_lends_its_schema_address_and_credentials(
    how: str, sandbox: ArthurSandbox
) -> None:
    credentials = (
        {"access_key": sandbox.api_key}
        if how == "key"
        else {"login": sandbox.login, "password": sandbox.password}
    )
    arthur = ArthurAI(url=sandbox.url, allow_insecure=True, **credentials)
    handler = ArthurCallbackHandler(arthur.get_model(sandbox.model_id), settings=SETTINGS)
    asked = [r for r in sandbox.requests if r.headers["user-agent"].startswith("arthur-relay/")]
    assert asked == []  # the schema is the model's own
    Chat(infos=[{}]).invoke("Hi", {"callbacks": [handler]})
    sandbox.faults.expire_tokens()
    Chat(infos=[{}]).invoke("Hi", {"callbacks": [handler]})
    assert handler.flush(30).delivered == 2
    assert handler.relay.settings is SETTINGS


def test_an_arthur_model_that_is_not_saved_or_no_llm(sandbox: ArthurSandbox) -> None:
    arthur = ArthurAI(url=sandbox.url, access_key=sandbox.api_key, allow_insecure=True)
    model = arthur.get_model(sandbox.model_id)
    model._client = None
    with pytest.raises(ValueError, match="no client that could be used"):
        ArthurCallbackHandler(model)
    model.attributes = []
    with pytest.raises(ValueError, match="no text input"):
        ArthurCallbackHandler(model)
    model.id = None
    with pytest.raises(ValueError, match="that is saved"):
        ArthurCallbackHandler(model)


def test_the_sdk_accepts_the_answers_to_the_relays_rows(sandbox: ArthurSandbox) -> None:
    arthur = ArthurAI(url=sandbox.url, access_key=sandbox.api_key, allow_insecure=True)
    handler = ArthurCallbackHandler(arthur.get_model(sandbox.model_id), settings=SETTINGS)
    Chat(infos=[{"logprobs": LOGPROBS}], llm_output=OUTPUT).invoke("Hi", {"callbacks": [handler]})
    handler.flush(30)
    (request,) = [r for r in sandbox.requests if r.path.endswith("/inferences")]
    bad = json.dumps([*json.loads(request.body), {"partner_inference_id": "no timestamp"}])
    for body, failures in ((request.body, 0), (bad, 1)):
        answer = requests.post(
            sandbox.url + request.path,
            data=body,
            headers={"Authorization": sandbox.api_key},
            timeout=30,
        )
        user, internal = validate_multistatus_response_and_get_failures(answer)
        assert (len(user), len(internal)) == (failures, 0)


def test_a_completion_model_of_one_method(sandbox: ArthurSandbox) -> None:
    class Simple(LLM):
        @property
        def _llm_type(self) -> str:
            return "simple"

        def _call(self, prompt: str, stop: Any = None, run_manager: Any = None, **_: Any) -> str:
            return prompt[::-1]

    arthur = ArthurAI(url=sandbox.url, access_key=sandbox.api_key, allow_insecure=True)
    handler = ArthurCallbackHandler(arthur.get_model(sandbox.model_id), settings=SETTINGS)
    assert Simple().invoke("abc", {"callbacks": [handler]}) == "cba"
    assert handler.flush(30).delivered == 1
    assert sandbox.inferences[0]["inference_data"]["output_text"] == "cba"


def test_from_credentials_takes_the_same_arguments() -> None:
    old = inspect.signature(OldHandler.from_credentials).parameters
    new = inspect.signature(ArthurCallbackHandler.from_credentials).parameters
    assert [(each.name, each.kind, each.default) for each in old.values()] == [
        (each.name, each.kind, each.default)
        for each in new.values()
        if each.kind is not inspect.Parameter.KEYWORD_ONLY
    ]
    # What is new has a default, so that old calls go on working.
    assert all(
        each.default is not inspect.Parameter.empty
        for each in new.values()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    )
