"""The events of chains, agents, tools and retrievers, and what spans need of an LLM run's.

They are heard only where runs become spans: LangChain looks at `ignore_chain` and the like first.
"""

from __future__ import annotations

from sys import getsizeof
from time import time
from typing import TYPE_CHECKING, Any
from uuid import UUID

from arthur_relay.capture.exceptions import is_control_flow, snapshot_exception
from arthur_relay.capture.otel_context import context_attributes, is_suppressed
from arthur_relay.capture.results import snapshot_result
from arthur_relay.capture.states import (
    ITEM_BYTES,
    MessageCopies,
    snapshot_message_list,
    snapshot_parameters,
    snapshot_state,
)
from arthur_relay.inference import (
    CAPTURE_BYTES,
    Run,
    RunKind,
    RunOutcome,
    StreamedChunks,
    TraceScope,
)
from arthur_relay.system.clocks import Clocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arthur_relay.capture.open_runs import OpenRuns
    from arthur_relay.capture.tracing import Tracing

MAX_SUPPRESSED = 10_000
"""How many runs without a span are remembered until they end; the end of others is counted as one
without a start."""

_KINDS = {str(kind): kind for kind in RunKind}

_perf_counter = Clocks.perf_counter


class TraceEvents:
    """The part of the callback handler that makes runs into spans. Never raises.

    What is kept of inputs and outputs, and when a later change of them can be seen, is said in
    `capture/states.py`.
    """

    _tracing: Tracing | None = None
    _copies: MessageCopies | None = None
    _suppressed: dict[int, None] | None = None

    # What the handler has for runs of every kind.
    model_id: str
    _runs: OpenRuns
    _salt: int
    _loses_chunks: bool
    if TYPE_CHECKING:

        def _end(self, run_id: UUID) -> Run | None: ...
        def _find(self, run_id: UUID) -> Run | None: ...
        def _submit(self, run: Run) -> None: ...
        def _lose(self, run: Run | None) -> None: ...
        def _lose_unreadable(self) -> None: ...

    def _trace(self, tracing: Tracing) -> None:
        """Begin to listen to what the scope of tracing asks for."""
        if tracing.scope is TraceScope.NONE:
            return
        self._tracing = tracing
        self._copies = tracing.copies
        if tracing.scope is TraceScope.FULL:
            self.ignore_chain = self.ignore_agent = self.ignore_retriever = False

    def on_chain_start(  # noqa: PLR0913 - LangChain's arguments
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_type: str | None = None,
        name: str | None = None,
        **kwargs: Any,  # noqa: ARG002 - LangChain passes more
    ) -> None:
        """Open a run of a chain, a graph, a node, a prompt or a parser."""
        try:
            kind = RunKind.CHAIN if run_type is None else _KINDS.get(run_type, RunKind.CHAIN)
            run = self._start(run_id, parent_run_id, kind, name, serialized, tags, metadata)
            if run is not None:
                run.serialized = serialized
                self._keep_inputs(run, inputs)
                self._runs.begin(run)
        except Exception:  # noqa: BLE001 - the callback's edge: nothing may be raised into the application
            self._lose_unreadable()

    def on_chain_end(
        self,
        outputs: Any,
        *,
        run_id: UUID,
        inputs: Any = None,
        **kwargs: Any,  # noqa: ARG002 - LangChain passes more
    ) -> None:
        """Capture a chain that ended well; one that streams has its inputs only now."""
        self._end_well(run_id, outputs, inputs)

    def on_chain_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        inputs: Any = None,
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> None:
        """Capture a chain that failed, was cancelled or interrupted."""
        self._end_badly(run_id, error, inputs)

    def on_tool_start(  # noqa: PLR0913 - as above
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> None:
        """Open a run of a tool."""
        try:
            run = self._start(run_id, parent_run_id, RunKind.TOOL, name, serialized, tags, metadata)
            if run is not None:
                run.serialized = serialized
                self._keep_inputs(run, inputs if type(inputs) is dict else input_str)
                self._runs.begin(run)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose_unreadable()

    def on_tool_end(self, output: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002 - as above
        """Capture a tool's run that ended well."""
        self._end_well(run_id, {"output": output})

    def on_tool_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002 - as above
        """Capture a tool's run that failed, was cancelled or interrupted."""
        self._end_badly(run_id, error)

    def on_retriever_start(  # noqa: PLR0913 - as above
        self,
        serialized: dict[str, Any] | None,  # noqa: ARG002 - as above
        query: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> None:
        """Open a run of a retriever."""
        try:
            run = self._start(
                run_id, parent_run_id, RunKind.RETRIEVER, name or "Retriever", None, tags, metadata
            )
            if run is not None:
                self._keep_inputs(run, {"query": query})
                self._runs.begin(run)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose_unreadable()

    def on_retriever_end(self, documents: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002 - as above
        """Capture a retriever's run that ended well."""
        self._end_well(run_id, {"documents": documents})

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002 - as above
        """Capture a retriever's run that failed or was cancelled."""
        self._end_badly(run_id, error)

    def on_agent_action(self, action: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002 - as above
        """Note that a chain is an agent: it chose a tool."""
        self._is_agent(run_id)

    def on_agent_finish(self, finish: Any, *, run_id: UUID, **kwargs: Any) -> None:  # noqa: ARG002 - as above
        """Note that a chain is an agent: it chose to finish."""
        self._is_agent(run_id)

    def on_interrupt(self, event: Any) -> None:
        """Take LangGraph's news of an interrupt, which the graph's own run tells as well."""

    def on_resume(self, event: Any) -> None:
        """Take LangGraph's news that a graph goes on, which is a run of its own."""

    def _start_llm(  # noqa: PLR0913 - as above
        self,
        run_id: UUID,
        parent_run_id: UUID | None,
        serialized: Mapping[str, Any] | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        details: Mapping[str, Any],
        *,
        messages: Any = None,
        prompts: Any = None,
    ) -> None:
        """Open a run of a model, with its messages or its prompts."""
        name = details.get("name")
        run = self._start(run_id, parent_run_id, RunKind.LLM, name, serialized, tags, metadata)
        if run is None:
            return
        try:
            if metadata:
                run.asked_for = metadata.get("ls_model_name")
            run.parameters, held = snapshot_parameters(details.get("invocation_params"))
            run.size += held
            if messages is not None:
                kept, held = snapshot_message_list(messages, self._copies)
                run.inputs = {"messages": [kept]}
                if self._loses_chunks:
                    run.chunks = StreamedChunks()
            else:
                run.inputs, held = {"prompts": [*prompts]}, sum(map(getsizeof, prompts))
                run.chunks = StreamedChunks()
            run.size += held
        except Exception:  # noqa: BLE001 - the application's own objects may raise anything
            run.unread += 1
        self._runs.begin(run)

    def _take_result(self, run: Run, generations: Any, llm_output: Any) -> None:
        """Keep the whole result of a model's run."""
        try:
            run.outputs, held = snapshot_result(generations, llm_output, self._copies)
            run.size += held
        except Exception:  # noqa: BLE001 - a provider's own class may raise anything
            run.unread += 1

    def _start(  # noqa: PLR0913, PLR0917 - by place, for it is on the caller's path
        self,
        run_id: Any,
        parent_run_id: Any,
        kind: RunKind,
        name: Any,
        serialized: Mapping[str, Any] | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
    ) -> Run | None:
        """Return a run at its place in its trace, which is not open yet."""
        tracing = self._tracing
        if tracing is None:
            return None
        if type(run_id) is str:  # LangChain passes the value of `config={"run_id": ...}` on
            run_id = UUID(run_id)
        if is_suppressed():
            self._suppress(run_id)
            return None
        key, now = run_id.int ^ self._salt, _perf_counter()
        run = Run(key, run_id, self.model_id, None, CAPTURE_BYTES, now)
        run.began_at = time()
        run.kind = kind
        run.name = _name(serialized) if name is None else name
        parent = None
        if parent_run_id is not None:
            if type(parent_run_id) is str:
                parent_run_id = UUID(parent_run_id)
            run.parent_run_id = parent_run_id
            parent = self._runs.find(parent_run_id.int ^ self._salt)
        run.trace = tracing.place(run_id, parent=parent, parent_id=parent_run_id)
        run.ambient = context_attributes()
        run.call = metadata
        # Lists and dicts of LangChain's manager, which the application can reach as well.
        if tags:
            run.tags = tags.copy()
        if metadata:
            run.metadata = metadata.copy()
            run.size += getsizeof(metadata) + ITEM_BYTES * len(metadata)
        return run

    def _suppress(self, run_id: UUID) -> None:
        """Remember that a run has no span, so that its end is none without a start."""
        suppressed = self._suppressed
        if suppressed is None or len(suppressed) >= MAX_SUPPRESSED:
            suppressed = self._suppressed = {}
        suppressed[run_id.int] = None

    def _is_suppressed(self, run_id: Any) -> bool:
        """Return whether a run that ends was to have no span, and forget it."""
        if not self._suppressed:
            return False
        number = (UUID(run_id) if type(run_id) is str else run_id).int
        return self._suppressed.pop(number, number) is None

    def _keep_inputs(self, run: Run, inputs: Any) -> None:
        """Keep what a run was given: what is no dict under the name `input`, as LangChain does."""
        try:
            kept, held = snapshot_state(inputs, self._copies)
            run.inputs = kept if isinstance(kept, dict) else {"input": kept}
            run.size += held
        except Exception:  # noqa: BLE001 - the application's own objects may raise anything
            run.unread += 1

    def _finish(self, run: Run, outputs: Any) -> None:
        try:
            kept, held = snapshot_state(outputs, self._copies)
            run.outputs = kept if isinstance(kept, dict) else {"output": kept}
            run.size += held
        except Exception:  # noqa: BLE001 - as above
            run.unread += 1
        self._close(run)

    def _note_error(self, run: Run, error: BaseException) -> None:
        """Keep how a run ended; an interrupt of a graph is no error."""
        if is_control_flow(error):
            return
        if isinstance(error, GeneratorExit):
            run.outcome = RunOutcome.DISCONNECTED
        else:
            is_error = isinstance(error, Exception)
            run.outcome = RunOutcome.ERROR if is_error else RunOutcome.CANCELLED
        run.exception = snapshot_exception(error)

    def _close(self, run: Run) -> None:
        """Capture a run, and remember its place for children that start later."""
        if self._tracing is not None:
            self._tracing.ended(run)
        if self._copies is not None and not self._runs:  # nothing is left that could use them
            self._copies.clear()
        self._submit(run)

    def _end_well(self, run_id: UUID, outputs: Any, inputs: Any = None) -> None:
        run = None
        try:
            run = self._end(run_id)
            if run is not None:
                if inputs is not None:
                    self._keep_inputs(run, inputs)
                self._finish(run, outputs)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose(run)

    def _end_badly(self, run_id: UUID, error: BaseException, inputs: Any = None) -> None:
        run = None
        try:
            run = self._end(run_id)
            if run is not None:
                if inputs is not None:
                    self._keep_inputs(run, inputs)
                self._note_error(run, error)
                self._close(run)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose(run)

    def _is_agent(self, run_id: UUID) -> None:
        try:
            run = self._find(run_id)
            if run is not None:
                run.kind = RunKind.AGENT
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose_unreadable()


def _name(serialized: Mapping[str, Any] | None) -> Any:
    """Return a run's name, as LangChain's tracer finds it, or None."""
    if not serialized:
        return None
    name = serialized.get("name")
    if name is None:
        ids = serialized.get("id")
        name = ids[-1] if ids else None
    return name
