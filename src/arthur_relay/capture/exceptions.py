"""What is kept of an exception, on the caller's thread: names, a text, and places in the code.

No source line is read here, because that is I/O; the worker adds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from arthur_relay.inference import MAX_ERROR_CHARACTERS, ExceptionSnapshot

if TYPE_CHECKING:
    from types import TracebackType

MAX_FRAMES = 50
"""How many frames are kept, the innermost ones; LangGraph's own are some twenty."""

MAX_NOTES = 10

MAX_EARLIER = 5
"""How many exceptions before it are kept: its cause, the cause of that, and so on."""

_MOST_STEPS = 1_000

_CONTROL_FLOW = frozenset({"GraphBubbleUp", "ParentCommand"})
"""LangGraph's base classes of what ends a node without being an error: interrupts, commands."""


def is_control_flow(error: BaseException) -> bool:
    """Return whether an exception is LangGraph's way to end a node, and no error."""
    return any(
        cls.__name__ in _CONTROL_FLOW and str(cls.__module__).startswith("langgraph.")
        for cls in type(error).__mro__
    )


def snapshot_exception(error: BaseException) -> ExceptionSnapshot:
    """Keep what a span says about an exception, and about those before it. Never raises."""
    found = _alone(error)
    seen, latest, of_latest = {id(error)}, error, found
    try:
        while len(seen) <= MAX_EARLIER:
            earlier = latest.__cause__
            is_caused = earlier is not None
            if earlier is None and not latest.__suppress_context__:
                earlier = latest.__context__
            if earlier is None or id(earlier) in seen:
                break
            of_latest.earlier, of_latest.is_caused = _alone(earlier), is_caused
            seen.add(id(earlier))
            latest, of_latest = earlier, of_latest.earlier
    except Exception:  # noqa: BLE001 - someone else's property
        return found
    return found


def _alone(error: BaseException) -> ExceptionSnapshot:
    cls = type(error)
    name = cls.__qualname__
    if cls.__module__ != "builtins":
        name = f"{cls.__module__}.{name}"
    try:
        message = str(error)[:MAX_ERROR_CHARACTERS]
    except Exception:  # noqa: BLE001 - someone else's __str__
        message = ""
    return ExceptionSnapshot(name, message, _frames(error), _notes(error))


def _notes(error: BaseException) -> list[str]:
    try:
        notes = getattr(error, "__notes__", None)
    except Exception:  # noqa: BLE001 - someone else's property
        return []
    if not isinstance(notes, list):
        return []
    return [note[:MAX_ERROR_CHARACTERS] for note in notes[:MAX_NOTES] if type(note) is str]


def _frames(error: BaseException) -> list[tuple[str, int, str]]:
    traceback: TracebackType | None = error.__traceback__
    frames: list[tuple[str, int, str]] = []
    steps = 0
    while traceback is not None and steps < _MOST_STEPS:
        code = traceback.tb_frame.f_code
        frames.append((code.co_filename, traceback.tb_lineno or 0, code.co_name))
        traceback = traceback.tb_next
        steps += 1
    return frames[-MAX_FRAMES:]
