"""One row of the table of faults of Arthur Engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from arthur_relay.sandbox.engine import Role
from arthur_relay.sandbox.server import WRITE_KEY
from tests.end_to_end.engine_stage import EngineStage
from tests.end_to_end.fault import Fault, arthur
from tests.end_to_end.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.end_to_end.fronts import Break


@dataclass(frozen=True)
class EngineFault(Fault):
    """What goes wrong, and what then happens to the three spans of a trace.

    Attributes:
        logins: None; the Engine takes a key.
        questions: How often the Engine was asked which spans it has.
        asks_again: Whether it is asked again and again, of a fault that stays.
        in_any_order: Whether other spans may pass after those that were rejected, or before.
    """

    logins: int = 0
    questions: int = 0
    asks_again: bool = False
    in_any_order: bool = False

    @property
    def health(self) -> set[str]:
        """What `health()` may say once it is over."""
        if self.rejected and not self.in_any_order:
            return {"degraded"}
        return {"ok", "degraded"} if self.rejected else {"ok"}


def passes_after(times: int, does: Callable[[Stage], object], **more: Any) -> EngineFault:
    """A fault that as many attempts meet."""
    return EngineFault(does, attempts=times + 1, **more)


def is_lost(does: Callable[[Stage], object], **more: Any) -> EngineFault:
    """An answer that is lost once: the Engine is asked, and nothing is sent again."""
    return EngineFault(does, **{"attempts": 2, "requests": 1, "questions": 1, **more})


def breaks(does: Break, **more: Any) -> EngineFault:
    """An answer that is lost by what lies between the relay and the Engine, once."""
    return is_lost(lambda place: place.wire.breaks.append(does), sets=Stage.lay_wire, **more)


def refused(reason: str, does: Callable[[Stage], object], **more: Any) -> EngineFault:
    """One that can't be helped by trying again: halved until each span was sent alone."""
    more = {"attempts": 5, "lines": 1, **more}
    return EngineFault(does, delivered=0, rejected={reason: 3}, **more)


def stays(
    does: Callable[[Stage], object], says: str, *, requests: int | None = None, **more: Any
) -> EngineFault:
    """A fault that does not pass: a line says so when the breaker opens, another what is lost."""
    more = {"attempts": 6, "lines": 2, "asks_again": requests is None, **more}
    return EngineFault(does, requests=requests, delivered=0, says=says, **more)


def no_entry(does: Callable[[Stage], object], says: str) -> EngineFault:
    """The Engine does not let us in or write: its answers are clear, and spans wait."""
    return stays(does, says, attempts=3, asks_again=False)


def unseen(does: Callable[[Stage], object], says: str, **more: Any) -> EngineFault:
    """One of those, of which the Engine sees nothing."""
    return stays(does, says, **{"requests": 0, "asks": False, **more})


def traces(kind: str, *arguments: Any, **options: Any) -> Callable[[Stage], None]:
    """A fault of the sandbox that questions do not meet."""
    return arthur(kind, *arguments, routes=["traces"], **options)


def with_key_that_may_only_write(place: Stage) -> None:
    assert isinstance(place, EngineStage)
    place.key = WRITE_KEY


def role_changes_to(role: Role) -> Callable[[Stage], None]:
    """The key has another role, from now on."""

    def change(place: Stage) -> None:
        place.sandbox.engine_keys[place.sandbox.api_key] = role

    return change


def key_is_deleted(place: Stage) -> None:
    del place.sandbox.engine_keys[place.sandbox.api_key]


def task_is_deleted(place: Stage) -> None:
    del place.sandbox._core.engine.store._tasks[place.sandbox.task_id]


def lost_and_questions_fail(place: Stage) -> None:
    """An answer is lost, and the question which spans are there is answered at the third time."""
    place.faults.cut(store=True)
    place.faults.status(503, times=2, routes=["spans"])
