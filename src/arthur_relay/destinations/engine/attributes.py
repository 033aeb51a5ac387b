"""A run's attributes, the same that `openinference-instrumentation-langchain` gives its span.

Where this differs on purpose, `tests/engine_conformance` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any
from uuid import UUID

from openinference.semconv.trace import (
    DocumentAttributes,
    OpenInferenceMimeTypeValues,
    SpanAttributes,
    ToolAttributes,
)

from arthur_relay.destinations.engine import answer_facts
from arthur_relay.destinations.engine.hiding import REDACTED, Hiding
from arthur_relay.destinations.engine.message_attributes import MessageWriter
from arthur_relay.destinations.engine.message_forms import MessageForm
from arthur_relay.destinations.engine.providers import PROVIDERS, SYSTEMS
from arthur_relay.destinations.engine.span_json import MAX_CHARACTERS, JsonWriter, SpanJson
from arthur_relay.destinations.engine.template_attributes import template_of
from arthur_relay.encoding.foreign_objects import ForeignObjects
from arthur_relay.encoding.omissions import CountsOmissions
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.encoding.reading import plain_text, read_first
from arthur_relay.inference import ObjectSnapshot, Run, RunKind

AttributeValue = str | int | list[str]
Attribute = tuple[str, AttributeValue]

_JSON = OpenInferenceMimeTypeValues.JSON.value
_AGENT = RunKind.AGENT.upper()

# Python 3.11 takes long to find a member of an enum.
_LLM, _TOOL, _RETRIEVER = RunKind.LLM, RunKind.TOOL, RunKind.RETRIEVER
_TYPED, _CONSTRUCTOR = MessageForm.TYPED, MessageForm.CONSTRUCTOR

_SESSIONS = ("session_id", "conversation_id", "thread_id")
_USERS = ("user_id",)

_TAGS_OF_LANGCHAIN = (
    *("seq:step:", "map:key:", "condition:", "branch:", "graph:step:", "retry:attempt:"),
    "langsmith:",
)
"""How the tags begin that LangChain and LangGraph give to the runs that they start themselves."""

_IDS = (str, int, UUID)

_CREDENTIALS = frozenset(
    {"api_key", "authorization", "default_headers", "extra_headers", "headers"}
)
"""Settings of a model's call that are never sent: they can hold its key."""

MAX_MESSAGES = 1_000
MAX_DOCUMENTS = 1_000
MAX_TOOLS = 500
MAX_TAGS = 100
"""How many of each a span has, at most; what is beyond is counted as omitted."""


MAX_ATTRIBUTES = 20_000
MAX_SPAN_CHARACTERS = 4_000_000
MAX_SPAN_VALUES = 100_000
"""How many attributes a span has, characters in its texts, and values in its JSON, at most."""


