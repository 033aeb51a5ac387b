"""A handler that sends traces, an Arthur Engine and what goes wrong between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings
from arthur_relay.credentials import Credentials
from arthur_relay.destinations.engine.client import PROBE, EngineDestination
from arthur_relay.destinations.engine.task import Task
from arthur_relay.row import DELIVERED
from tests.end_to_end.conftest import QUICK
from tests.end_to_end.stage import Stage, Watched

if TYPE_CHECKING:
    from arthur_relay.destinations.engine.encoder import EngineRowFormat
    from arthur_relay.row import Attempt, Batch

ROOT, RETRIEVER, MODEL = (UUID(8 * each) for each in ("a1a1", "b2b2", "c3c3"))
"""The runs that become spans: a chain, and what it calls."""


class WatchedEngine(Watched):
    """An Engine's destination, and when it was asked for what."""

    takes_traces = True

    def __init__(self, destination: EngineDestination) -> None:
        super().__init__(destination)
        self._engine = destination
        self._goes_on = False

    @property
    def row_format(self) -> EngineRowFormat:
        return self._engine.row_format

    async def find_stored(self, batch: Batch) -> Attempt | None:
        """Ask which spans are there: an attempt, which goes on where none is."""
        self.begin()
        found = await self._engine.find_stored(batch)
        is_answered = found is not None and found.failure is None
        self._goes_on = found is None or (is_answered and DELIVERED not in found.outcomes)
        return found

    async def deliver(self, batch: Batch) -> Attempt:
        """Send spans: an attempt, or the rest of one."""
        goes_on, self._goes_on = self._goes_on, False
        if goes_on:
            return await self._engine.deliver(batch)
        return await super().deliver(batch)


@dataclass
class EngineStage(Stage):
    """Where a fault is played to a trace of three spans.

    Attributes:
        key: The key that the relay has; empty for the sandbox's first, which may write and read.
    """

    key: str = ""
    watched: WatchedEngine = field(init=False)

    def make_relay(self, **settings: object) -> None:
        """Make the relay, with the Engine at the address that is told by now."""
        chosen = RelaySettings(**{**QUICK, "flush_interval_seconds": 3600.0, **settings})
        chosen = chosen.for_engine()
        url = f"{self.scheme}://{self.host}:{self.port}"
        credentials = Credentials(url, api_key=self.key or self.sandbox.api_key)
        self.watched = WatchedEngine(EngineDestination.of(credentials, chosen))
        self.relay = Relay(self.watched, model_id=self.sandbox.task_id, settings=chosen)
        self.exits.callback(self.relay.close, 0.0)

    def connect(self, *, asks: bool) -> None:
        """Make the task known: by asking the Engine, or where that is in vain, by telling."""
        if asks:
            self.relay.connect(self.sandbox.task_id)
        else:
            self.relay._host.register(Task.named(self.sandbox.task_id))

    def capture(self) -> None:
        """Let a chain pass the handler, which asks a retriever and a model."""
        handler = ArthurCallbackHandler(relay=self.relay)
        handler.on_chain_start({}, {"question": "Ulm?"}, run_id=ROOT)
        handler.on_retriever_start({}, "Ulm?", run_id=RETRIEVER, parent_run_id=ROOT)
        handler.on_retriever_end([], run_id=RETRIEVER, parent_run_id=ROOT)
        handler.on_chat_model_start({}, [[HumanMessage("Ulm?")]], run_id=MODEL, parent_run_id=ROOT)
        answer = ChatGeneration(message=AIMessage("It is sunny."))
        handler.on_llm_end(LLMResult(generations=[[answer]]), run_id=MODEL, parent_run_id=ROOT)
        handler.on_chain_end({"answer": "It is sunny."}, run_id=ROOT)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the spans' rows, in the order in which the runs end."""
        return tuple(f"{ROOT.hex}-{run.hex[16:]}" for run in (RETRIEVER, MODEL, ROOT))

    @property
    def requests(self) -> int:
        """Requests with spans that the Engine saw."""
        return sum(
            request.method == "POST" and request.path.endswith("/traces") and request.body != PROBE
            for request in self.sandbox.requests
        )

    @property
    def questions(self) -> int:
        """How often the Engine was asked which spans it has."""
        return sum(request.path.endswith("/traces/spans") for request in self.sandbox.requests)

    @property
    def stored(self) -> list[str]:
        """Ids of the spans that the Engine has, each once."""
        found = (f"{span['trace_id']}-{span['span_id']}" for span in self.sandbox.spans)
        return list(dict.fromkeys(found))
