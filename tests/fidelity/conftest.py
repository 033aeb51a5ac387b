"""A handler whose model has registered everything that a run can tell."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult

from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.sandbox import attribute
from tests.callback.arthur import TEXT_ONLY
from tests.callback.fakes import ChunkModel, ResultModel
from tests.fidelity.judged import Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from langchain_core.messages import AIMessageChunk

EVERYTHING = (
    *TEXT_ONLY,
    attribute("output_tokens", "TOKENS", "PREDICTED_VALUE"),
    attribute("output_likelihoods", "TOKEN_LIKELIHOODS", "PREDICTED_VALUE"),
    *(attribute(name, each.kind, "NON_INPUT_DATA") for name, each in RUN_VALUES.items()),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # LangChain knows no other


@pytest.fixture
def make_arthur() -> Iterator[Callable[..., Judged]]:
    with ExitStack() as stack:
        yield lambda attributes=EVERYTHING, **settings: stack.enter_context(
            Judged(attributes, **settings)
        )


@pytest.fixture
def arthur(make_arthur: Callable[..., Judged]) -> Judged:
    """Logs with everything registered."""
    return make_arthur()


@pytest.fixture
def answered(arthur: Judged) -> Callable[..., dict[str, Any]]:
    """Returns the row of a call that a message, or a completion, has answered."""

    def answered_by(
        answer: AIMessage | str,
        *,
        info: dict[str, Any] | None = None,
        output: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        if isinstance(answer, str):
            # LangChain's own completion models take no such result from a test.
            generation = Generation(text=answer, generation_info=info)
            run_id = uuid4()
            arthur.handler.on_llm_start({}, ["hi"], run_id=run_id)
            result = LLMResult(generations=[[generation]], llm_output=output)
            arthur.handler.on_llm_end(result, run_id=run_id)
        else:
            chat = ChatGeneration(message=answer, generation_info=info)
            model = ResultModel(generations=[chat], llm_output=output)
            model.invoke("hi", {"callbacks": [arthur.handler]})
        return arthur.data()[-1]

    return answered_by


@pytest.fixture
def streamed(arthur: Judged) -> Callable[..., dict[str, Any]]:
    """Returns the row of a stream of chunks, that its consumer leaves after the last on demand."""

    def streamed_by(chunks: Sequence[AIMessageChunk], *, leaves: bool = False) -> dict[str, Any]:
        stream: Any = ChunkModel(chunks=list(chunks)).stream("hi", {"callbacks": [arthur.handler]})
        for number, _ in enumerate(stream, 1):
            if leaves and number == len(chunks):
                stream.close()
                break
        return arthur.data()[-1]

    return streamed_by
