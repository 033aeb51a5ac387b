"""A message's attributes: role, contents, tool calls, by OpenInference's names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from openinference.semconv.trace import (
    ImageAttributes,
    MessageAttributes,
    MessageContentAttributes,
    ToolCallAttributes,
)

from arthur_relay.destinations.engine.direct_json import WrittenMessage
from arthur_relay.destinations.engine.hiding import REDACTED
from arthur_relay.destinations.engine.span_json import JsonWriter, TextParts
from arthur_relay.encoding.reading import plain_text
from arthur_relay.inference import ObjectSnapshot

Attribute = tuple[str, Any]

MAX_PARTS = 1_000
"""How many blocks, and how many calls, are written of a message; its JSON has more of them."""

_ROLES_BY_CLASS = {
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "SystemMessage": "system",
    "FunctionMessage": "function",
    "ToolMessage": "tool",
}
_NAMES = (
    ("tool_call_id", MessageAttributes.MESSAGE_TOOL_CALL_ID),
    ("name", MessageAttributes.MESSAGE_NAME),
)
_CHAT, _REMOVE = "ChatMessage", "RemoveMessage"
_ROLES_BY_TYPE = {
    "human": "user",
    "ai": "assistant",
    "system": "system",
    "function": "function",
    "tool": "tool",
}

_IMAGE = f"{MessageContentAttributes.MESSAGE_CONTENT_IMAGE}.{ImageAttributes.IMAGE_URL}"


class WholeTexts(TextParts, Protocol):
    """Knows what may be told of each text of a span."""

    @property
    def omitted(self) -> int:
        """How many values were cut, left out, or sent in another form."""
        ...

    def whole(self, text: str) -> str:
        """Return what may be told of a text that is an attribute's value."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageWriter:
    """Writes the attributes of messages to a model, or of a model.

    Attributes:
        json: Writes arguments.
        texts: What may be told of each text.
        hides_text: Whether the texts are hidden.
        hides_images: Whether images are left out.
    """

    json: JsonWriter
    texts: WholeTexts
    hides_text: bool = False
    hides_images: bool = False

    def attributes(self, prefix: str, messages: Sequence[Any]) -> Iterator[Attribute]:
        """Yield the attributes of messages: snapshots, or mappings that stand for messages."""
        for index, message in enumerate(messages):
            name = f"{prefix}.{index}."
            if isinstance(message, ObjectSnapshot):
                for attribute, value in self._of_copy(message):
                    yield name + attribute, value
            elif (role := _role_of_mapping(message)) is not None:
                yield name + MessageAttributes.MESSAGE_ROLE, self.texts.whole(role)

    def _of_copy(self, message: ObjectSnapshot) -> Iterable[Attribute]:
        """Return a message's attributes, which are kept with its copy for other spans.

        They are found anew where a text may be redacted, hidden or cut, and where something was
        omitted, which is counted for each span.
        """
        written, texts = message.written, self.texts
        if (
            type(written) is not WrittenMessage
            or written.extent is None
            or texts.redacts
            or self.hides_text
            or self.hides_images
        ):
            return self._found(message)
        kept = written.attributes
        if kept is None:
            omitted, characters, values = texts.omitted, texts.characters, texts.values
            pairs = [*self._found(message)]
            if texts.omitted == omitted:
                spent = characters - texts.characters, values - texts.values
                written.attributes = pairs, *spent
            return pairs
        pairs, characters, values = kept
        if characters > texts.characters or values > texts.values:
            return self._found(message)
        texts.spend(characters=characters, values=values)
        return pairs

    def _found(self, message: ObjectSnapshot) -> Iterator[Attribute]:
        fields = message.fields
        role = _role(message.cls, fields)
        if role is not None:
            yield MessageAttributes.MESSAGE_ROLE, self.texts.whole(role)
        content = fields.get("content")
        if type(content) is str:  # nearly always
            if content:
                yield MessageAttributes.MESSAGE_CONTENT, self._text(content)
        else:
            yield from self._contents("", content)
        for field, attribute in _NAMES:
            value = fields.get(field)
            if value is not None and (named := plain_text(value)) is not None:
                yield attribute, self.texts.whole(named)
        if fields.get("tool_calls") or fields.get("additional_kwargs"):
            yield from self._calls("", fields)

    def pair(self, prefix: str, role: str, content: Any) -> Iterator[Attribute]:
        """Yield the attributes of a message that is given as a role and a text."""
        yield f"{prefix}.0.{MessageAttributes.MESSAGE_ROLE}", self.texts.whole(role)
        if isinstance(content, str):
            yield f"{prefix}.0.{MessageAttributes.MESSAGE_CONTENT}", self._text(content)

    def _text(self, text: str) -> str:
        return REDACTED if self.hides_text else self.texts.whole(text)

    def _contents(self, name: str, content: Any) -> Iterator[Attribute]:
        if isinstance(content, str):
            if content:
                yield name + MessageAttributes.MESSAGE_CONTENT, self._text(content)
        elif isinstance(content, (list, tuple)):
            for index, block in enumerate(content[:MAX_PARTS]):
                prefix = f"{name}{MessageAttributes.MESSAGE_CONTENTS}.{index}."
                yield from self._block(prefix, block)

    def _block(self, prefix: str, block: Any) -> Iterator[Attribute]:
        text_name = prefix + MessageContentAttributes.MESSAGE_CONTENT_TEXT
        type_name = prefix + MessageContentAttributes.MESSAGE_CONTENT_TYPE
        if isinstance(block, str):
            yield text_name, self._text(block)
        elif isinstance(block, Mapping):
            kind = block.get("type")
            if kind == "text":
                yield type_name, "text"
                text = block.get("text")
                if isinstance(text, str) and text:
                    yield text_name, self._text(text)
            elif kind == "image_url" and not self.hides_images:
                yield type_name, "image"
                image = block.get("image_url")
                url = image.get("url") if isinstance(image, Mapping) else image
                if isinstance(url, str) and url:
                    yield prefix + _IMAGE, self._url(url)
            elif kind == "image_url":
                yield type_name, "image"

    def _url(self, url: str) -> str:
        if url.startswith("data:image/") and len(url) > self.texts.longest_image:
            return REDACTED
        return self.texts.whole(url)

    def _calls(self, name: str, fields: Mapping[str, Any]) -> Iterator[Attribute]:
        extras = fields.get("additional_kwargs")
        extras = extras if isinstance(extras, Mapping) else {}
        function = extras.get("function_call")
        if isinstance(function, Mapping):
            called = plain_text(function.get("name"))
            if called is not None:
                yield name + MessageAttributes.MESSAGE_FUNCTION_CALL_NAME, self.texts.whole(called)
            arguments = self._arguments(function.get("arguments"))
            if arguments is not None:
                attribute = MessageAttributes.MESSAGE_FUNCTION_CALL_ARGUMENTS_JSON
                yield name + attribute, arguments
        # The provider's own list, if there is one, has what the model wrote; some packages have
        # objects of their own in it.
        calls = _mappings(extras.get("tool_calls")) or _mappings(fields.get("tool_calls"))
        for index, call in enumerate(calls):
            prefix = f"{name}{MessageAttributes.MESSAGE_TOOL_CALLS}.{index}."
            yield from self._call(prefix, call)

    def _call(self, prefix: str, call: Mapping[str, Any]) -> Iterator[Attribute]:
        call_id = call.get("id")
        if isinstance(call_id, str):
            yield prefix + ToolCallAttributes.TOOL_CALL_ID, self.texts.whole(call_id)
        function = call.get("function")
        if isinstance(function, Mapping):
            called, arguments = function.get("name"), function.get("arguments")
        else:
            called, arguments = call.get("name"), call.get("args")
        if (called := plain_text(called)) is not None:
            yield prefix + ToolCallAttributes.TOOL_CALL_FUNCTION_NAME, self.texts.whole(called)
        if (written := self._arguments(arguments)) is not None:
            yield prefix + ToolCallAttributes.TOOL_CALL_FUNCTION_ARGUMENTS_JSON, written

    def _arguments(self, arguments: Any) -> str | None:
        if not arguments:
            return None
        if self.hides_text:
            return self.json.write_for_reader(REDACTED)
        if isinstance(arguments, str):
            return self.json.json_text(arguments)
        return self.json.write_for_reader(arguments)


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    items = found[:MAX_PARTS] if isinstance(found, (list, tuple)) else ()
    return [each for each in items if isinstance(each, Mapping)]


