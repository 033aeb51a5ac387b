"""The clients of providers that have a wire format of their own."""

from __future__ import annotations

from functools import cache
from typing import Any

from .client import ASKED_FOR, KEY, Client, but
from .forms import FORMS
from .loss import WHOLE
from .wire import anthropic, bedrock, bedrock_invoke, cohere, gemini, ollama

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
"""The packages look into Bedrock's names for the vendor and the model's generation."""

COMPLETIONS = ("text", "cut at the limit", "refused", "connection cut", "provider error")
"""The answers that completions have."""

_THINKING: dict[str, Any] = {
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "max_tokens": 2048,
}


def _tools() -> list[Any]:
    from langchain_core.tools import tool

    @tool
    def get_weather(city: str) -> str:
        """Return a city's weather."""
        return f"The weather in {city} is fine."

    return [get_weather]


def _with_tools(model: Any, answer_has_calls: bool) -> Any:
    return model.bind_tools(_tools()) if answer_has_calls else model


_CALLS: dict[str, dict[str, Any]] = {
    "tool call": {"calls": True},
    "broken tool call": {"calls": True},
}


def _anthropic(url: str, *, calls: bool = False, **options: Any) -> Any:
    from langchain_anthropic import ChatAnthropic

    model = ChatAnthropic(
        model=ASKED_FOR,
        base_url=url,
        api_key=KEY,
        max_retries=0,
        **options,
    )
    return _with_tools(model, calls)


def _anthropic_thinking(url: str, **options: Any) -> Any:
    return _anthropic(url, **_THINKING, **options)


def _anthropic_v1(url: str, **options: Any) -> Any:
    return _anthropic_thinking(url, output_version="v1", **options)


def _google(url: str, *, model: str = ASKED_FOR, calls: bool = False) -> Any:
    from langchain_google_genai import ChatGoogleGenerativeAI

    client = ChatGoogleGenerativeAI(
        model=model,
        base_url=url,
        api_key=KEY,
        max_retries=1,
    )
    return _with_tools(client, calls)


def _google_llm(url: str) -> Any:
    from langchain_google_genai import GoogleGenerativeAI

    return GoogleGenerativeAI(
        model=ASKED_FOR,
        base_url=url,
        api_key=KEY,
        max_retries=1,
    )


@cache  # reading the descriptions of the APIs takes longer than all the rest of a test
def _runtime(url: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id=KEY,
        aws_secret_access_key=KEY,
        config=Config(retries={"total_max_attempts": 1}),
    )


def _aws(url: str) -> dict[str, Any]:
    """Return arguments with which a client of Bedrock asks this server, and no other."""
    runtime = _runtime(url)
    return {"client": runtime, "bedrock_client": object(), "region_name": "eu-central-1"}


def _converse(url: str, *, calls: bool = False, **options: Any) -> Any:
    from langchain_aws import ChatBedrockConverse

    return _with_tools(ChatBedrockConverse(model=CLAUDE, **_aws(url), **options), calls)


def _bedrock(url: str, *, calls: bool = False, **options: Any) -> Any:
    from langchain_aws import ChatBedrock

    return _with_tools(ChatBedrock(model=CLAUDE, **_aws(url), **options), calls)


def _bedrock_guarded(url: str) -> Any:
    guardrails = {"guardrailIdentifier": "guard", "guardrailVersion": "1", "trace": True}
    return _bedrock(url, guardrails=guardrails)


def _bedrock_llm(url: str, **options: Any) -> Any:
    from langchain_aws import BedrockLLM

    return BedrockLLM(**_aws(url), **options)


def _ollama(url: str, *, calls: bool = False, **options: Any) -> Any:
    from langchain_ollama import ChatOllama

    model = ChatOllama(model=ASKED_FOR, base_url=url, reasoning=True, **options)
    return _with_tools(model, calls)


def _ollama_llm(url: str) -> Any:
    from langchain_ollama import OllamaLLM

    return OllamaLLM(model=ASKED_FOR, base_url=url, reasoning=True)


def _cohere(url: str, *, calls: bool = False) -> Any:
    from langchain_cohere import ChatCohere

    model = ChatCohere(
        model=ASKED_FOR,
        base_url=url,
        cohere_api_key=KEY,
    )
    return _with_tools(model, calls)


def _bedrock_completions(vendor: str, model: str, wire: Any, **options: Any) -> Client:
    streaming = options.pop("streaming", False)

    def make(url: str) -> Any:
        return _bedrock_llm(url, model=model, streaming=streaming)

    return Client(
        name=f"BedrockLLM, {vendor}",
        package="langchain-aws",
        make=make,
        wire=wire,
        provider="amazon_bedrock",
        answers=COMPLETIONS,
        chat=False,
        asked_for=model,
        ends_twice=True,
        **options,
    )


# Their asynchronous call for a whole answer is refused by the package unless `streaming` is set.
_NOT_AINVOKE = ("invoke", "stream", "astream", "left", "aleft")

