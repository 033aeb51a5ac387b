"""From the capture queue into the buffer: samples captures, encodes them, or has them wait."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import anyio.lowlevel
from anyio.abc import TaskGroup

from arthur_relay.accounting import Ledger
from arthur_relay.capture.queue import CaptureQueue
from arthur_relay.destinations import RowEncoder
from arthur_relay.encoding.plain_values import clean_text
from arthur_relay.encoding.product import RowWords
from arthur_relay.encoding.sampling import split_sample
from arthur_relay.inference import (
    Capture,
    CapturedGroundTruth,
    CapturedRow,
    Encodable,
    inference_id_of,
)
from arthur_relay.row import Row, RowKind
from arthur_relay.settings import RelaySettings
from arthur_relay.stats import DropReason
from arthur_relay.system.log_once import LogOnce
from arthur_relay.system.worker_logs import WorkerLogger
from arthur_relay.worker.admission import Admission
from arthur_relay.worker.awaiting_schema import AwaitingSchema
from arthur_relay.worker.flush import FlushTracker
from arthur_relay.worker.gil import GilYielder
from arthur_relay.worker.schema_registry import SchemaRegistry
from arthur_relay.worker.settlement import Settlement

logger = WorkerLogger("arthur_relay.worker")

SLICE_CAPTURES = 16
SLICE_BYTES = 64 * 1024
"""The captures, and bytes, that are encoded before other threads may go on: 0.1 to 0.2 ms.

