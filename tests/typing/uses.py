"""The public API as users' code has it: mypy and pyright check this file, and nothing runs it.

A signature that loses its types, such as one behind a decorator, fails here.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, assert_type
from uuid import UUID, uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import RunnableConfig

from arthur_relay import (
    ArthurCallbackHandler,
    BuiltInRedactor,
    ConfigurationError,
    Connect,
    DeadLetter,
    Destination,
    Durability,
    FlushResult,
    Health,
    HealthStatus,
    Inference,
    Overflow,
    Relay,
    RelayError,
    RelaySettings,
    Stats,
    Trace,
    exit_on_sigterm,
    lifespan,
)
from arthur_relay.sandbox import ArthurSandbox
from arthur_relay.testing import MemoryDestination, MemoryEngine, memory_engine, memory_relay


def makes_handlers(model: Any, relay: Relay) -> None:
    settings = RelaySettings(batch_size=50, spool_dir="/var/spool/app")
    assert_type(
        ArthurCallbackHandler.from_credentials("model", arthur_login="admin"),
        ArthurCallbackHandler,
    )
    assert_type(
        ArthurCallbackHandler.from_engine("my-chatbot", settings=settings), ArthurCallbackHandler
    )
    assert_type(ArthurCallbackHandler.from_env(), ArthurCallbackHandler)
    ArthurCallbackHandler(model)
    ArthurCallbackHandler(relay=relay, model_id="model")


def refuses_what_is_wrong(relay: Relay) -> None:
    ArthurCallbackHandler.from_credentials()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ArthurCallbackHandler.from_engine(task=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Relay.from_env(settings={})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    relay.capture("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    relay.log_feedback("run")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


logger = logging.getLogger("app")


class OurHandler(ArthurCallbackHandler):
    """A subclass keeps its type through the constructors."""


def subclasses() -> None:
    assert_type(OurHandler.from_env(), OurHandler)
    assert_type(OurHandler.from_credentials("model"), OurHandler)
    assert_type(OurHandler.from_engine(task_id="task"), OurHandler)


async def calls(llm: BaseChatModel, handler: ArthurCallbackHandler) -> None:
    as_langchain_has_it: BaseCallbackHandler = handler
    run_id: UUID = uuid4()
    config: RunnableConfig = {"callbacks": [as_langchain_has_it], "run_id": run_id}
    llm.invoke("How is the weather?", config)
    await llm.ainvoke("How is the weather?", config)
    handler.log_ground_truth(run_id, {"thumbs_up": True}, datetime.now(UTC))
    handler.log_feedback(str(run_id), liked=True, description="helpful")
    assert_type(handler.flush(timeout=1.5), FlushResult)
    assert_type(await handler.aflush(), FlushResult)
    assert_type(handler.relay, Relay)


def captures(relay: Relay) -> None:
    relay.capture(
        Inference(
            input_text="a prompt",
            output_text="a completion",
            timestamp=datetime.now(UTC),
            attributes={"user": "u1"},
        )
    )
    for letter in relay.dead_letters():
        assert_type(letter, DeadLetter)
        assert_type(letter.status, int | None)
        assert_type(letter.body, bytes)
        relay.resubmit(letter)


def looks(relay: Relay) -> dict[str, Any]:
    stats = relay.stats()
    assert_type(stats, Stats)
    assert_type(stats.dropped, Mapping[str, int])
    assert stats.captured == stats.delivered + stats.rejected + stats.pending
    health = relay.health()
    assert_type(health, Health)
    assert_type(health.status, HealthStatus)
    return {"stats": stats.as_dict(), **health.as_dict()}


def begins_and_ends() -> None:
    try:
        with Relay.from_env() as relay:
            assert_type(relay, Relay)
            assert_type(relay.close(), FlushResult)
    except ConfigurationError as error:
        as_a_value_error: ValueError = error
        as_ours: RelayError = error
        raise SystemExit(str(as_ours)) from as_a_value_error
    assert_type(exit_on_sigterm(), bool)


async def begins_and_ends_in_a_loop() -> None:
    async with Relay.from_credentials("model") as relay:
        assert_type(relay, Relay)
        assert_type(await relay.aclose(5), FlushResult)


def serves(handler: ArthurCallbackHandler) -> None:
    assert_type(lifespan(handler), Callable[[Any], AbstractAsyncContextManager[None]])


@asynccontextmanager
async def within_a_lifespan(app: object, relay: Relay) -> AsyncIterator[None]:
    async with lifespan(relay)(app):
        yield


def sets() -> RelaySettings:
    def without_names(text: str) -> str:
        return text.replace("Ulm", "…")

    return RelaySettings(
        connect=Connect.LAZY,
        durability=Durability.POWER,
        overflow=Overflow.SPILL,
        trace=Trace.LLM,
        redact=(BuiltInRedactor.EMAIL, without_names),
        on_dead_letter=lambda letter: logger.info(letter.reason),
    )


def has_a_destination_of_its_own() -> None:
    destination: Destination = MemoryDestination()
    assert_type(Relay(destination, model_id="model"), Relay)


def tests() -> Iterator[object]:
    relay, destination = memory_relay()
    assert_type(relay, Relay)
    assert_type(destination, MemoryDestination)
    assert_type(destination.inferences, list[dict[str, Any]])
    traced, engine = memory_engine()
    assert_type(traced, Relay)
    assert_type(engine, MemoryEngine)
    assert_type(engine.spans, list[dict[str, Any]])
    with ArthurSandbox() as sandbox:
        yield sandbox
