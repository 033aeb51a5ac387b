"""What LangChain, or a client's package, does not hand over to callbacks, and where it gets lost.

The tests hold each entry against what LangChain does hand over: when a newer version of a package
hands a value over, its entry fails and has to go.
"""

from __future__ import annotations

from collections.abc import Iterator

from .client import Client
from .forms import Form
from .loss import STREAMED, V3, WHOLE, NotHandedOver
from .native_not_handed_over import NATIVE_NOT_HANDED_OVER

_CHAT_COMPLETIONS = (
    "ChatOpenAI, Chat Completions",
    "AzureChatOpenAI",
    "ChatDeepSeek",
    "ChatXAI",
    "ChatTogether",
)
"""The classes that are `BaseChatOpenAI` with Chat Completions."""

_BRIDGE = "langchain_core.language_models._compat_bridge.chunks_to_events"
_OPENAI = "langchain_openai.chat_models.base"
_OPENAI_LLM = "langchain_openai.llms.base"

_CORE = (
    NotHandedOver(
        fields=("output_text",),
        forms=V3,
        answers=("connection cut",),
        package="langchain-core",
        place="langchain_core.language_models.chat_models._v3_error_response",
        why="The text that had come is not in the response of the failed run.",
    ),
    NotHandedOver(
        fields=("output_tokens", "output_likelihoods"),
        forms=V3,
        answers=("likelihoods",),
        package="langchain-core",
        place=_BRIDGE,
        why="Of the chunks' log probabilities only those of the last are kept.",
    ),
    NotHandedOver(
        fields=("output_text", "refusal"),
        clients=("ChatOpenAI, Responses API",),
        forms=V3,
        answers=("refused",),
        package="langchain-core",
        place=_BRIDGE,
        why="A refusal's block is none of the events' kinds of blocks.",
    ),
)

_OPENAI_CHAT = (
    NotHandedOver(
        fields=("output_text", "refusal", "time_to_first_token"),
        clients=("ChatOpenAI, Chat Completions", "AzureChatOpenAI"),
        forms=STREAMED,
        answers=("refused",),
        package="langchain-openai",
        place=f"{_OPENAI}._convert_delta_to_message_chunk",
        why="A delta's refusal is not read.",
    ),
    NotHandedOver(
        fields=("response_id",),
        clients=_CHAT_COMPLETIONS,
        forms=STREAMED,
        package="langchain-openai",
        place=f"{_OPENAI}.BaseChatOpenAI._convert_chunk_to_generation_chunk",
        why="A chunk's id is not read.",
    ),
    NotHandedOver(
        fields=("output_tokens", "output_likelihoods"),
        clients=("ChatOpenAI, Responses API",),
        package="langchain-openai",
        place=f"{_OPENAI}._construct_lc_result_from_responses_api, "
        f"{_OPENAI}._convert_responses_chunk_to_generation_chunk",
        why="Log probabilities are not read.",
    ),
)

_OPENAI_COMPLETIONS = (
    NotHandedOver(
        fields=("cached_tokens",),
        clients=("OpenAI",),
        package="langchain-openai",
        place=f"{_OPENAI_LLM}.BaseOpenAI._generate, {_OPENAI_LLM}.BaseOpenAI._agenerate",
        why="Only the sums of the token counts are read, not their details.",
    ),
    NotHandedOver(
        fields=("prompt_tokens", "completion_tokens", "total_tokens"),
        clients=("OpenAI",),
        forms=STREAMED,
        package="langchain-openai",
        place=f"{_OPENAI_LLM}.BaseOpenAI._stream, "
        f"{_OPENAI_LLM}._stream_response_to_generation_chunk",
        why="Streams do not ask for token counts, and those that come are not read.",
    ),
    NotHandedOver(
        fields=("model_name", "response_id"),
        clients=("OpenAI",),
        package="langchain-openai",
        place=f"{_OPENAI_LLM}.BaseOpenAI.create_llm_result, "
        f"{_OPENAI_LLM}._stream_response_to_generation_chunk",
        why="The result names the model that was asked for, and no id.",
    ),
    NotHandedOver(
        fields=("system_fingerprint",),
        clients=("OpenAI",),
        forms=("ainvoke", *STREAMED),
        package="langchain-openai",
        place=f"{_OPENAI_LLM}.BaseOpenAI._agenerate, "
        f"{_OPENAI_LLM}._stream_response_to_generation_chunk",
        why="Only `_generate` reads it.",
    ),
)

