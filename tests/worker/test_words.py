"""Log lines and health speak of spans where rows are spans, and of inferences where they are not.

Each test drives one pipeline into a situation that has a line, once for each product.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

from arthur_relay import ArthurCallbackHandler, Relay, RelaySettings, lifespan
from arthur_relay.buffers.spool.buffer import Spool
from arthur_relay.buffers.spool.directory import SpoolDirectory
from arthur_relay.buffers.spool.file_format import ForeignSpoolError
from arthur_relay.destinations.engine.encoder import EngineRowFormat
from arthur_relay.destinations.engine.task import Task
from arthur_relay.encoding.product import Product
from arthur_relay.errors import UnreachableError
from arthur_relay.row import Attempt, Batch, Failure, Outcome, Row, RowKind, RowOwner, Verdict
from arthur_relay.system.clocks import SystemClock
from arthur_relay.testing import MemoryDestination, MemoryEngine
from arthur_relay.worker.admission import QUIET_SECONDS
from arthur_relay.worker.composition import Storage
from tests.relay.relays import Gated, inference
from tests.worker.harness import Harness, ScriptedDestination, run, settings_of, unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arthur_relay.destinations import Destination
    from arthur_relay.destinations.scope.schema import ModelSchema

WORDS = {
    Product.SCOPE: ("inference", "span", "model", "task"),
    Product.ENGINE: ("span", "inference", "task", "model"),
}


class ScriptedEngine(ScriptedDestination):
    """The same for spans."""

    takes_traces = True

    def __init__(self) -> None:
        super().__init__()
        self.row_format = EngineRowFormat()

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        await super().fetch_schema(model_id)
        return cast("ModelSchema", Task.named(model_id))


class GatedEngine(Gated):
    """The same for spans."""

    takes_traces = True

    def __init__(self) -> None:
        super().__init__()
        self.row_format = EngineRowFormat()

    async def fetch_schema(self, model_id: str) -> ModelSchema:
        return cast("ModelSchema", Task.named(model_id))


DESTINATIONS: dict[Product, Callable[[], ScriptedDestination]] = {
    Product.SCOPE: ScriptedDestination,
    Product.ENGINE: ScriptedEngine,
}


@pytest.fixture(params=Product)
def product(request: pytest.FixtureRequest) -> Product:
    found: Product = request.param
    return found


@pytest.fixture
def lines(product: Product, caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What is logged or shown; a test adds to it what is not logged. No other product is named."""
    caplog.set_level(logging.DEBUG, logger="arthur_relay")
    shown: list[str] = []
    yield shown
    shown += [record.getMessage() for record in caplog.records]
    _, others, _, others_model = WORDS[product]
    for line in shown:
        assert others not in line.lower()
        assert f"{others_model} " not in line.lower()


def said(caplog: pytest.LogCaptureFixture, product: Product, text: str) -> None:
    """Assert that a line was logged, in the product's words for ROW and MODEL."""
    row, _, model, _ = WORDS[product]
    expected = text.replace("ROW", row).replace("MODEL", model)
    assert expected in caplog.text.lower()


def harness_for(product: Product, **settings: Any) -> Harness:
    return Harness(DESTINATIONS[product](), settings_of(**settings))


def refused(failure: Failure, reason: str) -> Callable[[Batch, int], Attempt]:
    """Return a script that fails each request."""

    def script(batch: Batch, _number: int) -> Attempt:
        outcome = Outcome(Verdict.RETRY, reason, 401)
        return Attempt((outcome,) * len(batch.rows), failure, reason)

    return script