class SpanTexts:
    """Redacts and cuts the texts of one model's spans; see `Privacy`. Never raises.

    Args:
        privacy: The relay's privacy, or None when everything may be sent.
        hiding: What is hidden.
        omissions: Counts each attribute whose value can't be sent as it is.
        foreign: Asks the application's objects; one of its own when None.

    Attributes:
        ask: Asks an object of the application.
        hiding: What is hidden, all in all.
        redacts: Whether a text may be changed before it is sent.
        longest_image: How many characters an inline image has, at most, that is written.
        characters: How many characters the span may still have.
        values: How many values its JSON may still have.
        omitted: How many values were cut, left out, or sent in another form, in all spans.
    """

    def __init__(
        self,
        privacy: Privacy | None,
        hiding: Hiding,
        omissions: CountsOmissions,
        foreign: ForeignObjects | None = None,
    ) -> None:
        self._privacy = privacy
        self.ask = (foreign or ForeignObjects()).ask
        self.redacts = privacy is not None
        self.hiding = hiding.under(privacy)
        self.longest_image = hiding.base64_image_max_length
        self._omissions = omissions
        self.omitted = 0
        self._writers: dict[str, JsonWriter] = {}
        self._message_writers: dict[str, MessageWriter] = {}
        self.begin()

    def begin(self) -> None:
        """Begin with another span."""
        self.characters = MAX_SPAN_CHARACTERS
        self.values = MAX_SPAN_VALUES

    def spend(self, *, characters: int, values: int) -> None:
        """Count what was written."""
        self.characters -= characters
        self.values -= values

    def part(self, text: str) -> str:
        """Return what may be sent of a part of a longer text."""
        return clean_text(text if self._privacy is None else self._privacy.redacted(text))

    def whole(self, text: str) -> str:
        """Return what may be sent of a text that is an attribute's value."""
        length = len(text)
        if self._privacy is None and length <= self.characters and length <= MAX_CHARACTERS:
            self.characters -= length  # nearly always
            return clean_text(text)
        most = min(MAX_CHARACTERS, self.characters)
        told = self.part(text)
        self.characters -= min(length, most)
        if length > most:
            self.omit("")
            told = f"{told[:most]}… [cut by arthur-relay, {length} characters before]"
        return self.cut(told)

    def cut(self, text: str) -> str:
        """Return a text, of which nothing is secret, no longer than texts may be."""
        return text if self._privacy is None else self._privacy.cut(text)

    def omit(self, name: str) -> None:
        """Count a value of an attribute that is cut, left out, or sent in another form."""
        self.omitted += 1
        self._omissions.omit(name)

    def json(self, name: str) -> JsonWriter:
        """Return what writes the JSON of an attribute."""
        writer = self._writers.get(name)
        if writer is None:
            writer = self._writers[name] = JsonWriter(self, name)
        return writer

    def messages(self, name: str, *, of_model: bool) -> MessageWriter:
        """Return what writes the attributes of messages."""
        writer = self._message_writers.get(name)
        if writer is None:
            hiding = self.hiding
            writer = self._message_writers[name] = MessageWriter(
                json=self.json(name),
                texts=self,
                hides_text=hiding.output_text if of_model else hiding.input_text,
                hides_images=not of_model and hiding.input_images,
            )
        return writer


