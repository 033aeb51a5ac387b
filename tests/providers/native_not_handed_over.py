"""What the packages of providers with a wire format of their own do not hand over."""

from __future__ import annotations

from collections.abc import Mapping

from .loss import STREAMED, V3, WHOLE, NotHandedOver
from .table import AnyOf, OneOf

CLAUDE_CLIENTS = (
    "ChatAnthropic",
    "ChatAnthropic, thinking",
    'ChatAnthropic, output_version="v1"',
)
GEMINI_CHATS = ("ChatGoogleGenerativeAI", "ChatGoogleGenerativeAI, Gemini 3")
GUARDED = "ChatBedrock, guardrail with trace"
STREAMING_LLM = "BedrockLLM, Amazon, streaming=True"
BEDROCK_LLMS = (
    "BedrockLLM, Amazon",
    STREAMING_LLM,
    "BedrockLLM, Anthropic",
    "BedrockLLM, Meta",
    "BedrockLLM, Mistral",
)
COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

STREAM, LEFT = ("stream", "astream"), ("left", "aleft")

_ANTHROPIC = (
    NotHandedOver(
        fields=("response_id", "service_tier"),
        package="langchain-anthropic",
        place="langchain_anthropic.chat_models.ChatAnthropic._make_message_chunk_from_anthropic_event",
        why="Of the event `message_start` it keeps the model's name alone.",
        clients=CLAUDE_CLIENTS,
        forms=STREAMED,
    ),
)

_GOOGLE = (
    NotHandedOver(
        fields=("response_id",),
        package="langchain-google-genai",
        place="langchain_google_genai.chat_models._response_to_result",
        why="`response_id` of the response is not read.",
        clients=(*GEMINI_CHATS, "GoogleGenerativeAI"),
    ),
    NotHandedOver(
        fields=("refusal",),
        package="google-genai",
        place="google.genai.models._Candidate_from_mldev",
        why="`finishMessage` of a candidate is left out.",
        clients=(*GEMINI_CHATS, "GoogleGenerativeAI"),
        answers=("refused",),
    ),
    NotHandedOver(
        fields=("model_name",),
        package="langchain-google-genai",
        place="langchain_google_genai.chat_models._response_to_result",
        why="The model's name is read for candidates alone, and a blocked prompt has none.",
        clients=(*GEMINI_CHATS, "GoogleGenerativeAI"),
        answers=("prompt blocked",),
    ),
    NotHandedOver(
        fields=COUNTS,
        package="langchain-google-genai",
        place="langchain_google_genai.chat_models._response_to_result",
        why="The message that stands for a blocked prompt gets no counts, unless it is streamed.",
        clients=GEMINI_CHATS,
        forms=WHOLE,
        answers=("prompt blocked",),
    ),
    NotHandedOver(
        fields=("output_text", "finish_reason", "refusal", *COUNTS),
        package="langchain-google-genai",
        place="langchain_google_genai.llms.GoogleGenerativeAI._generate",
        why="Of the chat model's message it keeps the text, and counts if there is a candidate.",
        clients=("GoogleGenerativeAI",),
        forms=("invoke", "ainvoke"),
        answers=("prompt blocked",),
    ),
    NotHandedOver(
        fields=("reasoning_text",),
        package="langchain-google-genai",
        place="langchain_google_genai.llms.GoogleGenerativeAI._generate, "
        "langchain_google_genai.llms.GoogleGenerativeAI._stream",
        why="Of the chat model's message it keeps the text.",
        clients=("GoogleGenerativeAI",),
    ),
    NotHandedOver(
        fields=("cached_tokens", "reasoning_tokens", *COUNTS),
        package="langchain-google-genai",
        place="langchain_google_genai.llms.GoogleGenerativeAI._stream",
        why="Of the chat model's chunks it keeps the text.",
        clients=("GoogleGenerativeAI",),
        forms=STREAM,
    ),
    NotHandedOver(
        fields=("cached_tokens", "reasoning_tokens", *COUNTS),
        package="langchain-google-genai",
        place="langchain_google_genai.llms.GoogleGenerativeAI._stream",
        why="Of the chat model's chunks it keeps the text.",
        clients=("GoogleGenerativeAI",),
        forms=LEFT,
        answers=("text", "reasoning", "refused", "cut at the limit"),
    ),
    NotHandedOver(
        fields=("finish_reason", "model_name"),
        package="langchain-google-genai",
        place="langchain_google_genai.llms.GoogleGenerativeAI._stream",
        why="Of the chat model's chunks it keeps the text.",
        clients=("GoogleGenerativeAI",),
        forms=STREAM,
    ),
    NotHandedOver(
        fields=("output_text", "refusal"),
        package="langchain-google-genai",
        place="langchain_google_genai.llms.GoogleGenerativeAI._stream",
        why="Of the chat model's chunks it keeps the text.",
        clients=("GoogleGenerativeAI",),
        forms=STREAM,
        answers=("prompt blocked",),
    ),
    NotHandedOver(
        fields=("cached_tokens", "reasoning_tokens"),
        package="langchain-core",
        place="langchain_core.language_models._compat_bridge._accumulate_usage",
        why="Adds the counts of chunks up but lets the last chunk's details stand, which are zero.",
        clients=GEMINI_CHATS,
        forms=V3,
    ),
)

