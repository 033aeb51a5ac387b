"""The texts of an answer, with any langchain-core: what it says, its refusal, its reasoning.

Before 1.2.12, LangChain takes only the first text block of an answer as its text. So the text is
assembled here, by the rule of `message.text` in later versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from arthur_relay.encoding.facts import finish_reason, refusal_note
from arthur_relay.encoding.reading import plain_text, read, read_first
from arthur_relay.inference import PartKind

if TYPE_CHECKING:
    from arthur_relay.inference import GenerationSnapshot

_REASONING_TEXTS = ("reasoning", "thinking", "reasoning_content", "text", "content")
"""The names that LangChain and the providers have for the text of a reasoning block."""


def output_text(generation: GenerationSnapshot) -> Any:
    """Return what the model said to the user: its text, else its refusal, else its spoken words.

    If the model refused halfway, the refusal follows the text. Reasoning is never included.
    """
    if generation.parts is None and not generation.facts:
        return generation.text
    return _with_refusal(_text(generation), generation)


def _text(generation: GenerationSnapshot) -> Any:
    if generation.parts is None:
        text = generation.text
        return text or _transcript(generation) or text
    return _joined(generation, PartKind.TEXT) or _transcript(generation)


def _with_refusal(text: Any, generation: GenerationSnapshot) -> Any:
    refused = refusal(generation)
    if refused is None or not isinstance(text, str) or refused in text:
        return text
    return text + refused


def refusal(generation: GenerationSnapshot) -> str | None:
    """Return the refusal of the model or its provider, or None."""
    if generation.parts is not None and (blocks := _joined(generation, PartKind.REFUSAL)):
        return blocks
    for facts in generation.facts:
        if "refusal" in facts:
            found = plain_text(facts["refusal"])
            if found is not None:
                return found
    return refusal_note(generation)


def is_complete(generation: GenerationSnapshot) -> bool:
    """Return whether the answer is complete: the model stopped, or this was the last chunk."""
    return generation.is_last or finish_reason(generation) is not None


def reasoning_text(generation: GenerationSnapshot) -> str | None:
    """Return the model's reasoning, as far as the provider returns it, or None."""
    found = "".join(
        text
        for kind, block in generation.parts or ()
        if kind == PartKind.REASONING
        for text in _reasoning_texts(block)
    )
    if found:
        return found
    for facts in generation.facts:
        for name in ("reasoning_content", "reasoning", "thinking", "thinking_blocks"):
            found = "".join(_reasoning_texts(facts.get(name)))
            if found:
                return found
        details = facts.get("reasoning_details")  # OpenRouter
        if found := "".join(_reasoning_texts(details)):
            return found
    return None


def _reasoning_texts(holder: Any, depth: int = 4) -> Iterator[str]:
    """Yield the texts of reasoning, whatever wraps them: lists, summaries, blocks in blocks."""
    if isinstance(holder, str):
        yield holder
    elif depth <= 0:
        return
    elif isinstance(holder, (list, tuple)):
        for item in holder:
            yield from _reasoning_texts(item, depth - 1)
    elif isinstance(holder, Mapping):
        found = read_first(holder, _REASONING_TEXTS)
        if not found:  # OpenAI returns a summary, in parts
            found = holder.get("summary")
        yield from _reasoning_texts(found, depth - 1)


def _transcript(generation: GenerationSnapshot) -> str:
    """Return the transcript of an audio answer, or an empty text."""
    for facts in generation.facts:
        found = plain_text(read(facts.get("audio"), "transcript"))
        if found is not None:
            return found
    return ""


def _joined(generation: GenerationSnapshot, kind: str) -> str:
    found = [text for each, text in generation.parts or () if each == kind]
    return "".join([text for text in found if isinstance(text, str)])