_FIREWORKS = (
    NotHandedOver(
        fields=("model_name", "response_id"),
        clients=("ChatFireworks",),
        package="langchain-fireworks",
        place="langchain_fireworks.chat_models.ChatFireworks._create_chat_result, "
        "langchain_fireworks.chat_models.ChatFireworks._stream",
        why="The result names the model that was asked for, and no id.",
    ),
    NotHandedOver(
        fields=("system_fingerprint",),
        clients=("ChatFireworks",),
        forms=STREAMED,
        package="langchain-fireworks",
        place="langchain_fireworks.chat_models.ChatFireworks._stream",
        why="It is not read.",
    ),
)

_GROQ = (
    NotHandedOver(
        fields=("model_name", "response_id"),
        clients=("ChatGroq",),
        package="langchain-groq",
        place="langchain_groq.chat_models.ChatGroq._create_chat_result, "
        "langchain_groq.chat_models.ChatGroq._stream",
        why="The result names the model that was asked for, and no id.",
    ),
)

_MISTRAL = (
    NotHandedOver(
        fields=("model_name",),
        clients=("ChatMistralAI",),
        forms=WHOLE,
        package="langchain-mistralai",
        place="langchain_mistralai.chat_models.ChatMistralAI._create_chat_result",
        why="The result names the model that was asked for.",
    ),
    NotHandedOver(
        fields=("response_id",),
        clients=("ChatMistralAI",),
        package="langchain-mistralai",
        place="langchain_mistralai.chat_models.ChatMistralAI._create_chat_result, "
        "langchain_mistralai.chat_models._convert_chunk_to_message_chunk",
        why="The id is not read.",
    ),
)

_OPENROUTER = (
    NotHandedOver(
        fields=("output_text", "refusal", "time_to_first_token"),
        clients=("ChatOpenRouter",),
        answers=("refused",),
        package="langchain-openrouter",
        place="langchain_openrouter.chat_models._convert_dict_to_message, "
        "langchain_openrouter.chat_models._convert_chunk_to_message_chunk",
        why="A message's refusal is not read.",
    ),
)

_HUGGING_FACE = (
    NotHandedOver(
        fields=("model_name",),
        clients=("ChatHuggingFace",),
        package="langchain-huggingface",
        place="langchain_huggingface.ChatHuggingFace._create_chat_result, "
        "langchain_huggingface.ChatHuggingFace._stream",
        why="The result names the endpoint that was asked, by its address.",
    ),
    NotHandedOver(
        fields=("system_fingerprint",),
        clients=("ChatHuggingFace",),
        forms=STREAMED,
        package="langchain-huggingface",
        place="langchain_huggingface.ChatHuggingFace._stream",
        why="It is not read.",
    ),
)

_LITELLM = (
    NotHandedOver(
        fields=("model_name", "response_id", "service_tier", "system_fingerprint"),
        clients=("ChatLiteLLM",),
        package="langchain-litellm",
        place="langchain_litellm.ChatLiteLLM._create_chat_result, "
        "langchain_litellm.ChatLiteLLM._stream",
        why="The result names the model that was asked for, and nothing else of the answer.",
    ),
    NotHandedOver(
        fields=("output_tokens", "output_likelihoods"),
        clients=("ChatLiteLLM",),
        forms=STREAMED,
        package="langchain-litellm",
        place="langchain_litellm.ChatLiteLLM._stream",
        why="A chunk's log probabilities are not read.",
    ),
)

NOT_HANDED_OVER: tuple[NotHandedOver, ...] = (
    *_CORE,
    *_OPENAI_CHAT,
    *_OPENAI_COMPLETIONS,
    *_FIREWORKS,
    *_GROQ,
    *_MISTRAL,
    *_OPENROUTER,
    *_HUGGING_FACE,
    *_LITELLM,
    *NATIVE_NOT_HANDED_OVER,
)


def reasons(client: Client, form: Form, answer: str, field: str) -> Iterator[NotHandedOver]:
    """Yield the entries that a cell is of."""
    for entry in NOT_HANDED_OVER:
        if entry.is_about(client, form, answer, field):
            yield entry
