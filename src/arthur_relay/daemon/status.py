"""What the page and `arthur-relay top` show: the daemon's state as JSON, without texts of rows."""

from __future__ import annotations

import os
import platform
import time
from datetime import UTC, datetime
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from arthur_relay.daemon.measurements import POINT_SECONDS, QuestionOutcome
from arthur_relay.daemon.role_words import ROLE_WORDS
from arthur_relay.daemon.state import Phase
from arthur_relay.stats import HealthStatus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from arthur_relay.accounting import Accounts
    from arthur_relay.broker.fleet import FleetState
    from arthur_relay.daemon.measurements import Distribution, Point
    from arthur_relay.daemon.state import DaemonState, Queue

BEHIND_SECONDS = 600.0
"""Delivery is behind when a row has waited for this long, as in the alert of that name."""

BEHIND = (
    f"A row has waited for more than {BEHIND_SECONDS / 60:.0f} minutes:"
    " Arthur takes fewer than come in."
)
FULL = "Rows are put off until workers have delivered some; their clients are asked to try again."

FULLNESS = 0.98
"""How full the broker is when it refuses requests of some size."""

RATE_SECONDS = 10.0
"""The seconds over which rates are averaged."""


def status(states: Sequence[DaemonState], version: str) -> dict[str, Any]:
    """Return the document. It reads files, so it is not for an event loop's thread.

    Ratios are in 0..1, durations in seconds, times in ISO 8601; unknown values are null. Where the
    daemon delivers to both products, the document is the first one's, and `products` has both.
    """
    documents = [_of_product(state, version) for state in states]
    if len(documents) == 1:
        return documents[0]
    return {**documents[0], "products": documents}


def _of_product(state: DaemonState, version: str) -> dict[str, Any]:
    live, ready, health = state.liveness(), state.readiness(), state.health()
    accounts, queue, points = state.accounts(), state.queue(), state.seen.history.points()
    letters, settings = state.dead_letters() or {}, state.current.settings
    return {
        "state": _summary(state, accounts, queue),
        "version": version,
        "python": platform.python_version(),
        "pid": os.getpid(),
        "now": _moment(time.time()),
        "uptime_seconds": time.monotonic() - state.started_at,
        "product": state.product.value,
        "destination": state.destination,
        "listens": {
            "socket": None if settings.socket is None else str(settings.socket),
            "tcp": settings.listen,
        },
        "role": settings.role.value,
        "phase": state.phase.value,
        "live": {"ok": live[0], "detail": live[1]},
        "ready": {"ok": ready[0], "detail": ready[1]},
        "health": {"status": health.status.value, "detail": health.detail},
        "rows": _rows(accounts),
        "rates": _rates(points),
        "history": _history(points),
        "queue": {
            "rows": sum(accounts.pending.values()),
            "bytes": queue.pending_bytes,
            "oldest_age_seconds": queue.oldest_age_seconds,
            **({} if state.station.fleet is not None else _spool(queue)),
        },
        "broker": None if state.station.fleet is None else _broker(state.station.fleet.state),
        "delivery": _delivery(state),
        "intake": _intake(state),
        "dead_letters": {
            "kept": sum(letters.values()),
            "by_reason": dict(letters),
            "evicted": state.pipeline.dead_letters.evicted,
        },
        "models": _models(accounts),
        "errors": [
            {"text": text, "times": times, "at": _moment(at)}
            for text, times, at in state.seen.recent_errors.latest()
        ],
        "worker_restarts": state.pipeline.restarts,
        "loop_lag_seconds": state.loop_lag_seconds(),
    }


def _is_full(fleet: FleetState) -> bool:
    return (fleet.backlog.bytes or 0) >= FULLNESS * fleet.limit_bytes


def _spool(queue: Queue) -> dict[str, Any]:
    return {
        "spool_rows": queue.spool_rows,
        "spool_bytes": queue.spool_bytes,
        "spool_limit_bytes": queue.spool_limit_bytes,
        "fullness": queue.spool_bytes / queue.spool_limit_bytes,
    }


def _broker(fleet: FleetState) -> dict[str, Any]:
    """Return what waits in the broker, and who is there."""
    backlog = fleet.backlog
    size = backlog.bytes
    return {
        "connected": fleet.connected,
        "server": fleet.server or None,
        "reconnects": fleet.reconnects,
        "waiting_packets": backlog.waiting_packets,
        "in_flight_packets": backlog.in_flight_packets,
        "unclaimed_packets": backlog.unclaimed_packets,
        "bytes": size,
        "limit_bytes": fleet.limit_bytes,
        "fullness": None if size is None else size / fleet.limit_bytes,
        "oldest_age_seconds": backlog.oldest_age_seconds,
        "gateways": fleet.gateways,
        "workers": fleet.workers,
    }


