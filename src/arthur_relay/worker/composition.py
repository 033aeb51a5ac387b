"""The composition of a worker: the one place where its parts meet."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from arthur_relay.accounting import Ledger
from arthur_relay.buffers import Buffer
from arthur_relay.buffers.memory import MemoryBuffer
from arthur_relay.capture.queue import CaptureQueue, CaptureQueueLimits, WorkerThread
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.dead_letters.stores import open_dead_letters
from arthur_relay.delivery.batching import BatchingStage
from arthur_relay.delivery.flow_control import FlowControl
from arthur_relay.delivery.ground_truth import GroundTruthOrder
from arthur_relay.delivery.in_flight import InFlight
from arthur_relay.delivery.row_outcomes import RowOutcomes
from arthur_relay.delivery.sender import Sender
from arthur_relay.destinations import Destination, HasOwner, product_of
from arthur_relay.encoding.privacy import Privacy
from arthur_relay.memory_budget import MemoryBudget
from arthur_relay.row import RowOwner
from arthur_relay.settings import Overflow, RelaySettings
from arthur_relay.system.clocks import SYSTEM_CLOCK, Clock
from arthur_relay.system.randomness import Randomness
from arthur_relay.worker.admission import Admission
from arthur_relay.worker.awaiting_schema import AwaitingSchema
from arthur_relay.worker.compactor import Compactor
from arthur_relay.worker.encode_stage import EncodeStage
from arthur_relay.worker.flush import FlushTracker
from arthur_relay.worker.gil import GilYielder
from arthur_relay.worker.host import PipelineHost
from arthur_relay.worker.ingest import IngestQueue
from arthur_relay.worker.schema_registry import SchemaRegistry
from arthur_relay.worker.settlement import Settlement
from arthur_relay.worker.wake_up import WakeUp
from arthur_relay.worker.worker import NoUpkeep, Upkeep, Worker


class WorkerThreads(WorkerThread, Protocol):
    """The threads that a worker needs; see `Runtime`."""

    async def offload(self, function: Callable[[], None]) -> None:
        """Call a function in a second thread, and return when it is done."""
        ...


@dataclass(frozen=True, slots=True)
class Storage:
    """Where a pipeline's rows are, apart from memory on the way.

    Attributes:
        buffer: Where they wait; it has not been opened.
        dead_letters: Where they go that are rejected.
        upkeep: Moves them between the buffer and wherever else they are.
    """

    buffer: Buffer
    dead_letters: DeadLetters
    upkeep: Upkeep = field(default_factory=NoUpkeep)

    @classmethod
    def of(cls, settings: RelaySettings, destination: Destination) -> "Storage":
        """Return what the settings ask for: a spool, memory, or both."""
        return cls(chosen_buffer(settings, destination), open_dead_letters(settings))


def build_worker(  # noqa: PLR0913 - keyword-only; this is where everything meets
    *,
    settings: RelaySettings,
    destination: Destination,
    host: PipelineHost,
    thread: WorkerThreads,
    ledger: Ledger,
    storage: "Storage",
    budget: MemoryBudget,
    random: Randomness = random,
    gil: GilYielder | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> Worker:
    """Compose a worker: the one place where its parts meet, in the order in which a row meets them.

    Args:
        settings: Sizes and times.
        destination: Where rows go.
        host: Whom it works for.
        thread: Runs it, wakes it from other threads, and has a second thread.
        ledger: Where everything is counted.
        storage: Where rows wait, and where they go that are rejected.
        budget: The bytes of all that waits.
        random: The randomness of jitter.
        gil: Lets the application's threads go on.
        clock: The time that dead letters and rows carry.
    """
    buffer, dead_letters = storage.buffer, storage.dead_letters
    words = product_of(destination).words
    queue = CaptureQueue(CaptureQueueLimits.of(settings), ledger, thread, budget)
    wake_up, flushes, awaiting = WakeUp(), FlushTracker(), AwaitingSchema()
    budget.awaiting, budget.rows = awaiting, buffer.intake
    ground_truth = GroundTruthOrder(random)
    settlement = Settlement(
        buffer=buffer,
        ledger=ledger,
        dead_letters=dead_letters,
        flushes=flushes,
        ground_truth=ground_truth,
        destination=destination.name,
        clock=clock,
        words=words,
    )
    flow = FlowControl(settings=settings, random=random, in_flight=InFlight(), words=words)
    schemas = SchemaRegistry(
        destination=destination,
        cache=buffer.schemas,
        awaiting=awaiting,
        settings=settings,
        random=random,
        ledger=ledger,
        privacy=Privacy.of(settings, failed=ledger.redaction_failed),
        host=host,
        wake_up=wake_up,
        flow=flow,
        clock=clock,
        words=words,
    )
    outcomes = RowOutcomes(
        buffer=buffer.leases,
        journal=buffer.journal,
        deferred=buffer.deferred,
        outlives_us=buffer.intake.is_durable or settings.spool_dir is not None,
        settlement=settlement,
        ground_truth=ground_truth,
        settings=settings,
        shrinker=schemas,
        reducer=schemas,
        clock=clock,
    )
    sender = Sender(
        destination=destination,
        buffer=buffer.leases,
        outcomes=outcomes,
        ledger=ledger,
        settings=settings,
        random=random,
        wake_up=wake_up,
        flow=flow,
    )
    compactor = Compactor(buffer.compaction, sender, thread)
    admission = Admission(
        buffer=buffer.intake,
        compaction=buffer.compaction,
        awaiting=awaiting,
        ledger=ledger,
        settlement=settlement,
        settings=settings,
        budget=budget,
        queue=queue,
        sender=sender,
        compactor=compactor,
        words=words,
    )
    gil = gil if gil is not None else GilYielder()
    return Worker(
        queue=queue,
        buffer=buffer,
        destination=destination,
        ledger=ledger,
        dead_letters=dead_letters,
        settings=settings,
        host=host,
        budget=budget,
        gil=gil,
        wake_up=wake_up,
        flushes=flushes,
        settlement=settlement,
        sender=sender,
        schemas=schemas,
        compactor=compactor,
        admission=admission,
        ingest=IngestQueue(
            buffer=buffer.intake,
            ledger=ledger,
            flushes=flushes,
            worker=thread,
            max_bytes=settings.buffer_bytes,
            sender=sender,
            clock=clock,
        ),
        encode_stage=EncodeStage(
            queue=queue,
            awaiting=awaiting,
            admission=admission,
            schemas=schemas,
            ledger=ledger,
            flushes=flushes,
            settlement=settlement,
            settings=settings,
            gil=gil,
            words=words,
        ),
        batching=BatchingStage(
            leases=buffer.leases,
            deferred=buffer.deferred,
            journal=buffer.journal,
            ground_truth=ground_truth,
            settlement=settlement,
            sender=sender,
            settings=settings,
        ),
        upkeep=storage.upkeep,
    )


def chosen_buffer(settings: RelaySettings, destination: Destination) -> Buffer:
    """Return the buffer that the settings ask for, which has not been opened."""
    if settings.spool_dir is None:
        return MemoryBuffer.of(settings).as_buffer()
    # Imported here, because SQLite takes longer to import than the rest of this package.
    from arthur_relay.buffers.overflow import OverflowBuffer  # noqa: PLC0415 - see above
    from arthur_relay.buffers.spool.buffer import Spool  # noqa: PLC0415 - see above

    words = product_of(destination).words
    spool = Spool.of(settings.spool_dir, settings, partial(_owner, destination), words)
    if settings.overflow is Overflow.SPILL:
        return OverflowBuffer(MemoryBuffer.of(settings), spool).as_buffer()
    return spool.as_buffer()


def _owner(destination: Destination) -> RowOwner:
    if isinstance(destination, HasOwner):
        return destination.owner
    return RowOwner(destination.name)
