"""A prompt template's attributes, read from what LangChain says of a run's prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_MOST_STEPS = 4
"""A chain has a prompt, which has messages, the first of which has a template."""


class Template(NamedTuple):
    """A template, and the variables that were put into it.

    Attributes:
        text: The template.
        variables: The variables' values by name.
    """

    text: str
    variables: dict[str, Any]


def template_of(serialized: Any, inputs: Any) -> Template | None:
    """Return the template of a prompt's run, or None when LangChain says nothing of one.

    Args:
        serialized: LangChain's description of a prompt, or of a chain with one.
        inputs: What the run was given.
    """
    values: dict[str, Any] = dict(inputs) if isinstance(inputs, Mapping) else {}
    for _ in range(_MOST_STEPS):
        if not isinstance(serialized, Mapping):
            return None
        kwargs = serialized.get("kwargs")
        if not isinstance(kwargs, Mapping):
            return None
        prompt = kwargs.get("prompt")
        name = _class_name(serialized)
        if _class_name(prompt).endswith("PromptTemplate"):
            serialized = prompt
        elif name.endswith("ChatPromptTemplate"):
            messages = kwargs.get("messages")
            if not isinstance(messages, (list, tuple)) or not messages:
                return None
            partial = kwargs.get("partial_variables")
            if isinstance(partial, Mapping):
                values = {**partial, **values}
            serialized = messages[0]
        else:
            return _template(name, kwargs, values)
    return None


def _template(name: str, kwargs: Mapping[str, Any], values: Mapping[str, Any]) -> Template | None:
    text = kwargs.get("template")
    if not name.endswith("PromptTemplate") or not isinstance(text, str):
        return None
    names = kwargs.get("input_variables")
    names = names if isinstance(names, list) else []
    found = {each: value for each in names if (value := values.get(each)) is not None}
    return Template(text, found)


def _class_name(serialized: Any) -> str:
    ids = serialized.get("id") if isinstance(serialized, Mapping) else None
    return ids[-1] if isinstance(ids, list) and ids and isinstance(ids[-1], str) else ""