class RunAttributes:
    """Reads the attributes of runs. Worker's thread only.

    Args:
        texts: What may be told of each text.
    """

    def __init__(self, texts: SpanTexts) -> None:
        self._texts = texts
        self._hiding = texts.hiding

    def of(self, run: Run) -> dict[str, AttributeValue]:
        """Return a run's attributes. What can't be read is left out and counted; never raises."""
        found: dict[str, AttributeValue] = {
            SpanAttributes.OPENINFERENCE_SPAN_KIND: span_kind(run.kind, run.name)
        }
        steps: list[Callable[[Run], Iterator[Attribute]]] = [
            self._common,
            self._input,
            self._output,
            self._input_messages,
        ]
        if run.ambient:
            steps.insert(0, self._ambient)
        if run.kind is _LLM:
            steps += (self._prompts, self._output_messages, self._request, self._answer)
        elif run.kind is _TOOL:
            steps.append(self._tool)
        elif run.kind is _RETRIEVER:
            steps.append(self._documents)
        elif run.serialized:
            steps.append(self._template)
        self._texts.begin()
        for step in steps:
            try:
                found.update(islice(step(run), MAX_ATTRIBUTES - len(found)))
            except Exception:  # noqa: BLE001 - one odd value must not cost the span
                self._texts.omit("")
        if len(found) >= MAX_ATTRIBUTES:
            self._texts.omit("")
        self._texts.begin()  # for what is told beside the attributes
        return found

    def _ambient(self, run: Run) -> Iterator[Attribute]:
        for name, value in (run.ambient or {}).items():
            if isinstance(value, str):
                if name in (SpanAttributes.METADATA, SpanAttributes.LLM_PROMPT_TEMPLATE_VARIABLES):
                    yield name, self._texts.json(name).json_text(value)
                else:
                    yield name, self._texts.whole(value)
            elif isinstance(value, (list, tuple)):
                yield name, [self._texts.whole(each) for each in value if isinstance(each, str)]

    def _input(self, run: Run) -> Iterator[Attribute]:
        form = _CONSTRUCTOR if run.kind is _LLM else _TYPED
        return self._value(
            run.inputs,
            form,
            SpanAttributes.INPUT_VALUE,
            SpanAttributes.INPUT_MIME_TYPE,
            hidden=self._hiding.inputs,
        )

    def _output(self, run: Run) -> Iterator[Attribute]:
        form = _CONSTRUCTOR if run.kind is _LLM else _TYPED
        return self._value(
            run.outputs,
            form,
            SpanAttributes.OUTPUT_VALUE,
            SpanAttributes.OUTPUT_MIME_TYPE,
            hidden=self._hiding.outputs,
        )

    def _value(
        self, values: Any, form: MessageForm, name: str, mime_name: str, *, hidden: bool
    ) -> Iterator[Attribute]:
        """Yield an input's or output's text, and its MIME type if it is JSON.

        A single text is sent as it is; what is given under `input` or `output` alone, without that
        name. A text that had to be cut, or JSON that the Engine would reject, is plain text.
        """
        if not values:
            return
        if hidden:
            yield name, REDACTED
            return
        key, only = next(iter(values.items())) if len(values) == 1 else (None, None)
        writer = self._texts.json(name)
        if isinstance(only, str):
            text = writer.text(only)
            is_json = writer.is_json(text)
        else:
            found = writer.write(only if key in ("input", "output") else values, form)
            text, is_json = found.text, found.is_harmless and found.text[:1] in ("{", "[")
        told = self._texts.cut(text)
        yield name, told
        if is_json and told == text:
            yield mime_name, _JSON

    def _prompts(self, run: Run) -> Iterator[Attribute]:
        prompts = run.inputs.get("prompts") if isinstance(run.inputs, dict) else None
        if prompts:
            hidden = self._hiding.prompts
            told = [REDACTED if hidden else self._texts.whole(each) for each in prompts]
            yield SpanAttributes.LLM_PROMPTS, told

    def _input_messages(self, run: Run) -> Iterator[Attribute]:
        """Yield the messages of a model's call; of other runs the first, as OpenInference does."""
        if not isinstance(run.inputs, dict) or self._hiding.input_messages:
            return
        name = SpanAttributes.LLM_INPUT_MESSAGES
        writer = self._texts.messages(name, of_model=False)
        if run.kind is _LLM and "input" in run.inputs:  # an inference of code
            yield from writer.pair(name, "user", run.inputs["input"])
        messages = run.inputs.get("messages")
        if not messages or not isinstance(messages, (list, tuple)):
            return
        first = messages[0]
        if isinstance(first, list):
            for _ in first[MAX_MESSAGES:]:
                self._texts.omit(name)
            yield from writer.attributes(name, first[:MAX_MESSAGES])
        elif isinstance(first, (ObjectSnapshot, Mapping)):
            yield from writer.attributes(name, [first])
        elif isinstance(first, tuple) and len(first) == 2 and isinstance(first[0], str):
            yield from writer.pair(name, *first)

    def _output_messages(self, run: Run) -> Iterator[Attribute]:
        if self._hiding.output_messages or not isinstance(run.outputs, dict):
            return
        name = SpanAttributes.LLM_OUTPUT_MESSAGES
        writer = self._texts.messages(name, of_model=True)
        if "output" in run.outputs:  # an inference of code
            yield from writer.pair(name, "assistant", run.outputs["output"])
        generations = next(iter(run.outputs.get("generations") or ()), ())
        messages = [
            message
            for generation in generations
            if isinstance(generation, ObjectSnapshot)
            and isinstance(message := generation.fields.get("message"), ObjectSnapshot)
        ]
        yield from writer.attributes(name, messages)

    def _template(self, run: Run) -> Iterator[Attribute]:
        found = template_of(run.serialized, run.inputs)
        if found is None:
            return
        yield SpanAttributes.LLM_PROMPT_TEMPLATE, self._texts.whole(found.text)
        if found.variables:
            name = SpanAttributes.LLM_PROMPT_TEMPLATE_VARIABLES
            if self._hiding.inputs:
                hidden = dict.fromkeys(found.variables, REDACTED)
                yield name, self._texts.json(name).write_for_reader(hidden)
            else:
                yield name, self._for_reader(name, found.variables)

    def _request(self, run: Run) -> Iterator[Attribute]:
        """Yield the settings of a model's call, and who serves the model."""
        provider = plain_text(read_first(run.metadata, ("ls_provider",)))
        if provider is not None:
            provider = provider.lower()
            yield SpanAttributes.LLM_PROVIDER, clean_text(PROVIDERS.get(provider, provider))
            if provider in SYSTEMS:
                yield SpanAttributes.LLM_SYSTEM, SYSTEMS[provider]
        parameters = run.parameters
        if not parameters:
            return
        sent = {name: value for name, value in parameters.items() if name not in _CREDENTIALS}
        tools: Any = sent.get("tools")
        written: list[SpanJson] = []
        if self._hiding.llm_tools and "tools" in sent:
            del sent["tools"]
        elif isinstance(tools, (list, tuple)):
            write = self._texts.json(SpanAttributes.LLM_TOOLS).write
            written = [write(tool) for tool in tools[:MAX_TOOLS]]
        if not self._hiding.llm_invocation_parameters:
            in_parts = None
            if written and len(written) == len(tools):
                parts = [tool.direct or tools[index] for index, tool in enumerate(written)]
                in_parts = {**sent, "tools": parts}
            name = SpanAttributes.LLM_INVOCATION_PARAMETERS
            yield name, self._for_reader(name, sent, in_parts)
        for index, tool in enumerate(written):
            attribute = f"{SpanAttributes.LLM_TOOLS}.{index}.{ToolAttributes.TOOL_JSON_SCHEMA}"
            yield attribute, self._texts.cut(tool.text)

    def _answer(self, run: Run) -> Iterator[Attribute]:
        """Yield what the answer says beside its messages."""
        answer = answer_facts.answer(run.outputs)
        model = answer_facts.model_name(run, answer)
        if model is not None:
            yield SpanAttributes.LLM_MODEL_NAME, clean_text(model)
        is_of_code = isinstance(run.outputs, dict) and "output" in run.outputs
        counts = answer_facts.given_counts(run.metadata) if is_of_code else None
        for name, found in counts or answer_facts.counts(answer):
            count = answer_facts.count_in_range(found)
            if count is None:
                self._texts.omit(name)
            else:
                yield name, count
        reason = plain_text(run.intervention) or answer_facts.finish_reason(answer)
        if reason is not None:
            yield SpanAttributes.LLM_FINISH_REASON, clean_text(reason)
        generation = answer_facts.first_generation(run.outputs)
        if generation is not None and not self._hiding.output_messages:
            yield from self._function_call(generation)

    def _function_call(self, generation: ObjectSnapshot) -> Iterator[Attribute]:
        extras = answer_facts.message_fields(generation).get("additional_kwargs")
        call = extras.get("function_call") if isinstance(extras, Mapping) else None
        if isinstance(call, Mapping):
            name = SpanAttributes.LLM_FUNCTION_CALL
            arguments = call.get("arguments")
            if parsed := self._texts.json(name).parsed(arguments):
                arguments = parsed
            yield name, self._for_reader(name, {**call, "arguments": arguments})

    def _tool(self, run: Run) -> Iterator[Attribute]:
        serialized = run.serialized if isinstance(run.serialized, Mapping) else {}
        for key, name in (
            ("name", SpanAttributes.TOOL_NAME),
            ("description", SpanAttributes.TOOL_DESCRIPTION),
        ):
            if (text := plain_text(serialized.get(key))) is not None:
                yield name, self._texts.whole(text)
        if run.inputs and not self._hiding.inputs:
            name = SpanAttributes.TOOL_PARAMETERS
            yield name, self._for_reader(name, run.inputs)

    def _documents(self, run: Run) -> Iterator[Attribute]:
        documents = run.outputs.get("documents") if isinstance(run.outputs, dict) else None
        if not isinstance(documents, (list, tuple)):
            return
        hidden = self._hiding.retrieval_documents
        name = SpanAttributes.RETRIEVAL_DOCUMENTS
        for _ in documents[MAX_DOCUMENTS:]:
            self._texts.omit(name)
        for index, document in enumerate(documents[:MAX_DOCUMENTS]):
            fields = document.fields if isinstance(document, ObjectSnapshot) else {}
            content = plain_text(fields.get("page_content"))
            if content is not None:
                attribute = f"{name}.{index}.{DocumentAttributes.DOCUMENT_CONTENT}"
                yield attribute, REDACTED if hidden else self._texts.whole(content)
            if metadata := fields.get("metadata"):
                attribute = f"{name}.{index}.{DocumentAttributes.DOCUMENT_METADATA}"
                if hidden:
                    yield attribute, self._texts.json(name).write_for_reader(REDACTED)
                else:
                    yield attribute, self._for_reader(name, metadata)

    def _common(self, run: Run) -> Iterator[Attribute]:
        """Yield the metadata, and the session, the user and the tags that are among it."""
        ambient = run.ambient or {}
        metadata = run.metadata
        if metadata:
            for names, attribute in (
                (_SESSIONS, SpanAttributes.SESSION_ID),
                (_USERS, SpanAttributes.USER_ID),
            ):
                if metadata.keys().isdisjoint(names):  # nearly always
                    continue
                given = (metadata.get(name) for name in names)
                found = next(filter(None, map(self._id, given)), None)
                if found is not None:
                    yield attribute, self._texts.whole(found)
            yield SpanAttributes.METADATA, self._metadata(metadata, ambient)
        if not run.tags:
            return
        tags: list[Any] = run.tags
        own = [
            tag for tag in tags if isinstance(tag, str) and not tag.startswith(_TAGS_OF_LANGCHAIN)
        ]
        if own:
            outer = ambient.get(SpanAttributes.TAG_TAGS)
            outer = [each for each in outer if isinstance(each, str)] if outer else []
            every = list(dict.fromkeys((*outer, *own)))[:MAX_TAGS]
            yield SpanAttributes.TAG_TAGS, [self._texts.whole(tag) for tag in every]

    def _id(self, given: Any) -> str:
        """Return an id as a text; empty if it is none."""
        if type(given) is str or given is None:
            return given or ""
        try:
            return self._texts.ask(_id_text, given)
        except Exception:  # noqa: BLE001 - someone else's __str__
            self._texts.omit("")
            return ""

    def _metadata(self, metadata: Mapping[str, Any], ambient: Mapping[str, Any]) -> str:
        name = SpanAttributes.METADATA
        writer = self._texts.json(name)
        outer = writer.parsed(ambient[name]) if name in ambient else None
        return self._for_reader(name, {**outer, **metadata} if outer else metadata)

    def _for_reader(self, name: str, value: Any, in_parts: Any = None) -> str:
        """Return JSON for an attribute that is always read as JSON, cut as a text within it."""
        writer = self._texts.json(name)
        text = writer.write_for_reader(value, in_parts=in_parts)
        told = self._texts.cut(text)
        return text if told == text else writer.unparsed(told)


def _id_text(given: Any) -> str:
    return str(given) if isinstance(given, _IDS) and given else ""


def span_kind(kind: RunKind, name: Any) -> str:
    """Return a run's kind in OpenInference's words: by its name, it may be an agent."""
    if isinstance(name, str) and "agent" in name.lower():
        return _AGENT
    return kind.upper()
