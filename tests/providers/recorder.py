"""A handler beside ours that keeps what LangChain hands over, to hold the row against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from pydantic import BaseModel

from .answers import Answer

if TYPE_CHECKING:
    from uuid import UUID

    from arthur_relay import ArthurCallbackHandler


class Recorder(BaseCallbackHandler):
    """Keeps results and events. Give it to LangChain behind the handler that it watches.

    Args:
        watched: Whose note of the first token is looked at.

    Attributes:
        result: What the run ended with, or None.
        events: The chunks and events of the stream, in order.
        first_token_event: The number of the event with which `watched` noted the first token.
    """

    run_inline = True
    raise_error = True

    def __init__(self, watched: ArthurCallbackHandler) -> None:
        super().__init__()
        self._watched = watched
        self.result: Any = None
        self.metadata: Any = None
        self.events: list[Any] = []
        self.first_token_event: int | None = None

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.metadata = kwargs.get("metadata"), kwargs.get("invocation_params")

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        self.metadata = kwargs.get("metadata"), kwargs.get("invocation_params")

    def on_llm_new_token(
        self, token: Any, *, chunk: Any = None, run_id: UUID, **kwargs: Any
    ) -> None:
        self._note((token, chunk), run_id)

    def on_stream_event(self, event: Any, *, run_id: UUID, **kwargs: Any) -> None:
        self._note(event, run_id)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self._keep(response)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._keep(kwargs.get("response"))

    def _keep(self, result: Any) -> None:
        """Keep a result beside those before it: some packages end a run before LangChain does."""
        self.result = result if self.result is None else [self.result, result]

    def hands_over(self, value: Any) -> bool:
        """Return whether a value is anywhere in the result, alone or within a text."""
        return any(_is(leaf, value) for leaf in leaves(self.result))

    def first_content_events(self, answer: Answer, *, also: str | None = None) -> set[int]:
        """Return the numbers of the events that have the first piece of an answer first.

        With events of version 3 that are two: the chunk, and what is made of it.

        Args:
            answer: The answer.
            also: What the provider says beside it.
        """
        pieces = [*answer.reasoning[:1], *answer.text[:1], *(c.name for c in answer.tool_calls)]
        pieces += [call.name for call in answer.server_calls]
        pieces += [also] if also else []
        pieces += [answer.refusal] if answer.refusal else []
        found = [
            number
            for number, event in enumerate(self.events)
            if any(_is(leaf, piece) for leaf in leaves(event) for piece in pieces)
        ]
        made = [number for number in found if isinstance(self.events[number], dict)]
        return {*found[:1], *made[:1]}

    def _note(self, event: Any, run_id: UUID) -> None:
        self.events.append(event)
        if self.first_token_event is None and self._has_noted(run_id):
            self.first_token_event = len(self.events) - 1

    def _has_noted(self, run_id: UUID) -> bool:
        """Return whether the watched handler has noted the first token."""
        run = self._watched._runs.find(run_id.int ^ self._watched._salt)
        if run is None:
            return False
        # Of completion models it notes all chunks, and takes the moment over at the end.
        chunks = run.chunks
        return run.first_token_at is not None or (
            chunks is not None and chunks.first_at is not None
        )


def leaves(value: Any) -> Iterator[Any]:
    """Yield all that is in models, dicts and lists and is none of these."""
    if isinstance(value, BaseModel):
        yield from leaves(dict(value))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif value is not None:
        yield value


def _is(leaf: Any, value: Any) -> bool:
    if isinstance(leaf, str) and isinstance(value, str):
        return value in leaf
    return type(leaf) is not bool and bool(leaf == value)
