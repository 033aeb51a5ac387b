"""The clients whose providers have APIs of their own: Anthropic, Gemini, Bedrock, Ollama, Cohere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from langchain_core.language_models import BaseLanguageModel

WEATHER = {
    "name": "get_weather",
    "description": "Get the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def chat_anthropic(url: str, **more: Any) -> BaseLanguageModel[Any]:
    from langchain_anthropic import ChatAnthropic

    return ChatAnthropic(
        model="claude-sonnet-4-5", base_url=url, api_key="key", max_retries=0, **more
    )


def chat_anthropic_thinking(url: str) -> BaseLanguageModel[Any]:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return chat_anthropic(url, thinking=thinking, max_tokens=2048)


def chat_anthropic_v1(url: str) -> BaseLanguageModel[Any]:
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return chat_anthropic(url, thinking=thinking, max_tokens=2048, output_version="v1")


def chat_google(url: str, model: str = "gemini-2.5-flash", **more: Any) -> BaseLanguageModel[Any]:
    from langchain_google_genai import ChatGoogleGenerativeAI

    return ChatGoogleGenerativeAI(
        model=model, base_url=url, api_version="v1beta", api_key="key", max_retries=1, **more
    )


def chat_google_3(url: str) -> BaseLanguageModel[Any]:
    return chat_google(url, "gemini-3-pro-preview")


def google_llm(url: str) -> BaseLanguageModel[Any]:
    from langchain_google_genai import GoogleGenerativeAI

    return GoogleGenerativeAI(
        model="gemini-2.5-flash", base_url=url, api_version="v1beta", api_key="key", max_retries=1
    )


def bedrock_runtime(url: str) -> Any:
    """A client of boto3 that asks this server, with made-up keys and without retries."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "bedrock-runtime",
        region_name="eu-central-1",
        endpoint_url=url,
        aws_access_key_id="key",
        aws_secret_access_key="secret",  # noqa: S106 - made up
        config=Config(retries={"total_max_attempts": 1}),
    )


def chat_bedrock_converse(url: str, **more: Any) -> BaseLanguageModel[Any]:
    from langchain_aws import ChatBedrockConverse

    return ChatBedrockConverse(
        model="anthropic.claude-sonnet-4-5-20250929-v1:0",
        client=bedrock_runtime(url),
        bedrock_client=object(),
        region_name="eu-central-1",
        **more,
    )


def chat_bedrock(url: str, **more: Any) -> BaseLanguageModel[Any]:
    from langchain_aws import ChatBedrock

    return ChatBedrock(
        model="anthropic.claude-sonnet-4-5-20250929-v1:0",
        client=bedrock_runtime(url),
        bedrock_client=object(),
        region_name="eu-central-1",
        **more,
    )


def chat_bedrock_thinking(url: str) -> BaseLanguageModel[Any]:
    return chat_bedrock(url, model_kwargs={"thinking": {"type": "enabled", "budget_tokens": 1024}})


def chat_bedrock_guarded(url: str) -> BaseLanguageModel[Any]:
    guardrails = {"guardrailIdentifier": "guard", "guardrailVersion": "1", "trace": True}
    return chat_bedrock(url, guardrails=guardrails)


def bedrock_llm(url: str, model: str = "amazon.titan-text-express-v1", **more: Any) -> Any:
    from langchain_aws import BedrockLLM

    return BedrockLLM(
        model=model,
        client=bedrock_runtime(url),
        bedrock_client=object(),
        region_name="eu-central-1",
        **more,
    )


def chat_ollama(url: str, **more: Any) -> BaseLanguageModel[Any]:
    from langchain_ollama import ChatOllama

    return ChatOllama(model="llama3.2", base_url=url, reasoning=True, **more)


def ollama_llm(url: str) -> BaseLanguageModel[Any]:
    from langchain_ollama import OllamaLLM

    return OllamaLLM(model="llama3.2", base_url=url, reasoning=True)


def chat_cohere(url: str) -> BaseLanguageModel[Any]:
    from langchain_cohere import ChatCohere

    return ChatCohere(model="command-a-03-2025", base_url=url, cohere_api_key="key")


CLIENTS: dict[str, Callable[[str], Any]] = {
    "ChatAnthropic": chat_anthropic,
    "ChatAnthropic thinking": chat_anthropic_thinking,
    "ChatAnthropic v1": chat_anthropic_v1,
    "ChatGoogleGenerativeAI": chat_google,
    "ChatGoogleGenerativeAI 3": chat_google_3,
    "GoogleGenerativeAI": google_llm,
    "ChatBedrockConverse": chat_bedrock_converse,
    "ChatBedrock": chat_bedrock,
    "ChatBedrock thinking": chat_bedrock_thinking,
    "ChatBedrock guarded": chat_bedrock_guarded,
    "BedrockLLM titan": bedrock_llm,
    "BedrockLLM claude": lambda url: bedrock_llm(url, "anthropic.claude-v2:1"),
    "BedrockLLM meta": lambda url: bedrock_llm(url, "meta.llama3-8b-instruct-v1:0"),
    "BedrockLLM mistral": lambda url: bedrock_llm(url, "mistral.mistral-7b-instruct-v0:2"),
    "BedrockLLM titan streaming": lambda url: bedrock_llm(url, streaming=True),
    "ChatOllama": chat_ollama,
    "ChatOllama logprobs": lambda url: chat_ollama(url, logprobs=True),
    "OllamaLLM": ollama_llm,
    "ChatCohere": chat_cohere,
}
