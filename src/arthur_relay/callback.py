"""The LangChain callback: turns run events into captured runs, on the caller's thread.

No method blocks, raises, serialises or does I/O. LangChain's source shows how it calls a handler;
the traps that matter here: a sync handler that is not inline goes through the application's thread
pool for every token of an async call; some runs end twice, some never.
"""

from __future__ import annotations

from sys import getsizeof
from time import time
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from arthur_relay.capture.contents import has_content
from arthur_relay.capture.exceptions import snapshot_exception
from arthur_relay.capture.generation_snapshots import (
    chat_streams_lose_chunks,
    join_pieces,
    snapshot_generation,
    snapshot_partial,
    with_last_chunk,
)
from arthur_relay.capture.open_runs import salt_of
from arthur_relay.capture.snapshots import snapshot_messages, snapshot_request, snapshot_values
from arthur_relay.capture.trace_events import TraceEvents
from arthur_relay.errors import in_one_sentence
from arthur_relay.inference import (
    CAPTURE_BYTES,
    MAX_ERROR_CHARACTERS,
    Run,
    RunOutcome,
    StreamedChunks,
)
from arthur_relay.lifecycle import Closing
from arthur_relay.system.clocks import Clocks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from langchain_core.messages import BaseMessage
    from langchain_core.outputs import LLMResult

    from arthur_relay.relay import Relay
    from arthur_relay.settings import RelaySettings
    from arthur_relay.stats import FlushResult


