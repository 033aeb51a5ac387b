"""What the Engine remembers: tasks, spans and annotations, in memory."""

from __future__ import annotations

import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from arthur_relay.sandbox.engine.spans import Span

MAX_SPANS: Final = 200_000
MAX_SPAN_BYTES: Final = 256 * 1024 * 1024
"""What is kept, at most; the oldest spans go first."""

UNMAPPED: Final = "Unmapped"
"""The task of spans that name none."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task, which spans are filed under."""

    id: str
    name: str
    created_at: float


@dataclass(frozen=True, slots=True)
class StoredSpan:
    """One stored span.

    Attributes:
        seq: Its place in the order of arrival.
        request: The number of the request that brought it.
        task_id: Its task's id.
        received_at: Seconds since 1970.
        span: As it was sent.
    """

    seq: int
    request: int
    task_id: str
    received_at: float
    span: Span


class UnknownTaskError(ValueError):
    """A span names a task that there is not."""


class EngineStore:
    """Tasks, spans and annotations. Every method may be called from any thread.

    A span that is sent twice is stored twice, as the Engine does it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._tasks: dict[str, Task] = {}
        self._services: dict[str, str] = {}
        self._spans: deque[StoredSpan] = deque()
        self._size = 0
        self._seq = 0
        self._requests = 0
        self._by_trace: dict[str, list[StoredSpan]] = {}
        self._by_id: dict[str, list[StoredSpan]] = {}
        self._annotations: dict[str, dict[str, Any]] = {}

    def add_task(self, name: str, *, task_id: str | None = None) -> Task:
        """Make a task; names need not differ.

        Raises:
            ValueError: The id is no UUID, or taken.
        """
        chosen = str(uuid.UUID(task_id) if task_id else uuid.uuid4())
        with self._lock:
            if chosen in self._tasks:
                raise ValueError(f"there is a task with id {chosen} already")
            task = self._tasks[chosen] = Task(chosen, name, time.time())
        return task

    def task(self, task_id: str) -> Task | None:
        """Return a task, or None."""
        with self._lock:
            return self._tasks.get(task_id)

    def tasks(self) -> list[Task]:
        """Return all tasks, oldest first."""
        with self._lock:
            return list(self._tasks.values())

    def add(self, spans: Sequence[Span]) -> list[bool]:
        """Store spans, all or none.

        Returns:
            For each whether one with its ids was stored before.

        Raises:
            UnknownTaskError: One names a task that there is not.
        """
        now = time.time()
        with self._lock:
            for span in spans:
                task_id = span.resource.get("arthur.task")
                if task_id is not None and task_id not in self._tasks:
                    raise UnknownTaskError(f"Key (task_id)=({task_id}) is not present in tasks")
            self._requests += 1
            known = [self._is_known(span) for span in spans]
            for span in spans:
                self._seq += 1
                task_id = self._task_of(span.resource)
                self._keep(StoredSpan(self._seq, self._requests, task_id, now, span))
            self._forget_oldest()
        return known

    def annotate(self, trace_id: str, score: int, description: str | None) -> dict[str, Any] | None:
        """Replace the annotation of a trace. Returns it, or None when the trace is unknown."""
        with self._lock:
            if trace_id not in self._by_trace:
                return None
            before = self._annotations.get(trace_id)
            found = self._annotations[trace_id] = {
                "id": before["id"] if before else str(uuid.uuid4()),
                "annotation_type": "human",
                "trace_id": trace_id,
                "annotation_score": score,
                "annotation_description": description,
            }
        return dict(found)

    def annotation(self, trace_id: str) -> dict[str, Any] | None:
        """Return the annotation of a trace, or None."""
        with self._lock:
            found = self._annotations.get(trace_id)
            return None if found is None else dict(found)

    def annotations(self) -> list[dict[str, Any]]:
        """Return all annotations, those of traces that were judged first come first."""
        with self._lock:
            return [dict(each) for each in self._annotations.values()]

    def trace(self, trace_id: str) -> list[StoredSpan]:
        """Return the spans of a trace, in order of arrival; empty when it is unknown."""
        with self._lock:
            return list(self._by_trace.get(trace_id, ()))

    def traces(self, *, before: int | None, limit: int) -> list[list[StoredSpan]]:
        """Return traces, those first of which a span came last; see `trace`.

        Args:
            before: Only those whose last span came before this place; None begins with the newest.
            limit: How many at most.
        """
        with self._lock:
            found = sorted(self._by_trace.values(), key=_last_seq, reverse=True)
            return [list(each) for each in found if before is None or _last_seq(each) < before][
                :limit
            ]

    def with_ids(self, span_ids: Iterable[str], task_ids: Collection[str]) -> list[StoredSpan]:
        """Return the spans with some ids in some tasks, in order of arrival."""
        with self._lock:
            found = [each for one in set(span_ids) for each in self._by_id.get(one, ())]
        return sorted((s for s in found if s.task_id in task_ids), key=attrgetter("seq"))

    def in_tasks(self, task_ids: Collection[str]) -> list[StoredSpan]:
        """Return the spans of some tasks, in order of arrival."""
        with self._lock:
            return [stored for stored in self._spans if stored.task_id in task_ids]

    def spans(self) -> list[StoredSpan]:
        """Return all spans, in order of arrival."""
        with self._lock:
            return list(self._spans)

    def counts(self) -> dict[str, int]:
        """Return how many spans and traces there are."""
        with self._lock:
            return {"spans": len(self._spans), "traces": len(self._by_trace)}

    def _task_of(self, resource: dict[str, Any]) -> str:
        task_id = resource.get("arthur.task")
        if task_id is not None:
            return str(task_id)
        # A name is looked up among services, not among tasks: a second task may be made of it.
        name = str(resource.get("service.name") or UNMAPPED)
        if name not in self._services:
            self._services[name] = self.add_task(name).id
        return self._services[name]

    def _is_known(self, span: Span) -> bool:
        known = self._by_id.get(span.span_id, ())
        return any(each.span.trace_id == span.trace_id for each in known)

    def _keep(self, stored: StoredSpan) -> None:
        self._spans.append(stored)
        self._size += stored.span.size
        self._by_trace.setdefault(stored.span.trace_id, []).append(stored)
        self._by_id.setdefault(stored.span.span_id, []).append(stored)

    def _forget_oldest(self) -> None:
        while len(self._spans) > MAX_SPANS or self._size > MAX_SPAN_BYTES:
            oldest = self._spans.popleft()
            self._size -= oldest.span.size
            for index, key in (
                (self._by_trace, oldest.span.trace_id),
                (self._by_id, oldest.span.span_id),
            ):
                index[key].remove(oldest)
                if not index[key]:
                    del index[key]
            if oldest.span.trace_id not in self._by_trace:
                self._annotations.pop(oldest.span.trace_id, None)


def _last_seq(spans: Sequence[StoredSpan]) -> int:
    """Return the place of the span of a trace that came last."""
    return spans[-1].seq
