"""A fleet in this process: workers with the pipeline as it is, around a broker that is real."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, time
from typing import TYPE_CHECKING, Any, ClassVar, Self

from arthur_relay.broker.inbox import Inbox
from arthur_relay.broker.kept_letters import BrokerLetters
from arthur_relay.broker.letter_outbox import LetterOutbox
from arthur_relay.broker.link import Link, Links
from arthur_relay.broker.nats.connection import Connection
from arthur_relay.broker.packets import Packet
from arthur_relay.broker.provision import DEAD_LETTER_BYTES, Provision
from arthur_relay.broker.puller import Puller
from arthur_relay.dead_letters import DeadLetters
from arthur_relay.destinations.scope.schema import ModelSchema
from arthur_relay.encoding.product import Product
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Row, RowKind, Verdict
from arthur_relay.settings import RelaySettings
from arthur_relay.testing import LLM_ATTRIBUTES
from arthur_relay.worker.composition import Storage
from arthur_relay.worker.host import StandingHost
from arthur_relay.worker.pipeline import Pipeline
from tests.waiting import Gate, wait_for
from tests.worker.harness import delivered, unavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from types import TracebackType

    from arthur_relay.broker.settings import BrokerSettings

Script = "Callable[[Batch], Attempt | Awaitable[Attempt]]"


taken, away = delivered, unavailable


def unknown(batch: Batch) -> Attempt:
    return Attempt((Outcome(Verdict.NOT_YET, "row 404", 404),) * len(batch.rows))


def refused(batch: Batch) -> Attempt:
    outcomes = (Outcome(Verdict.RETRY, "http 401", 401),) * len(batch.rows)
    return Attempt(outcomes, Failure.UNAUTHORISED, "http 401")


@dataclass
class Arthur:
    """Takes rows from all workers of a test, and counts them. Any thread."""

    script: Callable[[Batch], Attempt | Awaitable[Attempt]] = taken
    asked: list[tuple[float, str, list[str]]] = field(default_factory=list)
    stored: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def deliver(self, batch: Batch, worker: str) -> Attempt:
        with self.lock:
            self.asked.append((monotonic(), worker, [row.id for row in batch.rows]))
        found = self.script(batch)
        attempt = found if isinstance(found, Attempt) else await found
        with self.lock:
            for row, outcome in zip(batch.rows, attempt.outcomes, strict=True):
                if outcome.verdict is Verdict.DELIVERED:
                    self.stored[row.id] += 1
        return attempt

    @property
    def twice(self) -> int:
        """How many rows came again that were there."""
        return self.stored.total() - len(self.stored)


class DyingOnce(Arthur):
    """An Arthur whose first answer is the death of the worker's loop."""

    def __init__(self) -> None:
        super().__init__(self._kill_once)
        self.has_killed = False

    def _kill_once(self, batch: Batch) -> Attempt:
        if not self.has_killed:
            self.has_killed = True
            raise SystemExit
        return taken(batch)


@dataclass
class Door:
    """The same as a destination of one worker."""

    name: ClassVar[str] = "scripted"
    arthur: Arthur
    worker: str

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        return ModelSchema(model_id, LLM_ATTRIBUTES)

    async def deliver(self, batch: Batch) -> Attempt:
        return await self.arthur.deliver(batch, self.worker)