def _summary(state: DaemonState, accounts: Accounts, queue: Queue) -> dict[str, str]:
    """Return a summary: a kind (good, warn or bad), a few words, and a sentence."""
    health, sender = state.health(), state.pipeline.sender
    words = ROLE_WORDS[state.current.settings.role]
    fleet = state.station.fleet
    oldest = queue.oldest_age_seconds
    if fleet is not None:
        oldest = fleet.state.backlog.oldest_age_seconds or 0.0
    lives, liveness = state.liveness()
    ready, readiness = state.readiness()
    if state.phase is Phase.DRAINING:
        found = "warn", "The daemon is stopping", words.stopping
    elif not lives:
        found = "bad", "The daemon hangs", liveness
    elif not ready:
        found = "bad", words.unready, readiness
    elif health.status is HealthStatus.FAILING and state.seen.questions.are_refused:
        found = "warn", "Arthur refuses the credentials", words.refused
    elif health.status is HealthStatus.FAILING:
        failure = sender.last_failure or state.seen.questions.failure
        title = failure.partition(";")[0].rstrip(".") or "Arthur does not answer"
        found = "warn", title, words.away
    elif health.status is not HealthStatus.OK:
        found = "warn", "Delivery has trouble", health.detail
    elif fleet is not None and _is_full(fleet.state):
        found = "warn", "The broker is full", FULL
    elif not (accounts.captured or state.counts.rows["accepted"]):
        found = "good", "Ready", words.none
    elif oldest > BEHIND_SECONDS:
        found = "warn", "Delivery is behind", BEHIND
    else:
        found = "good", "All is well", words.well
    return dict(zip(("kind", "title", "detail"), found, strict=True))


def _rows(accounts: Accounts) -> dict[str, Any]:
    return {
        "captured": sum(accounts.captured.values()),
        "delivered": sum(accounts.delivered.values()),
        "rejected": sum(accounts.rejected.values()),
        "dropped": sum(accounts.dropped.values()),
        "returned": sum(accounts.returned.values()),
        "pending": sum(accounts.pending.values()),
        "rejected_by_reason": _by_reason(accounts.rejected),
        "dropped_by_reason": _by_reason(accounts.dropped),
    }


def _models(accounts: Accounts) -> list[dict[str, Any]]:
    """Return the counts of each model's rows, the models with the most rows first."""
    pending = accounts.pending
    return [
        {
            "id": model,
            "captured": captured,
            "delivered": accounts.delivered.get(model, 0),
            "rejected": _of_model(accounts.rejected, model),
            "dropped": _of_model(accounts.dropped, model),
            "returned": accounts.returned.get(model, 0),
            "pending": pending[model],
        }
        for model, captured in sorted(accounts.captured.items(), key=itemgetter(1), reverse=True)
    ]


def _delivery(state: DaemonState) -> dict[str, Any]:
    sender, ledger, seen = state.pipeline.sender, state.pipeline.ledger, state.seen
    return {
        "breaker": sender.breaker.state.value,
        "breaker_opened": sender.breaker.opened,
        "in_flight": sender.sending,
        "in_flight_limit": sender.limit.requests,
        "requests": ledger.requests,
        "retries": ledger.retries,
        "last_failure": sender.last_failure,
        "questions": {each.value: seen.questions.outcomes[each] for each in QuestionOutcome},
        "seconds": _quantiles(seen.delivery_seconds.read()),
    }


def _intake(state: DaemonState) -> dict[str, Any]:
    counts = state.counts
    return {
        "connections": dict(counts.connections),
        "rows": dict(counts.rows),
        "requests": [
            {"method": method, "status": status, "count": count}
            for (method, status), count in sorted(dict(counts.requests).items())
        ],
        "seconds": _quantiles(state.seen.intake_seconds.read()),
    }


def _quantiles(found: Distribution) -> dict[str, float | None]:
    """Return quantiles as the upper bounds of their buckets; null above the last bound."""
    quantiles = {"p50": found.quantile(0.5), "p95": found.quantile(0.95)}
    return {name: None if value == float("inf") else value for name, value in quantiles.items()}


def _rates(points: list[Point]) -> dict[str, float | None]:
    if len(points) < 2:
        return {"accepted_per_second": None, "delivered_per_second": None}
    last = points[-1]
    first = next(
        point for point in points if point.at >= last.at - RATE_SECONDS - POINT_SECONDS / 2
    )
    first = points[-2] if first is last else first
    seconds = last.at - first.at
    return {
        "accepted_per_second": (last.accepted - first.accepted) / seconds,
        "delivered_per_second": (last.delivered - first.delivered) / seconds,
    }


def _history(points: list[Point]) -> list[dict[str, float]]:
    """Return the rates and waiting rows of the last minutes, oldest first."""
    return [
        {
            "seconds_ago": round(points[-1].at - now.at, 1),
            "accepted_per_second": (now.accepted - before.accepted) / (now.at - before.at),
            "delivered_per_second": (now.delivered - before.delivered) / (now.at - before.at),
            "pending": now.pending,
        }
        for before, now in pairwise(points)
    ]


def _by_reason(counts: Mapping[tuple[str, str], int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, reason), count in counts.items():
        found[reason] = found.get(reason, 0) + count
    return found


def _of_model(counts: Mapping[tuple[str, str], int], model: str) -> int:
    return sum([count for (each, _), count in counts.items() if each == model])


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