class ArthurCallbackHandler(Closing, TraceEvents, BaseCallbackHandler):
    """Logs every LLM run of LangChain to Arthur, without the run waiting for it.

    Make one by `from_credentials`, `from_engine` or `from_env`. Handlers with the same address,
    credentials and settings share one relay, so you may make one for each request.

    Args:
        arthur_model: An `arthurai.ArthurModel`, whose schema, address and credentials are used.
        relay: A relay that you have made.
        model_id: The model to log to, if it is not the relay's own; only with `relay`.
        settings: The settings of the relay that is made for `arthur_model`; only with
            `arthur_model`.

    Raises:
        ConfigurationError: Neither or both of `arthur_model` and `relay` were given, or an argument
            that does not go with them; or there is no model id, or the model is not an LLM.
    """

    run_inline = True
    raise_error = False
    # Plain attributes, because the base class's properties cost a call for each event.
    ignore_llm = False
    ignore_chat_model = False
    ignore_chain = True
    ignore_agent = True
    ignore_retriever = True
    ignore_retry = True
    ignore_custom_event = True

    _perf_counter = staticmethod(Clocks.perf_counter)

    @in_one_sentence
    def __init__(
        self,
        arthur_model: Any = None,
        *,
        relay: Relay | None = None,
        model_id: str | None = None,
        settings: RelaySettings | None = None,
    ) -> None:
        from arthur_relay import sharing  # noqa: PLC0415 - not needed to import the handler
        from arthur_relay.encoding.messages import PLAIN_ROLES  # noqa: PLC0415 - as above
        from arthur_relay.relay import host_of  # noqa: PLC0415 - as above

        super().__init__()
        self.relay, self.model_id = sharing.relay_and_model(
            arthur_model=arthur_model, relay=relay, model_id=model_id, settings=settings
        )
        self._host = host_of(self.relay)
        self._runs = self._host.open_runs
        self._find_run = self._runs.find
        self._repeats = self._runs.repeats
        self._plain = PLAIN_ROLES
        self._wanted = self._host.models.wanted
        self._salt = salt_of(self.model_id)
        self._loses_chunks = chat_streams_lose_chunks()
        if self.relay.settings.disabled:
            self.ignore_llm = self.ignore_chat_model = True
        else:
            self._trace(self._host.tracing)

    @classmethod
    @in_one_sentence
    def from_credentials(
        cls,
        model_id: str,
        arthur_url: str | None = "https://app.arthur.ai",
        arthur_login: str | None = None,
        arthur_password: str | None = None,
        *,
        settings: RelaySettings | None = None,
    ) -> Self:
        """Make a handler that logs to a model of Arthur.

        It asks Arthur for the model at once, unless `connect = lazy`. If Arthur can't be reached,
        that is logged, the relay keeps asking, and inferences wait.

        Args:
            model_id: Arthur's id of the model.
            arthur_url: Arthur's address. None takes `ARTHUR_ENDPOINT_URL`, or
                https://app.arthur.ai if that is not set.
            arthur_login: The login. None takes the key in `ARTHUR_API_KEY` instead.
            arthur_password: The login's password. None takes `ARTHUR_PASSWORD`, or asks for it at
                the terminal if that is not set.
            settings: The relay's settings. None takes them from the environment.

        Raises:
            ValueError: There are no credentials, Arthur refused them, it has no such model, the
                model is not an LLM, or an argument or a setting is not allowed. (Each is a
                `ConfigurationError`.)
        """
        from arthur_relay import sharing  # noqa: PLC0415 - not needed to import the handler

        relay = sharing.relay_for_credentials(
            arthur_url, arthur_login, arthur_password, settings=settings
        )
        return cls(relay=relay, model_id=model_id)

    @classmethod
    @in_one_sentence
    def from_engine(
        cls,
        task: str | None = None,
        *,
        task_id: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        service_version: str | None = None,
        settings: RelaySettings | None = None,
    ) -> Self:
        """Make a handler that sends traces to a task of Arthur Engine.

        It asks the Engine for the task at once, unless `connect = lazy`. If the Engine can't be
        reached, that is logged, the relay keeps asking, and spans wait. With `trace = full` each
        run of LangChain is a span; with `trace = llm` only those of LLMs are, each as a trace of
        its own.

        Args:
            task: The task's name or id. For a name that the Engine does not know, it makes a task.
                None takes `ARTHUR_TASK_ID`, or `OTEL_SERVICE_NAME` if that is not set.
            task_id: The task's id, instead of `task`.
            base_url: The Engine's address. None takes `ARTHUR_BASE_URL`, or http://localhost:3030
                if that is not set.
            api_key: The key. None takes `ARTHUR_API_KEY`.
            service_version: Your application's version, which is in each span, or None.
            settings: The relay's settings. None takes them from the environment. Unless they say
                otherwise, a request has 50 spans, and requests are sent one after the other.

        Raises:
            ValueError: There is no key, or the Engine refused it; no task has the id, or several
                have the name; or an argument or a setting is not allowed. (Each is a
                `ConfigurationError`.)
        """
        from arthur_relay import sharing  # noqa: PLC0415 - not needed to import the handler

        relay, named = sharing.relay_for_engine(
            task,
            task_id=task_id,
            base_url=base_url,
            api_key=api_key,
            service_version=service_version,
            settings=settings,
        )
        return cls(relay=relay, model_id=named)

    @classmethod
    @in_one_sentence
    def from_env(cls, *, settings: RelaySettings | None = None) -> Self:
        """Make a handler with everything from the environment.

        For Arthur Scope, set `ARTHUR_MODEL_ID`, and either `ARTHUR_API_KEY` or `ARTHUR_LOGIN` and
        `ARTHUR_PASSWORD`. Set `ARTHUR_ENDPOINT_URL` if it is not https://app.arthur.ai.

        For Arthur Engine, set `ARTHUR_BASE_URL` or `ARTHUR_TASK_ID` or both, and `ARTHUR_API_KEY`.
        `OTEL_SERVICE_NAME` gives the task by its name.

        Args:
            settings: The relay's settings. None takes them from the environment.

        Raises:
            ValueError: Whatever `from_credentials` or `from_engine` raises it for; also when
                variables for both products are set, or none that says which model or task.
        """
        from arthur_relay import sharing  # noqa: PLC0415 - not needed to import the handler

        relay, model_id = sharing.relay_for_environment(settings=settings)
        return cls(relay=relay, model_id=model_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a run of a chat model, with a copy of its messages."""
        try:
            if self._tracing is not None:
                self._start_llm(
                    run_id, parent_run_id, serialized, tags, metadata, kwargs, messages=messages[0]
                )
                return
            # LangChain calls this once for each list of messages, each time with another run id.
            prompt, size = snapshot_messages(messages[0], self._plain)
            run = Run(0, run_id, self.model_id, prompt, size + CAPTURE_BYTES, self._perf_counter())
            if self._loses_chunks:
                run.chunks = StreamedChunks()
            self._begin(run, serialized, parent_run_id, tags, metadata, kwargs)
        except Exception:  # noqa: BLE001 - the callback's edge: nothing may be raised into the application
            self._host.lose_unreadable()

    def on_llm_start(
        self,
        serialized: dict[str, Any],
        prompts: list[str],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Open a run of a completion model."""
        try:
            if self._tracing is not None:
                self._start_llm(
                    run_id, parent_run_id, serialized, tags, metadata, kwargs, prompts=prompts
                )
                return
            prompt = prompts[0]
            size = getsizeof(prompt) + CAPTURE_BYTES
            run = Run(0, run_id, self.model_id, prompt, size, self._perf_counter())
            run.chunks = StreamedChunks()
            # langchain_aws.BedrockLLM ends with one generation for each chunk of a stream.
            params = kwargs.get("invocation_params")
            if type(params) is dict:
                run.is_in_pieces = params.get("_type") == "amazon_bedrock"
            self._begin(run, serialized, parent_run_id, tags, metadata, kwargs)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._host.lose_unreadable()

    def on_llm_new_token(
        self,
        token: Any,
        *,
        chunk: Any = None,
        run_id: UUID,
        parent_run_id: UUID | None = None,  # noqa: ARG002 - named, so that kwargs stay empty
        tags: list[str] | None = None,  # noqa: ARG002 - see above
        **kwargs: Any,  # noqa: ARG002 - LangChain passes more
    ) -> None:
        """Note when the first token came; the tokens themselves are not kept."""
        try:
            try:
                run = self._find_run(run_id.int ^ self._salt)
            except AttributeError:
                run = self._find(run_id)
            if run is None or run.first_token_at is not None:
                if not self._repeats:  # nearly always
                    return
                run = self._find(run_id)
                if run is None or run.first_token_at is not None:
                    return
            if run.chunks is not None:
                self._note_chunk(run.chunks, token, chunk)
            elif (token and (type(token) is str or has_content(token))) or _has_content(chunk):
                run.first_token_at = self._perf_counter()
        except Exception:  # noqa: BLE001 - the callback's edge
            self._host.events.unreadable.increment()

    def on_stream_event(
        self,
        event: Any,
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ARG002 - LangChain passes more
    ) -> None:
        """Note when the first token came, under `stream_events(version="v3")` and LangGraph."""
        try:
            run = self._find(run_id)
            if run is None or run.first_token_at is not None:
                return
            kind = event["event"]
            if (kind == "content-block-delta" and has_content(event.get("delta", True))) or (
                kind == "content-block-start" and has_content({**event["content"]})
            ):
                run.first_token_at = self._perf_counter()
        except Exception:  # noqa: BLE001 - the callback's edge
            self._host.events.unreadable.increment()

    def on_llm_end(
        self,
        response: LLMResult,
        *,
        run_id: UUID,
        **kwargs: Any,  # noqa: ARG002 - LangChain passes more
    ) -> None:
        """Capture a run that ended well."""
        run = None
        try:
            run = self._end(run_id)
            if run is None:
                return
            if run.trace is None:
                self._take_generations(run, response)
                self._submit(run)
            else:
                self._take_result(run, response.generations, response.llm_output)
                self._close(run)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose(run)

    def on_llm_error(
        self,
        error: BaseException,
        *,
        run_id: UUID,
        response: LLMResult | None = None,
        signal: bool = False,
        **kwargs: Any,
    ) -> None:
        """Capture a run that failed, was cancelled, or whose consumer went away."""
        run = None
        try:
            if signal:  # langchain_aws reports a guardrail's intervention so; the answer follows
                run_of_signal = self._find(run_id)
                if run_of_signal is not None:
                    run_of_signal.intervention = kwargs.get("reason")
                return
            run = self._end(run_id)
            if run is None:
                return
            run.outcome = _outcome(error)
            run.error = _error_text(error)
            # The first list is what had been streamed; the provider's error comes after it, as a
            # generation without text.
            partial = None
            if response is not None and response.generations and response.generations[0]:
                partial = response.generations[0][0]
            chunks = run.chunks
            if chunks is not None and isinstance(error, GeneratorExit):
                partial = with_last_chunk(partial, chunks)
            if partial is not None:
                output = None if response is None else response.llm_output
                if run.trace is not None:
                    self._take_result(run, [[partial]], output)
                else:
                    reasoning = self._wants_reasoning()
                    snapshot, size = snapshot_partial(partial, output, reasoning=reasoning)
                    run.generations = (snapshot,)
                    run.size += size
            if run.trace is None:
                self._submit(run)
            else:
                run.exception = snapshot_exception(error)
                self._close(run)
        except Exception:  # noqa: BLE001 - the callback's edge
            self._lose(run)

    def log_ground_truth(
        self,
        run_id_or_inference_id: UUID | str,
        ground_truth: Mapping[str, Any],
        timestamp: datetime | None = None,
    ) -> None:
        """Send an inference's ground truth to Arthur. See `Relay.log_ground_truth`."""
        self.relay.log_ground_truth(
            run_id_or_inference_id, ground_truth, timestamp, model_id=self.model_id
        )

    def log_feedback(
        self,
        run_id: UUID | str,
        liked: bool,  # noqa: FBT001 - as one says it: log_feedback(run_id, True)
        description: str | None = None,
    ) -> None:
        """Send a user's feedback on a trace to Arthur Engine. See `Relay.log_feedback`."""
        self.relay.log_feedback(run_id, liked, description, model_id=self.model_id)

    def flush(self, timeout: float | None = None) -> FlushResult:
        """Wait until all earlier captures are delivered, rejected or dropped. See `Relay.flush`."""
        return self.relay.flush(timeout)

    async def aflush(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as flush
        """Flush without blocking the event loop. See `Relay.aflush`."""
        return await self.relay.aflush(timeout)

    def close(self, timeout: float | None = None) -> FlushResult:
        """Flush. The relay stays open for other handlers until the process ends.

        `handler.relay.close()` closes the relay for all handlers that share it.
        """
        return self.relay.flush(timeout)

    async def aclose(self, timeout: float | None = None) -> FlushResult:  # noqa: ASYNC109 - as close
        """Close without blocking the event loop."""
        return await self.relay.aflush(timeout)

    def _begin(
        self,
        run: Run,
        serialized: Any,
        parent_run_id: UUID | None,
        tags: list[str] | None,
        metadata: dict[str, Any] | None,
        details: dict[str, Any],
    ) -> None:
        """Open a run with its prompt and other values; a value that can't be read is left out."""
        run_id: Any = run.run_id
        if type(run_id) is str:  # LangChain passes the value of `config={"run_id": ...}` on
            run.run_id = run_id = UUID(run_id)
        run.key = run_id.int ^ self._salt
        run.call = metadata
        if parent_run_id is not None:
            run.parent_run_id = parent_run_id
        wanted = self._wanted.get(self.model_id)
        try:
            # Lists and dicts of LangChain's manager, which the application can reach as well.
            if tags:
                run.tags = tags.copy()
            if metadata:
                run.asked_for = metadata.get("ls_model_name")
            if wanted is None or wanted.request:
                name = details.get("name") or (serialized or {}).get("name")
                run.request = snapshot_request(details.get("invocation_params"), metadata, name)
            if metadata and wanted is not None:  # without unregistered values
                names = wanted.names
                metadata = (
                    None
                    if names.isdisjoint(metadata)
                    else {name: metadata[name] for name in names if name in metadata}
                )
            if metadata:
                run.metadata, held, unread = snapshot_values(metadata)
                run.size += held
                run.unread = unread
        except Exception:  # noqa: BLE001 - the application's own objects may raise anything
            run.unread += 1
        self._runs.begin(run)

    def _take_generations(self, run: Run, response: LLMResult) -> None:
        """Keep snapshots of a run's answers."""
        streamed = run.first_token_at is not None
        reasoning = self._wants_reasoning()
        output = response.llm_output
        snapshots = []
        for generations in response.generations:
            for generation in generations:
                snapshot, size = snapshot_generation(
                    generation, output, streamed=streamed, reasoning=reasoning
                )
                snapshots.append(snapshot)
                run.size += size
        if run.is_in_pieces and len(snapshots) > 1:
            snapshots = [join_pieces(snapshots)]
        run.generations = snapshots
        run.rows = len(snapshots) or 1

    def _wants_reasoning(self) -> bool:
        wanted = self._wanted.get(self.model_id)
        return wanted is None or wanted.reasoning

    def _key(self, run_id: Any) -> int:
        """Return the key of a run; see `open_runs.run_key`."""
        if type(run_id) is str:
            run_id = UUID(run_id)
        number: int = run_id.int
        return number ^ self._salt

    def _note_chunk(self, chunks: StreamedChunks, token: Any, chunk: Any) -> None:
        """Keep a chunk of a run; its `first_token_at` is set when it ends."""
        if chunk is not None:
            chunks.last = chunk
        chunks.length += len(token)
        if chunks.first_at is None and (has_content(token) or _has_content(chunk)):
            chunks.first_at = self._perf_counter()

    def _find(self, run_id: UUID) -> Run | None:
        return self._runs.current(self._key(run_id))

    def _end(self, run_id: UUID) -> Run | None:
        """Remove a run from the open ones and set its times; None when it is not open."""
        run = self._runs.end(self._key(run_id))
        if run is None:
            if not self._is_suppressed(run_id):
                self._host.events.unmatched.increment()
            return None
        run.duration = self._perf_counter() - run.started_at
        if run.chunks is not None and run.chunks.first_at is not None:
            run.first_token_at = run.chunks.first_at
        run.ended_at = time()
        return run

    def _submit(self, run: Run) -> None:
        run.chunks = None  # its last chunk is not counted among the bytes that wait
        # To the queue itself: `open_runs.end` has started a worker where this process had none.
        self._host.pipeline.queue.put(run)
        if run.ground_truths is not None:
            self._host.submit_ground_truths(run)

    def _lose_unreadable(self) -> None:
        """Count a start event that could not be read."""
        self._host.lose_unreadable()

    def _lose(self, run: Run | None) -> None:
        """Count an end event that could not be read, and drop its run, if one was found."""
        if run is None:
            self._host.events.unreadable.increment()
        else:
            self._host.lose_unreadable()
            self._host.submit_ground_truths(run)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # LangChain copies objects with handlers deeply, but a relay can't be copied.
        return self

    def __copy__(self) -> Self:
        return self


def _has_content(chunk: Any) -> bool:
    """Return whether a chunk without text has other content: a tool call, or reasoning."""
    message = getattr(chunk, "message", None)
    if message is None:
        return False
    return bool(
        getattr(message, "tool_call_chunks", None)
        or has_content(message.content)
        or has_content(message.additional_kwargs)
    )


def _outcome(error: BaseException) -> RunOutcome:
    if isinstance(error, GeneratorExit):
        return RunOutcome.DISCONNECTED
    if isinstance(error, Exception):
        return RunOutcome.ERROR
    return RunOutcome.CANCELLED  # asyncio's and trio's cancellation, KeyboardInterrupt, SystemExit


def _error_text(error: BaseException) -> str:
    """Return an error's type and text, because the exception would keep its frames alive."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - someone else's __str__
        return name
    return f"{name}: {text[:MAX_ERROR_CHARACTERS]}" if text else name