_BEDROCK = (
    NotHandedOver(
        fields=("response_id",),
        package="langchain-aws",
        place="langchain_aws.llms.bedrock.LLMInputOutputAdapter.prepare_output, "
        "langchain_aws.llms.bedrock._stream_response_to_generation_chunk",
        why="The message's id is not read.",
        clients=("ChatBedrock", GUARDED),
    ),
    NotHandedOver(
        fields=("reasoning_tokens",),
        package="langchain-aws",
        place="langchain_aws.chat_models.bedrock.ChatBedrock._generate, "
        "langchain_aws.llms.bedrock._get_invocation_metrics_chunk",
        why="The counts are Bedrock's own, which have no such detail.",
        clients=("ChatBedrock",),
    ),
    NotHandedOver(
        fields=("finish_reason",),
        package="langchain-aws",
        place="langchain_aws.llms.bedrock.LLMInputOutputAdapter.prepare_output",
        why="Reads `stop_reason` of the body, which Amazon and Mistral call otherwise.",
        clients=("BedrockLLM, Amazon", "BedrockLLM, Mistral"),
        forms=WHOLE,
    ),
    NotHandedOver(
        fields=("finish_reason",),
        package="langchain-aws",
        place="langchain_aws.llms.bedrock._stream_response_to_generation_chunk",
        why="Of a chunk's `outputs`, where Mistral's reason is, the package takes the text alone.",
        clients=("BedrockLLM, Mistral",),
        forms=STREAM,
    ),
    NotHandedOver(
        fields=("time_to_first_token",),
        package="langchain-aws",
        place="langchain_aws.llms.bedrock.BedrockBase._prepare_input_and_invoke_stream",
        why="No chunk is told by `on_llm_new_token`.",
        clients=BEDROCK_LLMS,
    ),
    NotHandedOver(
        fields=COUNTS,
        package="langchain-aws",
        place="langchain_aws.llms.bedrock.LLMInputOutputAdapter.aprepare_output_stream",
        why="Ends at the chunk with the finish reason, before it is handed on.",
        clients=("BedrockLLM, Mistral",),
        forms=("astream",),
        answers=("text", "refused"),
    ),
)

_OTHERS = (
    NotHandedOver(
        fields=("output_tokens", "output_likelihoods", "cached_tokens"),
        package="langchain-cohere",
        place="langchain_cohere.chat_models.ChatCohere._get_generation_info_v2, "
        "langchain_cohere.chat_models.ChatCohere._get_stream_info_v2",
        why="Neither log probabilities nor cached tokens are read.",
        clients=("ChatCohere",),
    ),
    NotHandedOver(
        fields=("response_id",),
        package="langchain-cohere",
        place="langchain_cohere.chat_models.ChatCohere._get_stream_info_v2",
        why="The id is read of whole answers alone.",
        clients=("ChatCohere",),
        forms=STREAMED,
    ),
    NotHandedOver(
        fields=("reasoning_text",),
        package="langchain-core",
        place="langchain_core.language_models._compat_bridge._accumulate",
        why="Of a block that it does not know, the last chunk stands.",
        clients=("ChatCohere",),
        forms=V3,
        answers=("reasoning",),
        instead={"reasoning_text": "think."},
    ),
)


def _left(
    fields: tuple[str, ...],
    clients: tuple[str, ...],
    forms: tuple[str, ...],
    answers: tuple[str, ...] | None = None,
    *,
    instead: Mapping[str, str] | None = None,
) -> NotHandedOver:
    """Return what a consumer that leaves after the last chunk loses with it."""
    return NotHandedOver(
        fields=fields,
        package="langchain-core",
        place="langchain_core.language_models.llms.BaseLLM.stream, "
        "langchain_core.language_models.llms.BaseLLM.astream",
        why="A chunk is added to what is handed over after the consumer has had it, so that the"
        " last one is missing when the consumer goes away.",
        clients=clients,
        forms=forms,
        answers=answers,
        instead=instead or {},
    )


_END = ("outcome", "finish_reason")
_GONE = {"outcome": "disconnected", "error": "GeneratorExit"}

_LEFT = (
    _left(
        (*_END, *COUNTS),
        ("BedrockLLM, Amazon", STREAMING_LLM, "BedrockLLM, Anthropic", "OllamaLLM"),
        LEFT,
        instead=_GONE,
    ),
    _left(("model_name",), ("OllamaLLM",), LEFT),
    # Behind the finish reasons that it knows the package sends one more chunk, with the counts.
    _left((*_END, *COUNTS), ("BedrockLLM, Meta",), ("aleft",), instead=_GONE),
    _left((*_END, *COUNTS), ("BedrockLLM, Meta",), ("left",), ("cut at the limit",), instead=_GONE),
    _left(_END, ("BedrockLLM, Mistral",), LEFT, instead=_GONE),
    _left(COUNTS, ("BedrockLLM, Mistral",), ("aleft",)),
    _left(COUNTS, ("BedrockLLM, Mistral",), ("left",), ("cut at the limit",)),
    _left(
        ("output_text",),
        ("BedrockLLM, Mistral",),
        ("aleft",),
        ("text",),
        instead={"output_text": "Hello there, "},
    ),
    _left(
        ("output_text",),
        ("BedrockLLM, Mistral",),
        ("aleft",),
        ("refused",),
        instead={"output_text": ""},
    ),
)

_CUT = (
    NotHandedOver(
        fields=("output_text", "time_to_first_token"),
        package="aiohttp",
        place="aiohttp.streams.StreamReader",
        why="What has arrived is not read any more when the connection is cut meanwhile.",
        clients=GEMINI_CHATS,
        forms=("astream", "av3"),
        answers=("connection cut",),
        instead={
            "output_text": OneOf(("", "Hello ", "Hello there, ")),
            "time_to_first_token": OneOf((None, AnyOf(float))),
        },
    ),
)

NATIVE_NOT_HANDED_OVER: tuple[NotHandedOver, ...] = (
    *_ANTHROPIC,
    *_GOOGLE,
    *_BEDROCK,
    *_OTHERS,
    *_CUT,
    *_LEFT,
)
