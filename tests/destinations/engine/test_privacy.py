"""What is kept back of a span's texts: wherever they are."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool

from arthur_relay.destinations.engine.hiding import REDACTED, Hiding

from .models import answer, call, chat
from .stage import Span, Traced, traced

# By langchain-core 0.3.0, which reads a prompt's fields so when it is run.
pytestmark = pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute")

SECRET = "sesame-4711"


def redact(text: str) -> str:
    return text.replace(SECRET, "***")


@tool
def opens(word: str) -> str:
    """Say sesame-4711."""
    return f"{SECRET} opens"


class Secrets(BaseRetriever):
    """A retriever that finds a secret."""

    def _get_relevant_documents(self, query: str, **_: Any) -> list[Document]:
        return [Document(SECRET, metadata={"of": SECRET, SECRET: 1})]


def everything(stage: Traced) -> list[Span]:
    """The spans of runs that have the secret in every place that a span has."""
    config: Any = {
        **stage.config,
        "metadata": {"session_id": SECRET, "user_id": SECRET, "deep": [{SECRET: SECRET}]},
        "tags": [SECRET],
        "run_name": f"run {SECRET}",
    }
    messages = [
        SystemMessage(SECRET, name=SECRET),
        HumanMessage(
            [{"type": "text", "text": SECRET}, {"type": "image_url", "image_url": {"url": SECRET}}]
        ),
    ]
    calls = [{"id": SECRET, "function": {"name": SECRET, "arguments": f'{{"a": "{SECRET}"}}'}}]
    extras = {"tool_calls": calls, "function_call": calls[0]["function"]}
    chat(answer(SECRET, additional_kwargs=extras)).invoke(messages, config=config, stop=[SECRET])
    chat(call("opens", word=SECRET)).bind_tools([opens]).invoke(messages, config=config)
    opens.invoke({"word": SECRET}, config=config)
    Secrets().invoke(SECRET, config=config)
    ChatPromptTemplate.from_template(SECRET + "{a}").invoke({"a": SECRET}, config=config)

    def fail(given: Any) -> Any:
        raise ValueError(given["a"])

    with pytest.raises(ValueError, match=SECRET):
        RunnableLambda(fail).invoke({"a": SECRET, SECRET: [SECRET]}, config=config)
    return stage.spans()


def test_no_redactor_lets_everything_through() -> None:
    with traced() as stage:
        assert all(SECRET in span.texts() for span in everything(stage))


def test_every_text_is_redacted() -> None:
    with traced(redact=[redact]) as stage:
        spans = everything(stage)
        bodies = b"".join(row.body for row in stage.memory.rows)
    assert len(spans) == 6
    assert SECRET.encode() not in bodies
    assert all("***" in span.texts() for span in spans)


def test_a_failing_redactor_withholds_every_text() -> None:
    def fails(_: str) -> str:
        raise RuntimeError

    with traced(redact=[fails]) as stage:
        everything(stage)
        bodies = b"".join(row.body for row in stage.memory.rows)
        assert stage.relay.stats().redaction_failures > 0
    assert SECRET.encode() not in bodies


def test_hidden_inputs() -> None:
    with traced(hide_inputs=True) as stage:
        spans = everything(stage)
    for span in spans:
        assert span.attributes["input.value"] == REDACTED
        names = span.attributes.keys()
        assert "input.mime_type" not in names
        assert not any(name.startswith(("llm.input_messages", "llm.tools")) for name in names)
        assert "tool.parameters" not in names
    failed = spans[-1]
    assert failed.message == "ValueError"
    assert SECRET not in str(failed.events)


def test_hidden_outputs() -> None:
    with traced(hide_outputs=True) as stage:
        spans = everything(stage)
    for span in spans:
        assert span.attributes.get("output.value", REDACTED) == REDACTED
        names = span.attributes.keys()
        assert "output.mime_type" not in names
        assert not any(name.startswith(("llm.output_messages", "llm.function")) for name in names)
        for name in names:
            if name.startswith("retrieval.documents"):
                assert REDACTED in span.attributes[name]


@pytest.mark.parametrize(
    ("variable", "gone"),
    [
        ("INPUT_MESSAGES", "llm.input_messages"),
        ("OUTPUT_MESSAGES", "llm.output_messages"),
        ("LLM_TOOLS", "llm.tools"),
        ("LLM_INVOCATION_PARAMETERS", "llm.invocation_parameters"),
    ],
)
def test_variables_of_openinference(variable: str, gone: str) -> None:
    hiding = Hiding.of({f"OPENINFERENCE_HIDE_{variable}": "True"})
    with traced(hiding=hiding) as stage:
        names = {name for span in everything(stage) for name in span.attributes}
    assert not any(name.startswith(gone) for name in names)
    assert "input.value" in names


def test_hidden_texts_of_messages() -> None:
    hiding = Hiding.of(
        {"OPENINFERENCE_HIDE_INPUT_TEXT": "true", "OPENINFERENCE_HIDE_OUTPUT_TEXT": "true"}
    )
    with traced(hiding=hiding) as stage:
        span = everything(stage)[0]
    assert span.attributes["llm.input_messages.0.message.content"] == REDACTED
    assert span.attributes["llm.output_messages.0.message.content"] == REDACTED


def test_texts_are_cut() -> None:
    with traced(max_text_bytes=200) as stage:
        config: Any = {**stage.config, "metadata": {"c": "y" * 1_000}}
        RunnableLambda(lambda x: x).invoke({"a": "x" * 1_000, "b": 1}, config=config)
        span = stage.span()
    assert len(span.attributes["input.value"].encode()) <= 200
    assert "input.mime_type" not in span.attributes
    assert "cut by arthur-relay" in span.json("metadata")["unparsed"]
