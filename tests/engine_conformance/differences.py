"""Where our spans differ from OpenInference's on purpose, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """A difference that is meant.

    Attributes:
        name: The attribute, or `exception` for a span's exception event.
        why: Why it is meant.
        scenarios: Where it is seen; in each of them it has to be.
    """

    name: str
    why: str
    scenarios: tuple[str, ...]


_TOOLS = ("agent", "async_agent", "streamed_agent", "failing_tool", "tools_alone")

DIFFERENCES = (
    Difference(
        "tool.parameters",
        "The Engine shows what a tool was given by this attribute; OpenInference's `input.value`"
        " has it without the parameters' names when there is but one.",
        _TOOLS,
    ),
    Difference(
        "user.id",
        "OpenInference knows a user from OpenTelemetry's context only; our users name theirs in"
        " the metadata, beside the session.",
        ("own_metadata_and_tags",),
    ),
    Difference(
        "tag.tags",
        "OpenInference leaves out the tags that an application gives its runs.",
        ("own_metadata_and_tags",),
    ),
    Difference(
        "exception",
        "An interrupt of a graph is no exception: it waits for a person.",
        ("interrupted_graph",),
    ),
    Difference(
        "exception",
        "Of a cancellation OpenInference has a text alone; ours is told as any other exception.",
        ("cancelled_chain",),
    ),
    Difference(
        "session.id",
        "A session's id is a text, also when an application has numbers for it.",
        ("metadata_of_all_kinds",),
    ),
    Difference(
        "input.value",
        "A large inline image is left out of the JSON too; OpenInference hides its attribute only.",
        ("contents_of_all_kinds",),
    ),
    *[
        Difference(
            f"llm.token_count.{name}",
            "Where LangChain has no counts of its own we take the provider's, by whatever name.",
            ("token_counts",),
        )
        for name in (
            *("prompt", "completion", "total", "completion_details.audio"),
            *("completion_details.reasoning", "prompt_details.audio"),
            *("prompt_details.cache_read", "prompt_details.cache_write"),
        )
    ],
    Difference(
        "output.value",
        "A prompt's messages of a model keep their tool calls; pydantic writes them as messages of"
        " no kind.",
        ("prompt_templates",),
    ),
    Difference(
        "output.value",
        "A model that failed before it said anything has no output; OpenInference writes the empty"
        " result of LangChain.",
        ("failing_model",),
    ),
    Difference("output.mime_type", "See `output.value`: there is no output.", ("failing_model",)),
)
