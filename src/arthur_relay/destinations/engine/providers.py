"""Who serves a model, in OpenInference's words, by LangChain's `ls_provider`."""

from __future__ import annotations

PROVIDERS = {
    "azure_ai": "azure",
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "google_anthropic_vertex": "google",
    "google_genai": "google",
    "google_vertexai": "google",
    "vertex": "google",
    "vertexai": "google",
}
"""Providers that have another name there; all others have the same."""

SYSTEMS = {
    "anthropic": "anthropic",
    "azure": "openai",
    "azure_ai": "openai",
    "azure_openai": "openai",
    "cohere": "cohere",
    "google": "vertexai",
    "google_anthropic_vertex": "anthropic",
    "google_genai": "vertexai",
    "google_vertexai": "vertexai",
    "groq": "openai",
    "mistralai": "mistralai",
    "ollama": "openai",
    "openai": "openai",
    "vertex": "vertexai",
    "vertexai": "vertexai",
}
"""Whose API it speaks, of those of which OpenInference says so."""
