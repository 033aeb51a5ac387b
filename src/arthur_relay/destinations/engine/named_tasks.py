"""Tasks that are known by name: the Engine's id of each goes into spans that were made without it.

With a spool, a span is made at once, so that it is safe also while the Engine has never answered.
It then names its task by the service's name alone, under which the Engine may have made no task, or
another one than the user means. Before it is sent, the Engine is asked, and its id is put in.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from arthur_relay.destinations.engine.rows import UnframedError, resource_of, row_body, split
from arthur_relay.destinations.engine.task import Task, is_unasked

MOST_TASKS = 1000
"""Tasks that are remembered: a daemon's clients may name any number."""


@dataclass(slots=True, eq=False)
class NamedTasks:
    """The tasks that the Engine was asked for by their names. One thread."""

    _tasks: dict[str, Task] = field(default_factory=dict)

    def keep(self, task: Task) -> None:
        """Remember what the Engine said of a task."""
        while len(self._tasks) >= MOST_TASKS:
            del self._tasks[next(iter(self._tasks))]
        self._tasks[task.model_id] = task

    def get(self, name: str) -> Task | None:
        """Return what the Engine said of the task of a name, or None when it was not asked."""
        return self._tasks.get(name)


def is_made_unasked(body: bytes, name: str) -> bool:
    """Return whether a row was made before the Engine was asked for the task of that name."""
    try:
        return is_unasked(resource_of(body), name)
    except UnframedError:
        return False


def with_task(body: bytes, task: Task) -> bytes:
    """Return a row with what the Engine said of its task, if it was made without that."""
    if task.task_id is None or not is_made_unasked(body, task.model_id):
        return body
    _, scope, span = split(body)
    return row_body(task.resource(), scope, span)
