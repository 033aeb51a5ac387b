"""The real client classes of LangChain that are tried.

The packages are imported when a client is made, so that the table can be read without them.
"""

from __future__ import annotations

from typing import Any

from .client import ASKED_FOR, KEY, LIKELIHOODS, Client, but
from .native_clients import NATIVE_CLIENTS
from .wire import completions, dialects, responses

# The time limit between chunks is kept with `asyncio.wait_for`, which loses cancellations on
# Python 3.11 when they meet a chunk.
_OPENAI: dict[str, Any] = {
    "model": ASKED_FOR,
    "api_key": KEY,
    "max_retries": 0,
    "stream_usage": True,
    "stream_chunk_timeout": None,
}


def _chat_openai(url: str, **options: Any) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=f"{url}/v1", **_OPENAI, **options)


def _responses(url: str, **options: Any) -> Any:
    return _chat_openai(url, use_responses_api=True, **options)


def _azure(url: str, **options: Any) -> Any:
    from langchain_openai import AzureChatOpenAI

    return AzureChatOpenAI(
        azure_endpoint=url,
        azure_deployment=ASKED_FOR,
        api_version="2026-01-01",
        **_OPENAI,
        **options,
    )


def _completions(url: str, **options: Any) -> Any:
    from langchain_openai import OpenAI

    return OpenAI(
        model=ASKED_FOR,
        base_url=f"{url}/v1",
        api_key=KEY,  # type: ignore[arg-type]  # pydantic makes a secret of it
        max_retries=0,
        **options,
    )


def _deepseek(url: str, **options: Any) -> Any:
    from langchain_deepseek import ChatDeepSeek

    return ChatDeepSeek(base_url=f"{url}/v1", **_OPENAI, **options)


def _xai(url: str, **options: Any) -> Any:
    from langchain_xai import ChatXAI

    return ChatXAI(base_url=f"{url}/v1", **_OPENAI, **options)


def _together(url: str, **options: Any) -> Any:
    from langchain_together import ChatTogether

    return ChatTogether(base_url=f"{url}/v1", **_OPENAI, **options)


def _fireworks(url: str, **options: Any) -> Any:
    from langchain_fireworks import ChatFireworks

    return ChatFireworks(model=ASKED_FOR, base_url=url, api_key=KEY, max_retries=0, **options)


def _groq(url: str, **options: Any) -> Any:
    from langchain_groq import ChatGroq

    return ChatGroq(model=ASKED_FOR, base_url=url, api_key=KEY, max_retries=0, **options)


def _mistral(url: str, **options: Any) -> Any:
    from langchain_mistralai import ChatMistralAI

    return ChatMistralAI(
        model=ASKED_FOR, base_url=f"{url}/v1", api_key=KEY, max_retries=1, **options
    )


def _openrouter(url: str, **options: Any) -> Any:
    from langchain_openrouter import ChatOpenRouter

    model = ChatOpenRouter(model=ASKED_FOR, base_url=f"{url}/v1", api_key=KEY, **options)
    # Without retries of its own the class leaves it to its SDK, which goes on for an hour.
    model.client.sdk_configuration.retry_config.strategy = "none"
    return model


def _hugging_face(url: str, **options: Any) -> Any:
    from langchain_huggingface import ChatHuggingFace, HuggingFaceEndpoint

    endpoint = HuggingFaceEndpoint(endpoint_url=f"{url}/v1/chat/completions", timeout=10)
    return ChatHuggingFace(llm=endpoint, model_id=ASKED_FOR, stream_usage=True, **options)


def _litellm(url: str, **options: Any) -> Any:
    from langchain_litellm import ChatLiteLLM

    return ChatLiteLLM(
        model=f"openai/{ASKED_FOR}", api_base=f"{url}/v1", api_key=KEY, max_retries=0, **options
    )


CLIENTS: tuple[Client, ...] = (
    Client(
        name="ChatOpenAI, Chat Completions",
        package="langchain-openai",
        make=_chat_openai,
        wire=dialects.OPENAI,
        provider="openai",
        answers=but("reasoning"),
        options=LIKELIHOODS,
    ),
    Client(
        name="ChatOpenAI, Responses API",
        package="langchain-openai",
        make=_responses,
        wire=responses.WIRE,
        provider="openai",
        options={
            "likelihoods": {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
            "reasoning": {"reasoning": {"summary": "auto"}},
        },
    ),
    Client(
        name="AzureChatOpenAI",
        package="langchain-openai",
        make=_azure,
        wire=dialects.AZURE,
        provider="azure",
        raises={"refused": ("invoke", "ainvoke")},
        answers=but("reasoning"),
        options=LIKELIHOODS,
    ),
    Client(
        name="OpenAI",
        package="langchain-openai",
        make=_completions,
        wire=completions.WIRE,
        provider="openai",
        answers=("text", "likelihoods", "cut at the limit", "connection cut", "provider error"),
        chat=False,
        options={"likelihoods": {"logprobs": 2}},
    ),
    Client(
        name="ChatDeepSeek",
        package="langchain-deepseek",
        make=_deepseek,
        wire=dialects.DEEPSEEK,
        provider="deepseek",
        options=LIKELIHOODS,
    ),
    Client(
        name="ChatXAI",
        package="langchain-xai",
        make=_xai,
        wire=dialects.XAI,
        provider="xai",
        options=LIKELIHOODS,
    ),
    Client(
        name="ChatFireworks",
        package="langchain-fireworks",
        make=_fireworks,
        wire=dialects.FIREWORKS,
        provider="fireworks",
        options={"likelihoods": {"model_kwargs": {"logprobs": True, "top_logprobs": 2}}},
    ),
    Client(
        name="ChatTogether",
        package="langchain-together",
        make=_together,
        wire=dialects.TOGETHER,
        provider="together",
        answers=but("reasoning"),
        options={"likelihoods": {"logprobs": True}},
    ),
    Client(
        name="ChatOpenRouter",
        package="langchain-openrouter",
        make=_openrouter,
        wire=dialects.OPENROUTER,
        provider="openrouter",
        options={"likelihoods": {"model_kwargs": {"logprobs": True, "top_logprobs": 2}}},
    ),
    Client(
        name="ChatGroq",
        package="langchain-groq",
        make=_groq,
        wire=dialects.GROQ,
        provider="groq",
        options={"likelihoods": {"model_kwargs": {"logprobs": True, "top_logprobs": 2}}},
    ),
    Client(
        name="ChatMistralAI",
        package="langchain-mistralai",
        make=_mistral,
        wire=dialects.MISTRAL,
        provider="mistral",
        answers=but("likelihoods"),
    ),
    Client(
        name="ChatHuggingFace",
        package="langchain-huggingface",
        make=_hugging_face,
        wire=dialects.HUGGING_FACE,
        provider="huggingface",
        asked_for=None,
        answers=but("reasoning"),
        options={"likelihoods": {"model_kwargs": {"logprobs": True, "top_logprobs": 2}}},
    ),
    Client(
        name="ChatLiteLLM",
        package="langchain-litellm",
        make=_litellm,
        wire=dialects.LITELLM,
        provider="litellm",
        asked_for=f"openai/{ASKED_FOR}",
        options={"likelihoods": {"model_kwargs": {"logprobs": True, "top_logprobs": 2}}},
    ),
    *NATIVE_CLIENTS,
)
