"""A chat model that answers at once, or with a think time between tokens, as providers' do."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from pydantic import Field

MODEL_NAME = "fake-chat-1"

# The key must be there, else the old handler loses the inference: it looks without asking.
GENERATION_INFO = {"finish_reason": "stop", "logprobs": None}
RESPONSE_METADATA = {"finish_reason": "stop", "model_name": MODEL_NAME}


class FakeChat(BaseChatModel):
    """Answers with given tokens.

    Attributes:
        tokens: What a stream brings, one chunk each; a last chunk brings the finish reason.
        answer: What an `invoke` brings.
        think_seconds: The mean wait before a token of an `astream`; 0 gives the loop up without
            waiting, None never gives it up.
        seed: Of the waits, which are between half and one and a half of the mean.
    """

    tokens: list[str] = Field(default_factory=list)
    answer: str = ""
    think_seconds: float | None = None
    seed: int = 0

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        usage = usage_of(24, 12)
        message = AIMessage(
            content=self.answer, response_metadata=dict(RESPONSE_METADATA), usage_metadata=usage
        )
        generation = ChatGeneration(message=message, generation_info=dict(GENERATION_INFO))
        output = {"token_usage": token_usage_of(usage), "model_name": MODEL_NAME}
        return ChatResult(generations=[generation], llm_output=output)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for token in self.tokens:
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))
        yield _last_chunk(len(self.tokens))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        think = self.think_seconds
        draw = random.Random(self.seed)
        for token in self.tokens:
            if think is not None:
                await asyncio.sleep(think * draw.uniform(0.5, 1.5))
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))
        yield _last_chunk(len(self.tokens))

    @property
    def _llm_type(self) -> str:
        return "fake-chat"


def _last_chunk(tokens: int) -> ChatGenerationChunk:
    message = AIMessageChunk(
        content="",
        response_metadata=dict(RESPONSE_METADATA),
        usage_metadata=usage_of(24, tokens),
    )
    return ChatGenerationChunk(message=message, generation_info=dict(GENERATION_INFO))


def result_of(text: str) -> LLMResult:
    """What a handler gets at the end of a call that was not streamed."""
    message = AIMessage(
        content=text, response_metadata=dict(RESPONSE_METADATA), usage_metadata=usage_of(240, 40)
    )
    generation = ChatGeneration(message=message, generation_info=dict(GENERATION_INFO))
    return LLMResult(generations=[[generation]], llm_output={})


def usage_of(prompt_tokens: int, completion_tokens: int) -> UsageMetadata:
    """Token counts as LangChain has them."""
    return UsageMetadata(
        input_tokens=prompt_tokens,
        output_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


def token_usage_of(usage: UsageMetadata) -> dict[str, int]:
    """Token counts as OpenAI has them."""
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
    }


def short_conversation() -> list[BaseMessage]:
    """What a call is given where its length does not matter."""
    return [
        SystemMessage(content="You are a helpful assistant. Answer in one paragraph."),
        HumanMessage(content="What does an asynchronous buffered logging relay do, and why?"),
    ]


def history(messages: int, text: str) -> list[BaseMessage]:
    """A conversation of that many messages, each with the text; the user has the last word."""
    return [
        HumanMessage(content=text, id=f"message-{place}")
        if (messages - place) % 2
        else AIMessage(
            content=text,
            response_metadata=dict(RESPONSE_METADATA),
            usage_metadata=usage_of(24, 12),
        )
        for place in range(messages)
    ]
