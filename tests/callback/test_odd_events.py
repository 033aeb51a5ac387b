"""Events that should not be: nothing is raised, each is counted, other inferences are intact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, Generation, LLMResult

if TYPE_CHECKING:
    from collections.abc import Callable

    from arthur_relay import ArthurCallbackHandler

    from .arthur import Arthur

RESULT = LLMResult(generations=[[ChatGeneration(message=AIMessage("answer"))]])


class Events:
    """The events of one run, as LangChain sends them."""

    def __init__(self, handler: ArthurCallbackHandler, run_id: UUID | None = None) -> None:
        self.handler = handler
        self.run_id = uuid4() if run_id is None else run_id

    def start(self, text: str = "hi") -> None:
        self.handler.on_chat_model_start({}, [[HumanMessage(text)]], run_id=self.run_id)

    def token(self, text: Any = "x", chunk: Any = None) -> None:
        self.handler.on_llm_new_token(text, chunk=chunk, run_id=self.run_id)

    def end(self, result: Any = RESULT) -> None:
        self.handler.on_llm_end(result, run_id=self.run_id)

    def error(self, error: Any = None) -> None:
        self.handler.on_llm_error(error or ValueError("no"), run_id=self.run_id)


SEQUENCES = {
    # steps: the outcomes that arrive, unmatched events, runs still open
    "start end end": (["ok"], 1, 0),
    "start end end end": (["ok"], 2, 0),
    "end": ([], 1, 0),
    "end start": ([], 1, 1),
    "error": ([], 1, 0),
    "start end error": (["ok"], 1, 0),
    "start error end": (["error"], 1, 0),
    "start error error": (["error"], 1, 0),
    "start start end": (["ok"], 0, 0),
    "start start end end": (["ok"], 1, 0),
    "token": ([], 0, 0),
    "token start end token": (["ok"], 0, 0),
    "start": ([], 0, 1),
}


@pytest.mark.parametrize("steps", SEQUENCES)
def test_sequences(arthur: Arthur, steps: str) -> None:
    outcomes, unmatched, open_runs = SEQUENCES[steps]
    events = Events(arthur.handler)
    for step in steps.split():
        getattr(events, step)()
    other = Events(arthur.handler)
    other.start("other")
    other.end()
    rows = {row["partner_inference_id"]: row["inference_data"] for row in arthur.rows()}
    assert rows.pop(str(other.run_id))["output_text"] == "answer"
    assert [row["outcome"] for row in rows.values()] == outcomes
    assert set(rows) <= {str(events.run_id)}
    stats = arthur.stats()
    assert stats.unmatched_events == unmatched
    assert stats.open_runs == open_runs
    assert stats.capture_errors == 0
    if open_runs:
        events.end()
        assert len(arthur.rows()) == len(outcomes) + 2


def test_a_run_that_starts_twice_is_what_it_was_last(arthur: Arthur) -> None:
    events = Events(arthur.handler)
    events.start("first")
    events.start("second")
    events.end()
    assert arthur.only()["input_text"] == "Human: second"


class Hostile(Exception):  # noqa: N818 - its name is what it is
    """Its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Weird:
    """Everything that is asked of it goes wrong."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)


WEIRD: Any = Weird()
RUN = uuid4()
GARBAGE: dict[str, Callable[[Any], object]] = {
    "no messages": lambda h: h.on_chat_model_start({}, [], run_id=RUN),
    "messages of None": lambda h: h.on_chat_model_start({}, None, run_id=RUN),
    "a message of None": lambda h: h.on_chat_model_start({}, [[None]], run_id=RUN),
    "a weird message": lambda h: h.on_chat_model_start({}, [[Weird()]], run_id=RUN),
    "no run id": lambda h: h.on_chat_model_start({}, [[]], run_id=None),
    "a text as run id": lambda h: h.on_llm_start({}, ["hi"], run_id="run"),
    "no prompts": lambda h: h.on_llm_start({}, [], run_id=RUN),
    "prompts of None": lambda h: h.on_llm_start({}, None, run_id=RUN),
    "a token's run id": lambda h: h.on_llm_new_token("x", run_id=None),
    "an event's run id": lambda h: h.on_stream_event({}, run_id=None),
    "an end's run id": lambda h: h.on_llm_end(RESULT, run_id=3),
    "an error's run id": lambda h: h.on_llm_error(ValueError(), run_id=None),
}
GARBAGE_INSIDE: dict[str, Callable[[Events], object]] = {
    "a weird chunk": lambda e: e.token("", Weird()),
    "an event of None": lambda e: e.handler.on_stream_event(None, run_id=e.run_id),
    "an event without a name": lambda e: e.handler.on_stream_event({}, run_id=e.run_id),
    "a block of None": lambda e: e.handler.on_stream_event(
        {"event": "content-block-start", "content": None}, run_id=e.run_id
    ),
}
GARBAGE_AT_THE_END: dict[str, Callable[[Events], object]] = {
    "a result of None": lambda e: e.end(None),
    "a weird result": lambda e: e.end(Weird()),
    "generations of None": lambda e: e.end(LLMResult.model_construct(generations=None)),
    "a generation of None": lambda e: e.end(LLMResult.model_construct(generations=[[None]])),
    "a weird response": lambda e: e.handler.on_llm_error(
        ValueError(), run_id=e.run_id, response=WEIRD
    ),
}


def check_others(arthur: Arthur, errors: int) -> None:
    other = Events(arthur.handler)
    other.start("other")
    other.end()
    assert arthur.only()["input_text"] == "Human: other"
    assert arthur.stats().capture_errors == errors


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage(arthur: Arthur, name: str) -> None:
    GARBAGE[name](arthur.handler)
    check_others(arthur, 1)
    assert arthur.stats().open_runs == 0


@pytest.mark.parametrize("name", GARBAGE_AT_THE_END)
def test_garbage_at_the_end(arthur: Arthur, name: str) -> None:
    events = Events(arthur.handler)
    events.start()
    GARBAGE_AT_THE_END[name](events)
    check_others(arthur, 1)
    assert arthur.stats().open_runs == 0


@pytest.mark.parametrize("name", GARBAGE_INSIDE)
def test_garbage_inside_of_a_run(arthur: Arthur, name: str) -> None:
    events = Events(arthur.handler)
    events.start()
    GARBAGE_INSIDE[name](events)
    events.end()
    assert arthur.only()["output_text"] == "answer"
    assert arthur.stats().capture_errors == 1


def test_garbage_that_can_be_read(arthur: Arthur) -> None:
    """Not what LangChain sends, but there is a run in it."""
    handler = arthur.handler
    for number, (prompt, result) in enumerate(
        [
            ("text", LLMResult(generations=[])),
            ("text", LLMResult(generations=[[]])),
            (
                "text",
                LLMResult.model_construct(
                    generations=[[Generation.model_construct(text=None, generation_info=None)]]
                ),
            ),
            (None, RESULT),
        ],
        start=1,
    ):
        events = Events(handler)
        prompts: list[Any] = [prompt]
        handler.on_llm_start({}, prompts, run_id=events.run_id)
        events.end(result)
        row = arthur.data()[-1]
        assert len(arthur.rows()) == number
        assert row["input_text"] == (prompt or "")
        assert row["output_text"] == ("" if result is not RESULT else "answer")
        assert row["outcome"] == "ok"


def test_a_prompt_that_is_no_text_is_dropped_and_counted(arthur: Arthur) -> None:
    events = Events(arthur.handler)
    prompts: list[Any] = [3]
    arthur.handler.on_llm_start({}, prompts, run_id=events.run_id)
    events.end()
    check_others(arthur, 0)
    assert arthur.stats().dropped == {"unencodable": 1}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Hostile(), "Hostile"),
        (ValueError(), "ValueError"),
        (ValueError("x" * 5000), "ValueError: " + "x" * 1000),
        (ValueError("a\x00b\ud800"), "ValueError: ab\ufffd"),
        (GeneratorExit("told"), "GeneratorExit: told"),
    ],
)
def test_odd_errors(arthur: Arthur, error: BaseException, text: str) -> None:
    events = Events(arthur.handler)
    events.start()
    events.error(error)
    assert arthur.only()["error"] == text


def test_the_first_chunk_with_content_counts(arthur: Arthur) -> None:
    def chunk(**fields: Any) -> ChatGenerationChunk:
        return ChatGenerationChunk(message=AIMessageChunk(**{"content": "", **fields}))

    call = {"name": "f", "args": "", "id": "1", "index": 0, "type": "tool_call_chunk"}
    cases: list[tuple[Any, Any, bool]] = [
        ("", chunk(), False),
        ("", None, False),
        ([], chunk(content=[]), False),
        ("x", None, True),
        ([{"type": "text", "text": "x"}], chunk(), True),
        ("", chunk(tool_call_chunks=[call]), True),
        ("", chunk(additional_kwargs={"reasoning_content": "hm"}), True),
    ]
    for token, found, counts in cases:
        events = Events(arthur.handler)
        events.start()
        events.token(token, found)
        events.end()
        assert ("time_to_first_token" in arthur.data()[-1]) is counts


def test_a_failed_run_keeps_nothing_of_the_providers_answer(arthur: Arthur) -> None:
    events = Events(arthur.handler)
    events.start()
    secret = {"headers": {"set-cookie": "s3cret"}, "body": "s3cret"}
    of_the_error = ChatGeneration(message=AIMessage("", response_metadata=secret))
    partial = ChatGenerationChunk(message=AIMessageChunk(content="par"))
    response = LLMResult(generations=[[partial], [of_the_error]])
    arthur.handler.on_llm_error(ValueError("no"), run_id=events.run_id, response=response)
    (row,) = arthur.rows()
    assert row["inference_data"]["output_text"] == "par"
    assert "s3cret" not in str(row)