_BEDROCK_LLMS = (
    _bedrock_completions(
        "Amazon", "amazon.titan-text-express-v1", bedrock_invoke.AMAZON, forms=_NOT_AINVOKE
    ),
    _bedrock_completions(
        "Amazon, streaming=True",
        "amazon.titan-text-express-v1",
        bedrock_invoke.AMAZON,
        streaming=True,
        streams_inside=True,
    ),
    _bedrock_completions(
        "Anthropic", "anthropic.claude-v2:1", bedrock_invoke.ANTHROPIC, forms=_NOT_AINVOKE
    ),
    _bedrock_completions(
        "Meta", "meta.llama3-8b-instruct-v1:0", bedrock_invoke.META, forms=_NOT_AINVOKE
    ),
    _bedrock_completions(
        "Mistral", "mistral.mistral-7b-instruct-v0:2", bedrock_invoke.MISTRAL, forms=_NOT_AINVOKE
    ),
)

NATIVE_CLIENTS: tuple[Client, ...] = (
    Client(
        name="ChatAnthropic",
        package="langchain-anthropic",
        make=_anthropic,
        wire=anthropic.WIRE,
        provider="anthropic",
        answers=(*but("likelihoods"), "prompt blocked", "web search"),
        options={
            **_CALLS,
            "web search": {"model_kwargs": {"tools": [{"type": "web_search_20250305"}]}},
        },
    ),
    Client(
        name="ChatAnthropic, thinking",
        package="langchain-anthropic",
        make=_anthropic_thinking,
        wire=anthropic.WIRE,
        provider="anthropic",
        answers=(*but("likelihoods"), "prompt blocked", "web search"),
        options=_CALLS,
    ),
    Client(
        name='ChatAnthropic, output_version="v1"',
        package="langchain-anthropic",
        make=_anthropic_v1,
        wire=anthropic.WIRE,
        provider="anthropic",
        answers=(*but("likelihoods"), "prompt blocked", "web search"),
        options=_CALLS,
    ),
    Client(
        name="ChatGoogleGenerativeAI",
        package="langchain-google-genai",
        make=_google,
        wire=gemini.WIRE,
        provider="google_genai",
        answers=(*but("likelihoods"), "prompt blocked"),
        options=_CALLS,
    ),
    Client(
        name="ChatGoogleGenerativeAI, Gemini 3",
        package="langchain-google-genai",
        make=lambda url, **options: _google(url, model="gemini-3-asked", **options),
        wire=gemini.WIRE_3,
        provider="google_genai",
        asked_for="gemini-3-asked",
        answers=(*but("likelihoods"), "prompt blocked"),
        options=_CALLS,
    ),
    Client(
        name="GoogleGenerativeAI",
        package="langchain-google-genai",
        make=_google_llm,
        wire=gemini.WIRE,
        provider="google_genai",
        answers=(*COMPLETIONS, "reasoning", "prompt blocked"),
        chat=False,
    ),
    Client(
        name="ChatBedrockConverse",
        package="langchain-aws",
        make=_converse,
        wire=bedrock.WIRE,
        provider="amazon_bedrock",
        answers=(*but("likelihoods"), "prompt blocked"),
        asked_for=CLAUDE,
        options={
            **_CALLS,
            "reasoning": {"additional_model_response_field_paths": ["/usage"]},
        },
    ),
    Client(
        name="ChatBedrock",
        package="langchain-aws",
        make=_bedrock,
        wire=bedrock_invoke.MESSAGES,
        provider="amazon_bedrock",
        answers=(*but("likelihoods"), "prompt blocked"),
        asked_for=CLAUDE,
        options={**_CALLS, "reasoning": {"model_kwargs": _THINKING}},
        ends_twice=True,
    ),
    Client(
        name="ChatBedrock, guardrail with trace",
        package="langchain-aws",
        make=_bedrock_guarded,
        wire=bedrock_invoke.GUARDED,
        provider="amazon_bedrock",
        answers=("text", "prompt blocked"),
        asked_for=CLAUDE,
        ends_twice=True,
    ),
    *_BEDROCK_LLMS,
    Client(
        name="ChatOllama",
        package="langchain-ollama",
        make=_ollama,
        wire=ollama.WIRE,
        provider="ollama",
        # Of arguments that are no JSON, Ollama itself makes an error of the server.
        answers=but("broken tool call"),
        options={**_CALLS, "likelihoods": {"logprobs": True, "top_logprobs": 2}},
        streams_inside=True,
    ),
    Client(
        name="OllamaLLM",
        package="langchain-ollama",
        make=_ollama_llm,
        wire=ollama.WIRE,
        provider="ollama",
        answers=(*COMPLETIONS, "reasoning"),
        chat=False,
        streams_inside=True,
    ),
    Client(
        name="ChatCohere",
        package="langchain-cohere",
        make=_cohere,
        wire=cohere.WIRE,
        provider="cohere",
        # When the consumer of an asynchronous stream goes away, the package leaves the connection
        # open, and a test may not.
        forms=tuple(name for name in FORMS if name != "aleft"),
        options=_CALLS,
        raises={"broken tool call": WHOLE},
    ),
)
