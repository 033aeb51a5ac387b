"""What a model answers, before any provider's wire format has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stop(StrEnum):
    """Why the model stopped; each provider has its own word for it."""

    END = "end"
    LENGTH = "length"
    TOOL = "tool"
    BLOCKED = "blocked"


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A call that the model asks for.

    Attributes:
        id: The provider's id of it; empty where the format has none and the client makes one up.
        name: The tool's.
        arguments: As JSON; may be broken on purpose.
        by_provider: Whether the provider runs it itself.
    """

    id: str
    name: str
    arguments: str
    by_provider: bool = False


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Token counts; the details are parts of the first two.

    Numbers that nothing else has, so that they can be looked for wherever LangChain puts them.
    """

    input: int = 1013
    output: int = 709
    cache_read: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.input + self.output


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer.

    Attributes:
        text: The visible text, in the pieces in which it is streamed.
        reasoning: The model's reasoning, in pieces; never part of the output text.
        refusal: The refusal, where the format has one of its own; else it is the text.
        tool_calls: The calls.
        server_calls: Calls that the provider runs itself, before the text.
        stop: Why the model stopped.
        usage: What it took.
        logprobs: By piece of the text: its log probability. None when nobody asked.
        cut_after: Pieces (reasoning and text) after which the connection is cut; None for never.
        status: Another status than 200 is an error of the provider, without an answer.
        prompt_blocked: Whether the provider refused the prompt and no model answered.
    """

    text: tuple[str, ...] = ()
    reasoning: tuple[str, ...] = ()
    refusal: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    server_calls: tuple[ToolCall, ...] = ()
    stop: Stop = Stop.END
    usage: Usage = field(default_factory=Usage)
    logprobs: Mapping[str, float] | None = None
    cut_after: int | None = None
    status: int = 200
    prompt_blocked: bool = False

    @property
    def whole_text(self) -> str:
        """The visible text."""
        return "".join(self.text)


HELLO = ("Hello ", "there, ", "user.")

ANSWERS: Mapping[str, Answer] = {
    "text": Answer(text=HELLO, usage=Usage(cache_read=419)),
    "likelihoods": Answer(text=HELLO, logprobs=dict(zip(HELLO, (-0.25, -0.5, -1.25), strict=True))),
    "tool call": Answer(
        tool_calls=(ToolCall(id="call_1", name="get_weather", arguments='{"city": "Ulm"}'),),
        stop=Stop.TOOL,
    ),
    "broken tool call": Answer(
        tool_calls=(ToolCall(id="call_1", name="get_weather", arguments='{"city": "Ul'),),
        stop=Stop.TOOL,
    ),
    "reasoning": Answer(
        reasoning=("Let me ", "think."), text=HELLO, usage=Usage(output=907, reasoning=211)
    ),
    "refused": Answer(refusal="I can't help with that.", stop=Stop.BLOCKED),
    "prompt blocked": Answer(stop=Stop.BLOCKED, usage=Usage(output=0), prompt_blocked=True),
    "web search": Answer(
        text=HELLO,
        server_calls=(
            ToolCall(
                id="srv_1",
                name="web_search",
                arguments='{"query": "weather in Ulm"}',
                by_provider=True,
            ),
        ),
        usage=Usage(cache_write=307),
    ),
    "cut at the limit": Answer(text=HELLO[:2], stop=Stop.LENGTH),
    "connection cut": Answer(text=HELLO, cut_after=2),
    "provider error": Answer(status=500),
}
"""By name. The prompt of a request is the name, so that the server knows what to answer."""

GUARDRAIL_TEXT = "Sorry, the model cannot answer this question."
"""What some providers answer to a blocked prompt, in place of the model; others say nothing."""

OF_SOME = ("prompt blocked", "web search")
"""The answers that few formats have; a client has them only when it says so."""


def answer_to(prompt: str) -> Answer:
    """Return the answer that a prompt asks for: the longest name that it ends with.

    Raises:
        KeyError: It names none.
    """
    names = [name for name in ANSWERS if prompt.rstrip().endswith(name)]
    return ANSWERS[max(names, key=len)]


def error_body(status: int) -> dict[str, Any]:
    """Return a provider's error, in the form that most of them share."""
    return {"error": {"message": f"failed with {status}", "type": "server_error", "code": None}}