Each such look, and each group of rows that is put into the buffer, costs as much as half a row.
"""

SLICES_A_TURN = 16
"""The slices after which the loop turns, so that answers are read and deliveries go on."""

LARGE_SLICE = 8
"""For how many a slice counts that was full by its bytes: it takes ten times as long."""

RUSH_FULLNESS = 0.4
"""How full the capture queue may be before the worker pauses less often."""

NO_MODEL = "no model id"
NO_GROUND_TRUTH = "no ground truth"
"""The reason when the model has registered none of the attributes that were given."""


@dataclass(slots=True, eq=False, kw_only=True)
class EncodeStage:
    """Makes rows of captures, and puts them into the buffer. Worker's loop only.

    Attributes:
        queue: Where captures come from.
        awaiting: Where they wait while their model's schema is not known.
        admission: Puts their rows into the buffer.
        schemas: Knows the models.
        ledger: Counts captures that are not in the sample.
        flushes: Counts captures that were taken.
        settlement: Settles captures that make no row, or are refused.
        settings: The sample rate, and the overflow policy.
        gil: Lets the application's threads go on.
        words: What the log calls a row.
    """

    queue: CaptureQueue
    awaiting: AwaitingSchema
    admission: Admission
    schemas: SchemaRegistry
    ledger: Ledger
    flushes: FlushTracker
    settlement: Settlement
    settings: RelaySettings
    gil: GilYielder
    words: RowWords
    _once: LogOnce = field(default_factory=LogOnce)
    _slices: int = 0

    def resume(self, group: TaskGroup) -> None:
        """Ask for the models that an earlier run died asking for."""
        for model_id in self.awaiting.models():
            self.schemas.load(group, model_id)

    async def take_in(self, group: TaskGroup, *, at_most: int) -> None:
        """Take up to `at_most` captures, as far as they fit."""
        taken = 0
        left = at_most
        while left > 0 and not self.admission.is_stalled():
            limit = min(left, self._slice())
            captures = self.queue.take(limit, enough_bytes=SLICE_BYTES)
            if not captures:
                break
            left -= len(captures)
            taken += len(captures)
            self._accept(captures, group)
            await self._yield_to_others(1 if len(captures) == limit else LARGE_SLICE)
        if taken:
            self.queue.made_room()
        self.flushes.close_epoch(taken, queue_is_empty=len(self.queue) == 0)

    def is_in_a_rush(self) -> bool:
        """Return whether captures come in faster than they are encoded."""
        return self.queue.fullness >= RUSH_FULLNESS

    async def encode_awaiting(self) -> None:
        """Encode, or reject, captures that waited for models which are known, or refused, now."""
        while self.schemas.answered:
            model_id = self.schemas.answered.popleft()
            encoder = self.schemas.encoder(model_id)
            reason = self.schemas.refusal(model_id)
            if encoder is None and reason is None:
                continue
            while waiting := self.awaiting.take(model_id, SLICE_CAPTURES):
                for capture, epoch in waiting:
                    if encoder is not None:
                        self.admission.hold(self._encode(encoder, capture, epoch))
                    elif reason is not None:
                        self._refuse(reason, capture, epoch)
                await self._yield_to_others()

    async def _yield_to_others(self, slices: int = 1) -> None:
        """Let the application's threads go on after a slice, and now and then the loop's tasks.

        Args:
            slices: For how many slices this one counts.
        """
        self.gil.maybe_yield(self.is_in_a_rush)
        self._slices += slices
        if self._slices >= SLICES_A_TURN:
            self._slices = 0
            await anyio.lowlevel.checkpoint()

    def _slice(self) -> int:
        """Return how many captures to take at once; one by one where the buffer may refuse them."""
        if self.admission.gives_up_oldest or self.admission.has(0, rows=SLICE_CAPTURES):
            return SLICE_CAPTURES
        return 1

    def _accept(self, captures: Sequence[Capture], group: TaskGroup) -> None:
        """Encode captures, or have them wait until their model is known."""
        if self.settings.sample_rate < 1.0:
            captures, others = split_sample(captures, self.settings.sample_rate)
            self.ledger.drop(DropReason.SAMPLED, others)
        self.flushes.take(sum([capture.rows for capture in captures]))
        epoch = self.flushes.epoch
        rows: list[Row] = []
        model_id, encoder = "", None  # those of the capture before: nearly always the same
        for capture in captures:
            try:
                if capture.model_id is not model_id:
                    encoder = self._encoder(capture.model_id)
                    model_id = capture.model_id
                if isinstance(capture, CapturedRow):  # it was encoded before
                    rows.append(replace(capture.row, epoch=epoch))
                    continue
                encoder = encoder or self._presumed_encoder(model_id, group)
                if encoder is not None:
                    rows += self._encode(encoder, capture, epoch)
                else:
                    self._await_schema(capture, epoch, group)
            except Exception:  # noqa: BLE001 - one bad capture must not cost the others
                self._drop_unencodable(capture, epoch)
        self.admission.hold(rows)

    def _encoder(self, model_id: str) -> RowEncoder | None:
        """Return a model's encoder, or None while it is not known or older captures wait for it."""
        return None if self.awaiting.holds(model_id) else self.schemas.encoder(model_id)

    def _presumed_encoder(self, model_id: str, group: TaskGroup) -> RowEncoder | None:
        """Return an encoder for a model that was not asked for yet, where there can be one."""
        if model_id and self.schemas.refusal(model_id) is None:
            self.schemas.presume(group, model_id)
        return self._encoder(model_id)

    def _await_schema(self, capture: Encodable, epoch: int, group: TaskGroup) -> None:
        """Keep a capture until its model is known, or refuse it when the model can't be."""
        model_id = capture.model_id
        if self.schemas.encoder(model_id) is not None:  # just now; older captures go first
            self.awaiting.put(capture, epoch)
        elif not model_id:
            if self._once.is_first("no model"):
                logger.warning(
                    "arthur-relay: %s names no %s and is rejected: %s",
                    self.words.one,
                    self.words.model,
                    self.words.name_one,
                )
            self._refuse(NO_MODEL, capture, epoch)
        elif (reason := self.schemas.refusal(model_id)) is not None:
            self._refuse(reason, capture, epoch)
        else:
            self.admission.make_for(self.awaiting.cost(capture))
            self.awaiting.put(capture, epoch)
            self.schemas.load(group, model_id)

    def _encode(self, encoder: RowEncoder, capture: Encodable, epoch: int) -> list[Row]:
        try:
            rows = encoder.encode(capture, epoch)
        except Exception:  # noqa: BLE001 - as in `_accept`
            self._drop_unencodable(capture, epoch)
            return []
        if len(rows) < capture.rows:
            if isinstance(capture, CapturedGroundTruth):
                self._refuse(NO_GROUND_TRUTH, capture, epoch)
                return []
            missing = capture.rows - len(rows)
            self.settlement.dropped(DropReason.SKIPPED, missing, epoch)
        return rows

    def _refuse(self, reason: str, capture: Encodable, epoch: int) -> None:
        """Reject a capture that Arthur would not take, with dead letters as good as can be made."""
        try:
            rows = self.schemas.presumed_encoder(capture.model_id).encode(capture, epoch)
        except Exception:  # noqa: BLE001 - it is rejected and counted all the same
            rows = []
        self.settlement.refused(capture, reason, epoch, rows or [_without_body(capture)])

    def _drop_unencodable(self, capture: Capture, epoch: int) -> None:
        if self._once.is_first("unencodable"):
            # Without the exception, whose text might quote the inference.
            logger.warning("arthur-relay: %s could not be encoded and is dropped", self.words.one)
        self.settlement.dropped(DropReason.UNENCODABLE, capture.rows, epoch)


def _without_body(capture: Encodable) -> Row:
    """Return a row without a body, for a capture that makes none; it has the inference's id."""
    is_truth = isinstance(capture, CapturedGroundTruth)
    kind = RowKind.GROUND_TRUTH if is_truth else RowKind.INFERENCE
    row_id, model_id = clean_text(inference_id_of(capture)), clean_text(capture.model_id)
    return Row(row_id, model_id, b"", kind=kind)
