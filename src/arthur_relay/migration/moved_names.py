"""Where the names are now that programs with the old handler import.

The old handler needs a LangChain whose modules have moved since. The names are those of Arthur's
guide and of what is used beside them; tests hold that each one is where this says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Place(NamedTuple):
    """A module, and the name of something in it."""

    module: str
    name: str

    @property
    def package(self) -> str:
        """What has to be installed, as pip calls it."""
        return self.module.partition(".")[0].replace("_", "-")


HANDLER = "ArthurCallbackHandler"
NEW_HANDLER = Place("arthur_relay", HANDLER)

OLD_HANDLER_MODULES = (
    "langchain.callbacks.arthur_callback",
    "langchain.callbacks",
    "langchain_community.callbacks.arthur_callback",
    "langchain_community.callbacks",
)

_MESSAGES = (
    "AIMessage",
    "AIMessageChunk",
    "BaseMessage",
    "ChatMessage",
    "FunctionMessage",
    "HumanMessage",
    "SystemMessage",
    "ToolMessage",
    "get_buffer_string",
    "messages_from_dict",
)
_OUTPUTS = ("ChatGeneration", "ChatResult", "Generation", "LLMResult")
_CALLBACKS = (
    "AsyncCallbackHandler",
    "AsyncCallbackManager",
    "BaseCallbackHandler",
    "BaseCallbackManager",
    "CallbackManager",
    "StdOutCallbackHandler",
    "StreamingStdOutCallbackHandler",
)
_PROMPTS = (
    "AIMessagePromptTemplate",
    "ChatPromptTemplate",
    "FewShotPromptTemplate",
    "HumanMessagePromptTemplate",
    "MessagesPlaceholder",
    "PromptTemplate",
    "SystemMessagePromptTemplate",
)
_CHAT_MODELS = ("AzureChatOpenAI", "ChatOpenAI")
_COMPLETION_MODELS = ("AzureOpenAI", "OpenAI")

_MOVES: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (("langchain.schema", "langchain.schema.messages"), _MESSAGES, "langchain_core.messages"),
    (("langchain.schema", "langchain.schema.output"), _OUTPUTS, "langchain_core.outputs"),
    (("langchain.schema", "langchain.schema.document"), ("Document",), "langchain_core.documents"),
    (("langchain.docstore.document",), ("Document",), "langchain_core.documents"),
    (
        ("langchain.schema", "langchain.schema.output_parser"),
        ("BaseOutputParser", "StrOutputParser"),
        "langchain_core.output_parsers",
    ),
    (
        (
            "langchain.callbacks",
            "langchain.callbacks.base",
            "langchain.callbacks.manager",
            "langchain.callbacks.stdout",
            "langchain.callbacks.streaming_stdout",
        ),
        _CALLBACKS,
        "langchain_core.callbacks",
    ),
    (("langchain.prompts", "langchain.prompts.chat"), _PROMPTS, "langchain_core.prompts"),
    (
        (
            "langchain.chat_models",
            "langchain.chat_models.openai",
            "langchain_community.chat_models",
            "langchain_community.chat_models.openai",
        ),
        _CHAT_MODELS,
        "langchain_openai",
    ),
    (
        (
            "langchain.llms",
            "langchain.llms.openai",
            "langchain_community.llms",
            "langchain_community.llms.openai",
        ),
        _COMPLETION_MODELS,
        "langchain_openai",
    ),
)

KEPT_MODULES = frozenset(
    {
        "langchain",
        "langchain.agents",
        "langchain.chat_models",
        "langchain.embeddings",
        "langchain.messages",
        "langchain.rate_limiters",
        "langchain.tools",
    }
)
"""The modules that LangChain 1 still has."""

MODEL_CLASSES = frozenset({*_CHAT_MODELS, *_COMPLETION_MODELS})


def _moves() -> Iterator[tuple[str, Place]]:
    for module in OLD_HANDLER_MODULES:
        yield f"{module}.{HANDLER}", NEW_HANDLER
    for modules, names, now in _MOVES:
        yield from ((f"{module}.{name}", Place(now, name)) for module in modules for name in names)


MOVED = dict(_moves())
"""From a name with its old module to its place now."""

NEW_HOMES = frozenset(place.module for place in MOVED.values())


def place_of(names: Iterable[str]) -> Place | None:
    """Return where one of these full names is now, or None when none of them has moved."""
    return next((MOVED[name] for name in names if name in MOVED), None)


def is_gone(module: str) -> bool:
    """Return whether a module is one of LangChain's that LangChain 1 does not have."""
    if not module.startswith("langchain."):
        return False
    return ".".join(module.split(".")[:2]) not in KEPT_MODULES
