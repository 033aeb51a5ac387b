"""Snapshots of a relay's counts and health, with the invariant captured = settled + pending."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple


class DropReason(StrEnum):
    """Why an inference was given up without Arthur having seen it."""

    OVERFLOW = "overflow"
    """The queue was full and the policy gave this one up."""
    RETRY_TIME_EXCEEDED = "retry_time_exceeded"
    """It failed for longer than `retry_max_elapsed_seconds`."""
    SHUTDOWN = "shutdown"
    """The deadline of `close()` or of the process's exit passed first."""
    CLOSED = "closed"
    """It was captured after the relay had been closed."""
    SKIPPED = "skipped"
    """A failed run, and the model has no attribute `outcome` or `error` to tell it apart."""
    SAMPLED = "sampled"
    """It is not in the sample that `sample_rate` asks for."""
    UNREADABLE = "unreadable"
    """It could not be read when it was captured: an object raised, or was of an unknown kind."""
    LOST_IN_SPOOL = "lost_in_spool"
    """It was in the spool, and can't be read any more: a file was damaged, or rows removed."""
    UNENCODABLE = "unencodable"
    """It could not be turned into a row: a bug here, or an object that was not foreseen."""


class Stats(NamedTuple):
    """A snapshot; at every instant `captured == delivered + rejected + sum(dropped) + pending`.

    In a worker of a fleet, `returned` is added on the right.
    """

    captured: int
    """Inferences handed to the relay since it was made, and those that it found in the spool."""
    delivered: int
    """Inferences that Arthur acknowledged."""
    rejected: int
    """Inferences that Arthur refused for good, each with a reason (`rejected_reasons`)."""
    dropped: Mapping[str, int]
    """Inferences given up, by `DropReason`; reasons that never happened are absent."""
    pending: int
    """Inferences that wait, or are on their way."""
    rejected_reasons: Mapping[str, int]
    """Rejected inferences by reason, for instance `http 404` or `row 400`."""
    open_runs: int
    """LangChain runs that have started and not ended."""
    abandoned: int
    """Runs given up because no end event came in time, or too many were open."""
    unmatched_events: int
    """End events of runs that had not started or had ended before."""
    capture_errors: int
    """Callback events that could not be read; nothing was raised into the application."""
    attributes_omitted: int
    """Attribute values left out of rows because they could not be coerced to the model's type.

    Also tokens and likelihoods that could spell out what is redacted or cut in the output text.
    """
    redaction_failures: int
    """Texts withheld because a redactor raised or returned no text."""
    requests: int
    """Requests that carried rows, each attempt counted."""
    retries: int
    """Requests among them that repeated an earlier one."""
    malformed_answers: int
    """Answers of Arthur that did not say clearly what became of each row."""
    worker_restarts: int
    """How often the worker died of an unexpected error and came back."""
    pending_bytes: int
    """Bytes that waiting inferences take, as accounted."""
    spooled: int
    """Waiting inferences that are safe on disk: if this process ends, a later one delivers them.

    It never counts one that is not safe yet. So if a thread has captured something, no other thread
    captures meanwhile, and this equals `pending`, then all that it captured is safe.
    """
    returned: int = 0
    """In a worker of a fleet: rows that it gave back to the broker, for any worker to deliver."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by name, as any JSON library writes them."""
        return _as_dict(self)


class FlushResult(NamedTuple):
    """What `flush()` and `close()` found: totals since the relay was made.

    The invariant of `Stats` holds for these numbers too.
    """

    delivered: int
    """Inferences that Arthur acknowledged."""
    rejected: int
    """Inferences that Arthur refused for good."""
    dropped: Mapping[str, int]
    """Inferences given up, by `DropReason`."""
    pending: int
    """Inferences that still wait: after a flush in time, those captured since it began.

    With a spool, also what earlier processes have left. After a close, what stays on disk.
    """
    timed_out: bool
    """True when the deadline passed before everything captured earlier was settled."""

    def as_dict(self) -> dict[str, Any]:
        """Return the counts by name, as any JSON library writes them."""
        return _as_dict(self)


class HealthStatus(StrEnum):
    """How delivery goes, in one word."""

    OK = "ok"
    """Rows are delivered, or there was nothing to deliver yet."""
    DEGRADED = "degraded"
    """Rows arrive, but Arthur refused something lately, events could not be read, or dead letters
    had to give way to newer ones."""
    FAILING = "failing"
    """Nothing can be delivered now; rows wait."""
    CLOSED = "closed"
    """The relay was closed."""
    DISABLED = "disabled"
    """`ARTHUR_RELAY_DISABLED` is set."""


class Health(NamedTuple):
    """How delivery goes, in one word and one sentence."""

    status: HealthStatus
    """The word."""
    detail: str
    """The sentence."""

    def as_dict(self) -> dict[str, str]:
        """Return the word and the sentence by name, as any JSON library writes them."""
        return {"status": self.status.value, "detail": self.detail}


def _as_dict(counts: Stats | FlushResult) -> dict[str, Any]:
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name, value in counts._asdict().items()
    }
