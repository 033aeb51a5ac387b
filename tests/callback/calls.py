"""The eight ways to call a model, as functions of a model, a config and prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def invoke(model: Any, prompts: list[str], handler: Any) -> None:
    for prompt in prompts:
        model.invoke(prompt, {"callbacks": [handler]})


def stream(model: Any, prompts: list[str], handler: Any) -> None:
    for prompt in prompts:
        for _ in model.stream(prompt, {"callbacks": [handler]}):
            pass


def batch(model: Any, prompts: list[str], handler: Any) -> None:
    model.batch(prompts, {"callbacks": [handler]})


def generate(model: Any, prompts: list[str], handler: Any) -> None:
    model.generate(_batch(model, prompts), callbacks=[handler])


async def ainvoke(model: Any, prompts: list[str], handler: Any) -> None:
    for prompt in prompts:
        await model.ainvoke(prompt, {"callbacks": [handler]})


async def astream(model: Any, prompts: list[str], handler: Any) -> None:
    for prompt in prompts:
        async for _ in model.astream(prompt, {"callbacks": [handler]}):
            pass


async def abatch(model: Any, prompts: list[str], handler: Any) -> None:
    await model.abatch(prompts, {"callbacks": [handler]})


async def agenerate(model: Any, prompts: list[str], handler: Any) -> None:
    await model.agenerate(_batch(model, prompts), callbacks=[handler])


SYNC: dict[str, Callable[[Any, list[str], Any], None]] = {
    "invoke": invoke,
    "stream": stream,
    "batch": batch,
    "generate": generate,
}
ASYNC: dict[str, Callable[[Any, list[str], Any], Awaitable[None]]] = {
    "ainvoke": ainvoke,
    "astream": astream,
    "abatch": abatch,
    "agenerate": agenerate,
}


ALL_CALLS = [*SYNC, *ASYNC]


async def call(how: str, model: Any, handler: Any, *prompts: str) -> None:
    """Call a model in one of the ways."""
    if how in SYNC:
        SYNC[how](model, list(prompts), handler)
    else:
        await ASYNC[how](model, list(prompts), handler)


def _batch(model: Any, prompts: list[str]) -> Any:
    if isinstance(model, BaseChatModel):
        return [[HumanMessage(prompt)] for prompt in prompts]
    return prompts
