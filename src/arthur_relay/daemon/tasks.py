"""What the Engine says of tasks, for clients and for the intake of spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from arthur_relay.destinations.engine.task import is_task_id
from arthur_relay.errors import CredentialsError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from arthur_relay.daemon.auth import Principal

NO_TASK = "the Engine has no such task"


class SeveralTasksError(Exception):
    """Several tasks have a name."""


class AsksForModels(Protocol):
    """Asks Arthur, and knows what it said before; see `Models`."""

    async def describe(self, name: str) -> dict[str, Any] | None:
        """Return the description of a model, or None when there is none."""
        ...

    async def refusal(self, model_id: str) -> str:
        """Return why rows of a model are never accepted, or ""."""
        ...

    def kept(self) -> Iterable[dict[str, Any]]:
        """Return the descriptions of the models that are known."""
        ...


@dataclass(frozen=True, slots=True)
class Tasks:
    """Answers by what the Engine has said. For the daemon's loop only.

    Attributes:
        models: Asks the Engine: a task is what Arthur Scope calls a model.
    """

    models: AsksForModels

    async def refusal(self, task: str) -> str:
        """Return why spans of a task can never be taken, or "" as far as is known.

        Of a name, the Engine makes a task.
        """
        if is_task_id(task) and await self.models.refusal(task):
            return NO_TASK
        return ""

    def allows(self, principal: Principal, task: str) -> bool:
        """Return whether a client may send to a task, which its token names by id or by name."""
        if principal.allows(task):
            return True
        return any(
            found.get("task_id") == task and principal.allows(str(found.get("id")))
            for found in self.models.kept()
        )

    async def exists(self, task_id: str) -> bool:
        """Return whether there is a task, or may be one while the Engine can't be asked."""
        try:
            return await self.models.describe(task_id) is not None
        except (UnreachableError, CredentialsError):
            return True  # the spool takes its spans

    async def id_of(self, name: str) -> str | None:
        """Return the id of the task of a name, or None when the Engine will make one.

        Raises:
            SeveralTasksError: There are several.
            UnreachableError: The Engine can't be asked.
            CredentialsError: It refused the daemon.
        """
        found = await self.models.describe(name)
        if found is None:
            raise SeveralTasksError
        task_id = found.get("task_id")
        return None if task_id is None else str(task_id)
