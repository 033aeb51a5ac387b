"""Models, tools and retrievers that need no network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.utils.function_calling import convert_to_openai_tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from langchain_core.callbacks import CallbackManagerForRetrieverRun


class Chat(GenericFakeChatModel):
    """A chat model that says what it was told, and can be given tools."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(each) for each in tools])

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        known = {"ls_provider": "openai", "ls_model_name": "gpt-5"}
        return {**super()._get_ls_params(stop=stop, **kwargs), **known}


class Documents(BaseRetriever):
    """A retriever that finds the same two documents."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [Document("Ulm is sunny", metadata={"source": "weather"}), Document("Bonn is not")]


def chat(*answers: AIMessage | str) -> Chat:
    return Chat(messages=iter(answers))


def answer(text: str, **fields: Any) -> AIMessage:
    """An answer with all that providers say beside it."""
    return AIMessage(
        content=text,
        usage_metadata={
            "input_tokens": 5,
            "output_tokens": 3,
            "total_tokens": 8,
            "input_token_details": {"cache_read": 2},
            "output_token_details": {"reasoning": 1},
        },
        response_metadata={"finish_reason": "stop", "model_name": "gpt-5"},
        **fields,
    )


def call(name: str, **arguments: Any) -> AIMessage:
    """An answer that calls a tool."""
    return answer("", tool_calls=[{"name": name, "args": arguments, "id": "call-1"}])
