"""Offers the rows of packets to the worker's pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from arthur_relay.broker.inbox import Fate
from arthur_relay.worker.ingest import IngestBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.broker.in_hand import InHand
    from arthur_relay.broker.inbox import HeldPacket
    from arthur_relay.worker.ingest import IngestAnswer
    from arthur_relay.worker.worker import Worker


@dataclass(frozen=True, slots=True)
class Offers:
    """Gives rows to the pipeline, and packets whose rows it does not take back to the broker.

    Attributes:
        hand: The packets in hand.
        worker: Has the pipeline.
    """

    hand: InHand
    worker: Worker

    def offer(self, held: HeldPacket) -> None:
        """Have a packet's rows delivered."""
        held.is_offered = True
        self.worker.ingest.offer(IngestBatch.of(tuple(held.rows), self))
        self.worker.ingest.take_in()  # at once, so that its rows are in the buffer or refused
        self.worker.wake()

    def answered(self, answers: Sequence[IngestAnswer]) -> None:
        """Give back packets that the pipeline does not take any more."""
        for rows in [batch.rows for batch, refusal in answers if refusal is not None]:
            held = next((each for each in self.hand if rows[0] in each.rows), None)
            if held is not None:
                held.is_offered = False
                self.hand.end(held, Fate.RETURNED)
