"""Makes `Stats` and `Health` of the pipeline's state; changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from arthur_relay.accounting import AtomicCounter, Ledger
from arthur_relay.delivery.circuit_breaker import BreakerState
from arthur_relay.delivery.sender import Sender
from arthur_relay.encoding.product import RowWords
from arthur_relay.sentences import named
from arthur_relay.stats import DropReason, FlushResult, Health, HealthStatus, Stats
from arthur_relay.worker.encode_stage import NO_MODEL
from arthur_relay.worker.schema_registry import SchemaRegistry

REMEDIES: Final = {
    DropReason.OVERFLOW: f"the queue was full: raise {named('queue_bytes')} and"
    f" {named('queue_size')}, or set {named('spool_dir')}",
    DropReason.RETRY_TIME_EXCEEDED: "some failed for longer than"
    f" {named('retry_max_elapsed_seconds')} allows",
    DropReason.SHUTDOWN: f"the exit came too early for some: raise"
    f" {named('shutdown_timeout_seconds')}, or set {named('spool_dir')}",
    DropReason.SKIPPED: "failed runs are sent where the model has the attribute outcome or error",
}
"""What `health()` says of what was dropped, where a person can do something about it."""


class EventCounts:
    """The counts of the callback. Any thread may add to each of them, without a lock."""

    __slots__ = ("abandoned", "unmatched", "unreadable")

    def __init__(self) -> None:
        self.abandoned = AtomicCounter()
        self.unmatched = AtomicCounter()
        self.unreadable = AtomicCounter()


def report_flush(ledger: Ledger, *, timed_out: bool) -> FlushResult:
    """Return what became of all inferences so far."""
    totals = ledger.totals()
    return FlushResult(
        delivered=totals.delivered,
        rejected=totals.rejected,
        dropped=totals.dropped,
        pending=totals.pending,
        timed_out=timed_out,
    )


def report_stats(
    ledger: Ledger,
    *,
    events: EventCounts,
    open_runs: int,
    worker_restarts: int,
    pending_bytes: int,
    spooled: Callable[[], int],
) -> Stats:
    """Return a snapshot of all counts.

    `spooled` is called last, so that it never returns more rows than are pending.
    """
    totals = ledger.totals()
    on_disk = spooled()
    while totals.recovered != ledger.recovered:  # rows were found, on disk, meanwhile
        totals = ledger.totals()
        on_disk = spooled()
    return Stats(
        captured=totals.captured,
        delivered=totals.delivered,
        rejected=totals.rejected,
        dropped=totals.dropped,
        pending=totals.pending,
        rejected_reasons=totals.rejected_reasons,
        open_runs=open_runs,
        abandoned=events.abandoned.value(),
        unmatched_events=events.unmatched.value(),
        capture_errors=events.unreadable.value(),
        attributes_omitted=ledger.attributes_omitted,
        redaction_failures=ledger.redaction_failures,
        requests=ledger.requests,
        retries=ledger.retries,
        malformed_answers=ledger.malformed_answers,
        worker_restarts=worker_restarts,
        pending_bytes=pending_bytes,
        spooled=on_disk,
        returned=totals.returned,
    )


def report_health(  # noqa: PLR0911, PLR0912, PLR0913 - one sentence for each state; keyword-only
    ledger: Ledger,
    sender: Sender,
    *,
    schemas: SchemaRegistry,
    words: RowWords,
    unreadable: int,
    disabled: bool,
    closed: bool,
    running: bool,
    trouble: str | None = None,
    unanswered: str = "",
    lacks_model: bool = False,
    left_alone: int = 0,
    lost_letters: int = 0,
) -> Health:
    """Return how delivery goes, in one word and one sentence.

    `words` are what rows and models are called.
    `unanswered` is why Arthur did not answer a question asked elsewhere, or "".
    `lacks_model` is whether inferences have to name their model because nobody has set one.
    `left_alone` is the number of rows in the spool's directory that are for somebody else.
    `lost_letters` is the number of dead letters that gave way to newer ones.
    """
    if disabled:
        return Health(HealthStatus.DISABLED, "ARTHUR_RELAY_DISABLED is set; nothing is captured.")
    totals = ledger.totals()
    unsampled = totals.dropped.get(DropReason.SAMPLED, 0)
    lost = sum(totals.dropped.values()) - unsampled
    counts = (
        f"{totals.delivered} {words.many} are delivered, {totals.pending} wait,"
        f" {totals.rejected} were rejected and {lost} dropped"
    )
    if unsampled:
        counts += f", {unsampled} are not in the sample of {named('sample_rate')}"
    counts += "".join(f"; {text}" for text in _remedies(totals.dropped))
    if left_alone:
        counts += (
            f"; {left_alone} in the spool's directory are for another Arthur or organisation, as"
            " far as is known, and left alone: see arthur-relay spool list"
        )
    if lost_letters:
        counts += f"; {lost_letters} dead letters gave way to newer ones and are gone"
    if trouble and not closed:
        return Health(HealthStatus.FAILING, f"The spool can't keep rows: {trouble}: {counts}.")
    if lacks_model:
        counts += "; ARTHUR_MODEL_ID is not set, so that inferences have to name their model"
    failure = schemas.unreachable if running else "the worker died and is being started again"
    if sender.breaker.state is not BreakerState.CLOSED:
        failure = failure or sender.last_failure
    failure = failure or sender.authorization.refusal or unanswered
    if closed:
        return Health(HealthStatus.CLOSED, f"The relay is closed: {counts}.")
    if failure:
        sentence = f"{failure[0].upper()}{failure[1:].rstrip('.')}"
        return Health(HealthStatus.FAILING, f"{sentence}; the relay goes on trying: {counts}.")
    objection = ""
    if problem := sender.last_failure or schemas.refused:
        objection = f"Delivery has trouble ({problem.rstrip('.')})"
    elif held := sender.held_models:
        objection = held[0].upper() + held[1:]
    elif nameless := totals.rejected_reasons.get(NO_MODEL, 0):
        objection = (
            f"{nameless} {words.many} were rejected because they name no {words.model}:"
            f" {words.name_one}"
        )
    elif unreadable:
        objection = f"{unreadable} LangChain events could not be read"
    elif withheld := ledger.redaction_failures:
        objection = f"{withheld} texts were withheld because a redactor of {named('redact')} failed"
    elif lost_letters:
        objection = (
            "There is no room for more dead letters (raise ARTHUR_RELAY_DEAD_LETTER_BYTES, or in"
            " memory ARTHUR_RELAY_DEAD_LETTER_RING_BYTES)"
        )
    if objection:
        return Health(HealthStatus.DEGRADED, f"{objection}: {counts}.")
    if sender.has_answered or totals.delivered:
        return Health(HealthStatus.OK, f"Delivery goes well: {counts}.")
    return Health(HealthStatus.OK, f"Arthur has not been asked for anything so far: {counts}.")


def _remedies(dropped: Mapping[str, int]) -> Iterator[str]:
    return (text for reason, text in REMEDIES.items() if dropped.get(reason))
