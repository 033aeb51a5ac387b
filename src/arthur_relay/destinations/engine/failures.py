"""How a run ended, as a span's status and its exception."""

from __future__ import annotations

import linecache
import os
import stat
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from arthur_relay.destinations.engine.answer_facts import (
    answer,
    finish_reason,
    first_generation,
    message_fields,
)
from arthur_relay.destinations.engine.span_bytes import SpanException
from arthur_relay.encoding.privacy import CUT_ERROR_CHARACTERS
from arthur_relay.inference import MAX_ERROR_CHARACTERS, Run, RunKind, RunOutcome

if TYPE_CHECKING:
    from arthur_relay.destinations.engine.attributes import SpanTexts
    from arthur_relay.inference import ExceptionSnapshot

_WORDS: Mapping[RunOutcome, str] = {
    RunOutcome.ERROR: "error",
    RunOutcome.CANCELLED: "cancelled",
    RunOutcome.DISCONNECTED: "disconnected: the consumer of the stream went away",
    RunOutcome.ABANDONED: "abandoned: no end event came",
}


_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_WHILE_HANDLED = "\nDuring handling of the above exception, another exception occurred:\n\n"
"""Python's words between two stack traces."""


MAX_SOURCE_BYTES = 10_000_000
"""Of a file of which lines are read."""


def settle_outcome(run: Run) -> None:
    """Correct the outcome of a stream that was closed after its last chunk: it was complete."""
    if run.kind is not RunKind.LLM or run.outcome not in (
        RunOutcome.DISCONNECTED,
        RunOutcome.CANCELLED,
    ):
        return
    generation = first_generation(run.outputs)
    if generation is not None and (
        message_fields(generation).get("chunk_position") == "last"
        or finish_reason(answer(run.outputs)) is not None
    ):
        run.outcome = RunOutcome.OK
        run.exception = None


def status_message(run: Run, texts: SpanTexts) -> str | None:
    """Return the message of a span's status, or None when its run ended well."""
    if run.outcome is RunOutcome.OK:
        return None
    word = _WORDS[run.outcome]
    if run.outcome is not RunOutcome.ERROR or run.exception is None:
        return word
    name = run.exception.type_name.rpartition(".")[2]
    message = _message(run.exception, texts)
    return texts.whole(f"{name}: {message}" if message else name)


def exception_of(run: Run, texts: SpanTexts) -> SpanException | None:
    """Return what a span tells of its run's exception, or None when there is none."""
    found = run.exception
    if found is None:
        return None
    message = _message(found, texts)
    hidden = texts.hiding.inputs or texts.hiding.outputs
    stacktrace = None if hidden else texts.whole(_stacktrace(found, message, texts))
    return SpanException(
        type_name=texts.whole(found.type_name), message=message, stacktrace=stacktrace
    )


def _message(found: ExceptionSnapshot, texts: SpanTexts) -> str:
    """Return what may be told of an exception's text, which may quote what is hidden."""
    if texts.hiding.inputs or texts.hiding.outputs:
        return ""
    return texts.cut(_part(found.message, texts))


def _part(text: str, texts: SpanTexts) -> str:
    """Return what may be told of a text that the callback may have cut."""
    told = texts.part(text)
    if len(text) >= MAX_ERROR_CHARACTERS and texts.redacts:
        return told[:-CUT_ERROR_CHARACTERS] + "…"  # half a secret looks like none
    return told


def _stacktrace(found: ExceptionSnapshot, message: str, texts: SpanTexts) -> str:
    """Return a stack trace as Python prints it, after those of the exceptions before it."""
    parts = [_stacktrace_alone(found, message, texts)]
    earlier = found.earlier
    while earlier is not None:
        parts.append(_CAUSED if found.is_caused else _WHILE_HANDLED)
        parts.append(_stacktrace_alone(earlier, _message(earlier, texts), texts))
        found, earlier = earlier, earlier.earlier
    return "".join(reversed(parts))


def _stacktrace_alone(found: ExceptionSnapshot, message: str, texts: SpanTexts) -> str:
    """Return the stack trace of one; source lines are read here, not by the caller."""
    lines = ["Traceback (most recent call last):\n"] if found.frames else []
    for filename, number, function in found.frames:
        lines.append(f'  File "{filename}", line {number}, in {function}\n')
        if _may_be_read(filename) and (source := linecache.getline(filename, number).strip()):
            lines.append(f"    {source}\n")
    lines.append(f"{found.type_name}: {message}\n" if message else f"{found.type_name}\n")
    lines += [f"{_part(note, texts)}\n" for note in found.notes]
    return "".join(lines)


@lru_cache(maxsize=1_000)
def _may_be_read(filename: str) -> bool:
    """Return whether a file has an end: code may say it is from a pipe, or from a terminal."""
    try:
        found = os.stat(filename)  # noqa: PTH116 - any text, also none that a path may be
    except (OSError, ValueError):
        return True  # linecache has what notebooks run
    return stat.S_ISREG(found.st_mode) and found.st_size <= MAX_SOURCE_BYTES