def _role(cls: type, fields: Mapping[str, Any]) -> str | None:
    name = _known_name(cls)
    if name in _ROLES_BY_CLASS:
        return _ROLES_BY_CLASS[name]
    if name == _CHAT:
        return plain_text(fields.get("role"))
    return None if name == _REMOVE else _inferred_role(fields)


@lru_cache(maxsize=64)
def _known_name(cls: type) -> str:
    """Return the name of LangChain's class that a message's class is, or is derived of, or ""."""
    for each in cls.__mro__:
        for known in (*_ROLES_BY_CLASS, _CHAT, _REMOVE):
            if each.__name__.startswith(known):  # a chunk's class too
                return known
    return ""


def _inferred_role(fields: Mapping[str, Any]) -> str | None:
    if fields.get("tool_call_id"):
        return "tool"
    if fields.get("tool_calls"):
        return "assistant"
    return plain_text(fields.get("role"))


def _role_of_mapping(message: Any) -> str | None:
    if not isinstance(message, Mapping):
        return None
    kind = message.get("type")
    if isinstance(kind, str):
        if kind.lower() == "remove":
            return None
        if role := _ROLES_BY_TYPE.get(kind.lower()):
            return role
    return plain_text(message.get("role")) or ("assistant" if message.get("tool_calls") else None)
