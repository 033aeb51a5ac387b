"""Probes: rows of models that are held, sent now and then to see whether they pass again."""

from collections.abc import Iterator
from dataclasses import dataclass

from arthur_relay.buffers import LeaseBuffer
from arthur_relay.delivery.batch_sizes import BatchSizes
from arthur_relay.delivery.flow_control import FlowControl
from arthur_relay.delivery.in_flight import Delivery, Lane
from arthur_relay.delivery.possibly_delivered import PossiblyDelivered
from arthur_relay.row import Row
from arthur_relay.settings import RelaySettings

MODELS_PER_PROBE = 10
MOST_PROBES = 20
"""While Arthur is down, one held model in ten is probed at a time, and 20 at most."""


@dataclass(slots=True, eq=False, kw_only=True)
class Probes:
    """Makes the probes that are due. Belongs to the worker's loop.

    Attributes:
        flow: Says which models are due.
        buffer: Holds their rows.
        batch_sizes: The most rows of a request, by model.
        settings: The most bytes of a request.
    """

    flow: FlowControl
    buffer: LeaseBuffer
    batch_sizes: BatchSizes
    settings: RelaySettings

    def take(self, now: float) -> Iterator[Delivery]:
        """Lease rows of each held model that may be probed now, and yield them as deliveries.

        Each has to be started before the next one is asked for.
        """
        flow = self.flow
        if flow.is_paused:
            return
        most, begun = self._most_while_down(), 0
        for model_id in flow.due_probes(now):
            rows = self._lease(model_id)
            if not rows:
                flow.put_off_probe(model_id)
                continue
            flow.model_health.begin_probe(model_id, now)
            probe = Delivery(rows, Lane.PROBE, possibly_delivered=PossiblyDelivered.of(rows))
            if not flow.is_down:
                yield probe
                continue
            # The first one has the breaker's leave.
            probe.state.leave_at = now if begun else None
            begun += 1
            yield probe
            if begun >= most:
                return

    def _most_while_down(self) -> int:
        """Return how many models may be probed at a time while Arthur is down.

        Where it refuses our credentials one is enough, whichever model's it is. Where very many
        models are held, most may fail for longer than Arthur does, so that with one probe at a time
        the few others would have to wait for too long.
        """
        if self.flow.authorization.is_unknown:
            return 1
        return max(1, min(MOST_PROBES, self.flow.model_health.count // MODELS_PER_PROBE))

    def _lease(self, model_id: str) -> tuple[Row, ...]:
        """Lease what a model is probed with: one row and a batch in turn.

        One row may pass where every batch has a bad one; where all rows pass again, a batch is
        quicker.
        """
        is_batch = self.flow.model_health.is_batch_next(model_id)
        limit = self.batch_sizes.of(model_id) if is_batch else 1
        rows = self.buffer.lease_of(model_id, limit, most_bytes=self.settings.batch_bytes)
        size, most = 0, 0
        for row in rows:
            size += row.size
            if most and (row.kind is not rows[0].kind or size > self.settings.batch_bytes):
                break
            most += 1
        self.buffer.release(rows[most:])
        return tuple(rows[:most])
