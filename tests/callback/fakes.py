"""Chat models that answer with exactly what a test wants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from langchain_core.callbacks import CallbackManagerForLLMRun
    from langchain_core.messages import AIMessageChunk, BaseMessage
    from langchain_core.outputs import ChatGeneration


class ResultModel(BaseChatModel):
    """Answers with a result, or with what a function makes of the messages."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    generations: list[Any] = Field(default_factory=list)
    llm_output: dict[str, Any] | None = None
    answer: Any = None

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answer: Callable[[list[BaseMessage]], list[ChatGeneration]] | None = self.answer
        generations = self.generations if answer is None else answer(messages)
        return ChatResult(generations=generations, llm_output=self.llm_output)

    @property
    def _llm_type(self) -> str:
        return "result"


class ChunkModel(ResultModel):
    """Streams chunks, and raises what is among them."""

    streaming: bool = False
    chunks: list[Any] = Field(default_factory=list)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        chunks: list[AIMessageChunk | BaseException] = self.chunks
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield ChatGenerationChunk(message=chunk.model_copy(deep=True))