class FleetWorker:
    """A worker, until the end of the `with` block; then it has given back all that is left."""

    def __init__(
        self,
        broker: BrokerSettings,
        arthur: Arthur,
        name: str = "one",
        letter_bytes: int = DEAD_LETTER_BYTES,
        **settings: Any,
    ) -> None:
        relay = RelaySettings(
            **{"flush_interval_seconds": 0.0, "breaker_max_seconds": 0.1, **settings}
        )
        self.broker = broker
        self.inbox = Inbox(max_bytes=broker.ahead_bytes)
        self.letters = BrokerLetters(broker)
        outbox = LetterOutbox(settings=broker, product=Product.SCOPE, max_bytes=letter_bytes)
        self.puller = Puller(
            inbox=self.inbox,
            settings=broker,
            links=Links(broker, f"test {name}", [Product.SCOPE], letter_bytes),
            letters=outbox,
            name=name,
        )
        self.pipeline = Pipeline.build(
            relay,
            Door(arthur, name),
            host=StandingHost(),
            storage=Storage(self.inbox.as_buffer(), DeadLetters([], first=outbox), self.puller),
        )

    def __enter__(self) -> Self:
        self.pipeline.start()
        wait_for(lambda: not self.puller.trouble)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, seconds: float = 5.0) -> None:
        """End as a daemon does, and check the accounts."""
        if self.pipeline.is_open:
            asyncio.run(drain(self.pipeline, self.puller, seconds))
            self.pipeline.finish_shutdown(monotonic())
            self.check(pending=0)

    def kill(self) -> None:
        """End without giving anything back, as a process that is killed."""
        self.pipeline.runtime.cancel()
        assert self.pipeline.runtime.join(5.0)
        self.pipeline.begin_shutdown()
        self.pipeline.finish_shutdown(monotonic())

    def check(self, **expected: int) -> None:
        """Assert counts, and that no row got lost among them."""
        totals = self.pipeline.ledger.totals()
        assert totals.captured == (
            totals.delivered
            + totals.rejected
            + sum(totals.dropped.values())
            + totals.returned
            + totals.pending
        )
        assert totals.pending == self.inbox.rows
        found = {name: getattr(totals, name) for name in expected}
        assert found == expected, (found, expected)


async def drain(pipeline: Pipeline, puller: Puller, seconds: float = 5.0) -> None:
    from arthur_relay.daemon.roles.worker import drain_worker

    await drain_worker(pipeline, puller, monotonic() + seconds)


def new_link(broker: BrokerSettings, name: str, letter_bytes: int) -> Link:
    return Links(broker, f"test {name}", [Product.SCOPE], letter_bytes).new()


def rows_of(*ids: str, model: str = "m", kind: RowKind = RowKind.INFERENCE) -> list[Row]:
    return [Row(each, model, b'{"a":1}', kind=kind) for each in ids]


def packet(rows: Sequence[Row], **fields: Any) -> Packet:
    return Packet(
        **{
            "id": str(uuid.uuid4()),
            "product": Product.SCOPE,
            "model_id": rows[0].model_id,
            "kind": rows[0].kind,
            "rows": tuple(rows),
            "accepted_at": time(),
            **fields,
        }
    )


class Broker:
    """What a test says to the broker, and asks it. Its own loop and connection."""

    def __init__(self, settings: BrokerSettings, letter_bytes: int = DEAD_LETTER_BYTES) -> None:
        self.settings = settings
        self._loop = asyncio.new_event_loop()
        self.letter_bytes = letter_bytes
        self.connection = Connection(settings, "test")

    def __enter__(self) -> Self:
        self.do(self.connection.open())
        self.prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self.do(self.connection.close())
        self._loop.close()

    def prepare(self) -> None:
        """Have what the fleet needs made."""
        provision = Provision(self.connection, [Product.SCOPE], self.letter_bytes)
        self.do(provision.prepare())

    def do(self, work: Any) -> Any:
        """Run a coroutine."""
        return self._loop.run_until_complete(work)

    def publish(self, *packets: Packet) -> None:
        """Have packets kept."""
        for each in packets:
            self.do(
                self.connection.publish(
                    each.subject(self.settings.stream), each.body(), each.headers(), seconds=20
                )
            )

    def publish_rows(self, *ids: str, **about: Any) -> None:
        """Have a packet of rows kept."""
        self.publish(packet(rows_of(*ids, **about)))

    def waiting(self) -> int:
        """Return how many packets the broker has."""
        found = self.do(self.connection.ask_api(f"STREAM.INFO.{self.settings.stream}"))
        return int(found["state"]["messages"])

    def wait_until_empty(self, seconds: float = 20.0) -> None:
        wait_for(lambda: self.waiting() == 0, seconds)

    def in_hand(self, consumer: str = "scope-inf-0") -> int:
        """Return how many packets a consumer's users have in hand, or are given back with delay."""
        question = f"CONSUMER.INFO.{self.settings.stream}.{consumer}"
        found = self.do(self.connection.ask_api(question))
        return int(found["num_ack_pending"])


@contextmanager
def blocked(arthur: Arthur) -> Iterator[Gate]:
    """Have Arthur answer nothing until the gate is open; it is, at the end."""
    go_on = Gate()

    async def script(batch: Batch) -> Attempt:
        await go_on.wait()
        return taken(batch)

    before, arthur.script = arthur.script, script
    try:
        yield go_on
    finally:
        go_on.set()
        arthur.script = before