def rejecting(batch: Batch, _number: int) -> Attempt:
    return Attempt(tuple(Outcome(Verdict.REJECTED, "row 422", 422) for _ in batch.rows))


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (
            lambda batch, _: unavailable(batch),
            "arthur answered 503; ROWs wait, and are sent again",
        ),
        (refused(Failure.UNAUTHORISED, "no such key."), "no such key. ROWs wait until arthur"),
        (
            refused(Failure.FORBIDDEN, "a plan"),
            "nothing of a MODEL can be delivered (a plan); its ROWs wait until",
        ),
        (rejecting, "ROW: row 422"),
    ],
)
@pytest.mark.usefixtures("lines")
def test_what_arthur_does_with_rows(
    product: Product,
    script: Callable[[Batch, int], Attempt],
    text: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        h = harness_for(product)
        h.destination.script = script
        async with h.running():
            h.capture("a", "b", model="x")
            await anyio.sleep(30)

    run(test)
    said(caplog, product, text)


@pytest.mark.usefixtures("lines")
def test_feedback_that_is_rejected(product: Product, caplog: pytest.LogCaptureFixture) -> None:
    h = harness_for(product)
    row = Row("r", "m", b"{}", kind=RowKind.GROUND_TRUTH)
    h.ledger.recover(1)
    h.buffer.put([row])
    (leased,) = h.buffer.lease(1)
    h.worker.settlement.rejected(leased, Outcome(Verdict.REJECTED, "row 422"), attempts=1)
    assert ("feedback" in caplog.text) is (product is Product.ENGINE)


@pytest.mark.usefixtures("lines")
def test_what_the_worker_does_with_captures(
    product: Product, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        h = harness_for(product)
        async with h.running():
            h.capture("nameless", model="")
            h.capture("odd")
            cast("Any", h.queue._items[-1]).inference = None
            assert await h.flush()

    run(test)
    said(caplog, product, "ROW names no MODEL and is rejected: set arthur_MODEL_id, or give MODEL")
    said(caplog, product, "ROW could not be encoded and is dropped")


@pytest.mark.usefixtures("lines")
def test_a_queue_that_overflows(product: Product, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        h = harness_for(product, queue_size=10)
        h.capture_many(30)
        async with h.running():
            await anyio.sleep(QUIET_SECONDS + 10)
            h.capture("later")
            assert await h.flush()

    run(test)
    said(caplog, product, "the queue is full; ROWs are dropped")
    said(caplog, product, "ROWs were dropped")


@pytest.mark.usefixtures("lines")
def test_an_arthur_that_can_t_be_asked(product: Product, caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        h = harness_for(product)
        h.destination.schema_errors = [UnreachableError("Arthur can't be reached: refused")]
        async with h.running():
            h.worker.schemas.ask("m")
            h.worker.wake()
            await anyio.sleep(5)

    run(test)
    said(caplog, product, "the MODEL is not known yet, as arthur can't be reached: refused")


def relay_for(product: Product, destination: Destination | None = None, **settings: Any) -> Relay:
    if destination is None:
        destination = MemoryEngine() if product is Product.ENGINE else MemoryDestination()
    return Relay(destination, model_id="m", settings=RelaySettings(**settings))


def gated(product: Product) -> Gated:
    return GatedEngine() if product is Product.ENGINE else Gated()


def test_health(product: Product, lines: list[str]) -> None:
    with relay_for(product) as relay:
        relay.capture(inference())
        relay.flush(30)
        relay.model_id = None
        relay.capture(inference())
        relay.flush(30)
        lines.append(relay.health().detail)
    lines.append(relay.health().detail)
    row, _, model, _ = WORDS[product]
    assert lines[0].startswith(f"1 {row}s were rejected because they name no {model}: set ARTHUR_")
    assert f"1 {row}s are delivered" in lines[0]
    assert f"The relay is closed: 1 {row}s are delivered" in lines[1]


@pytest.mark.usefixtures("lines")
def test_an_exit_that_takes_too_long(
    product: Product, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    now = {"flush_interval_seconds": 0, "shutdown_timeout_seconds": 0.01}
    relay = relay_for(product, gated(product), **now)
    relay.capture(inference())
    relay.close()
    said(caplog, product, "1 ROWs were not delivered in time and are dropped")
    destination = gated(product)
    relay = relay_for(product, destination, spool_dir=tmp_path, **now)
    relay.capture(inference())
    assert destination.asked.wait(30)  # it is in the spool before
    relay.close()
    said(caplog, product, "1 ROWs stay in the spool for a later start")


@pytest.mark.usefixtures("lines")
def test_a_lifespan_that_runs_out_of_time(
    product: Product, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"flush_interval_seconds": 0, "shutdown_timeout_seconds": 0.01}
    with relay_for(product, gated(product), **settings) as relay:

        async def serve() -> None:
            async with lifespan(ArthurCallbackHandler(relay=relay))(None):
                relay.capture(inference())

        anyio.run(serve)
    said(caplog, product, "1 ROWs were not delivered in time")


@pytest.mark.usefixtures("lines")
def test_a_spool(product: Product, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    settings = RelaySettings(spool_dir=tmp_path)
    spool = Storage.of(settings, DESTINATIONS[product]()).buffer.intake
    assert isinstance(spool, Spool)
    spool._disk.fail("it is full")
    said(caplog, product, "new ROWs wait in memory")
    for name, owner in (("0", None), ("1", RowOwner("elsewhere"))):
        error = ForeignSpoolError(owner, rows=3, is_sure=True)
        spool._segments._leave_alone(tmp_path / name, error)
    said(caplog, product, "has 3 ROWs and does not say any more for whom")
    said(caplog, product, "has 3 ROWs for elsewhere, and this process")


@pytest.mark.usefixtures("lines")
def test_a_spool_that_lacks_rows(
    product: Product, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    spool = Spool(
        SpoolDirectory(tmp_path),
        max_bytes=1 << 20,
        power_safe=False,
        clock=SystemClock(),
        words=product.words,
    )
    spool.open()
    spool.store([Row(str(number), "m", b"{}") for number in range(3)])
    spool.close()
    with closing(sqlite3.connect(tmp_path / "0.spool", isolation_level=None)) as connection:
        connection.execute("DELETE FROM rows WHERE seq = 2")
    spool.open()
    spool.close()
    said(caplog, product, "1 ROWs are not in the spool file")
