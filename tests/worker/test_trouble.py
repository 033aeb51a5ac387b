"""A bad row costs no other, and a bad model costs no other, however many there are of either."""

from __future__ import annotations

import logging
import time
from collections.abc import Set as AbstractSet
from random import Random

import anyio
import pytest
from anyio.abc import TaskGroup

from arthur_relay.delivery import model_health
from arthur_relay.delivery.circuit_breaker import Breaker
from arthur_relay.delivery.in_flight import Delivery, Lane
from arthur_relay.delivery.sender import Sender
from arthur_relay.row import (
    DELIVERED,
    NO_HISTORY,
    RECOVERED,
    Attempt,
    Batch,
    Failure,
    History,
    Outcome,
    Row,
    Verdict,
)
from tests.randomness import Always
from tests.worker.harness import (
    RETRY,
    ScriptedDestination,
    delivered,
    harness,
    run,
    seconds_until,
    unavailable,
    virtual,
)

pytestmark = pytest.mark.one_python

SECOND = 0.05
"""How long a request takes."""


def failing(
    status: int, *, rows: AbstractSet[str] = frozenset(), models: AbstractSet[str] = frozenset()
) -> ScriptedDestination:
    """Answers a whole request with a failure for what is in some rows, or for some models."""

    async def script(batch: Batch, _number: int) -> Attempt:
        await anyio.sleep(SECOND)
        if batch.model_id in models or any(row.id in rows for row in batch.rows):
            outcome = Outcome(Verdict.RETRY, f"http {status}", status)
            reason = f"Arthur answered {status}"
            return Attempt((outcome,) * len(batch.rows), Failure.UNAVAILABLE, reason)
        return delivered(batch)

    return ScriptedDestination(script)


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("bad", [1, 3, 16, 64])
def test_rows_that_arthur_answers_with_5xx_cost_no_other(status: int, bad: int) -> None:
    """Bad rows spread over 3,000 of one model; another model's come in behind them."""
    names = {f"m{number * 3000 // bad + 7}" for number in range(bad)}

    async def test() -> None:
        h = harness(failing(status, rows=names), batch_size=500)
        async with h.running():
            ids = {*h.capture_many(3000), *h.capture_many(100, model="other")}
            with anyio.fail_after(600):
                while len(h.destination.stored) < len(ids) - bad:
                    await anyio.sleep(0.5)
            assert set(h.destination.stored) == ids - names
            h.check(delivered=3100 - bad, pending=bad)
            # What is left waits by itself, each with its own back-off, and takes no place.
            before = len(h.destination.requests)
            began_at = anyio.current_time()
            h.capture_many(3000, model="later")
            with anyio.fail_after(60):
                while len(h.destination.stored) < 6100 - bad:
                    await anyio.sleep(0.1)
            assert anyio.current_time() - began_at < 5
            assert len(h.destination.requests) - before < 20 + 10 * bad
            assert all(
                len(ids) == 1 for _, ids in h.destination.requests[before:] if names & set(ids)
            )

    run(test)


@pytest.mark.parametrize("attempts", [0, 20])
def test_a_row_that_fails_alone_takes_no_place_from_others(attempts: int) -> None:
    """Also where it comes back from the buffer by itself, and nothing else is sent meanwhile."""

    async def test() -> None:
        script = failing(502, rows={"bad"})
        h = harness(script, batch_size=500, max_in_flight=1, breaker_failures=50)
        async with h.running():
            h.capture("good")
            await seconds_until(h, 1, limit=5)
            h.ledger.recover(1)
            past = History(attempts, since=time.time()) if attempts else NO_HISTORY
            h.buffer.put([Row("bad", "m", b"{}", epoch=RECOVERED, history=past)])
            h.worker.wake()
            while len(h.destination.requests) < 7:
                await anyio.sleep(0.1)
            h.capture_many(3000, model="later")
            await seconds_until(h, 3001, limit=5)
            h.check(delivered=3001, pending=1)

    run(test)


@pytest.mark.parametrize("others", [0, 500])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_a_great_share_of_bad_rows_costs_the_others_little(share: float, others: int) -> None:
    """No batch of a usual size ever passes; each row takes a request or so, and no long waits."""
    random = Random(3)
    names = {f"m{number}" for number in range(3000) if random.random() < share}
    good = 3000 - len(names) + others

    async def test() -> None:
        h = harness(failing(500, rows=names), batch_size=500)
        async with h.running():
            h.capture_many(3000)
            h.capture_many(others, model="other")
            with anyio.fail_after(100):
                while len(h.destination.stored) < good:
                    await anyio.sleep(0.5)
            assert len(h.destination.requests) < 1.5 * 3000
            # Of so many bad ones those that were sent most often may have ended by now.
            totals = h.ledger.totals()
            h.check(delivered=good, pending=len(names) - totals.rejected)
            assert not names & set(h.destination.stored)

    run(test)


@virtual
async def test_a_batch_that_fails_late_is_cut_to_the_size_that_passes_by_now() -> None:
    """By halves most of its parts would fail, and so many failures look like an outage."""

    async def script(batch: Batch, _number: int) -> Attempt:
        await anyio.sleep(SECOND)
        if len(batch.rows) > 2:
            bad = Outcome(Verdict.RETRY, "http 500", 500)
            return Attempt((bad,) * len(batch.rows), Failure.UNAVAILABLE, "Arthur answered 500")
        return delivered(batch)

    h = harness(ScriptedDestination(script), batch_size=64)
    async with h.running():
        h.capture("first")
        await seconds_until(h, 1, limit=5)
        h.capture_many(64)
        while len(h.destination.requests) < 2:
            await anyio.sleep(SECOND / 10)
        h.worker.sender._batch_sizes.failed("m", 4)  # as other batches find meanwhile
        await seconds_until(h, 65, limit=60)
        sizes = [len(ids) for _, ids in h.destination.requests]
        assert sizes[:2] == [1, 64]
        assert max(sizes[2:]) <= 4
        h.check(delivered=65)


@virtual
async def test_an_outage_of_500_is_found_soon_also_after_bad_rows() -> None:
    destination = failing(500, rows={f"m{number}" for number in range(0, 100, 3)})
    h = harness(destination, batch_size=100)
    async with h.running():
        h.capture_many(100)
        await anyio.sleep(60)
        assert len(destination.stored) == 66
        destination.script = failing(500, models={"m"}).script
        before = len(destination.requests)
        h.capture_many(2000)
        await anyio.sleep(20)
        assert h.worker.sender.is_down
        assert len(destination.requests) - before < 60
        destination.script = lambda batch, _number: delivered(batch)
        assert await h.flush()
        h.check(delivered=2100, pending=0)


@virtual
async def test_the_only_row_that_waits_does_not_keep_others_from_being_asked_with() -> None:
    """One bad row alone: Arthur may be away, so the next row that comes tells, and at once."""
    h = harness(failing(500, rows={"bad"}), flush_interval_seconds=0.1)
    async with h.running():
        h.capture("bad")
        await anyio.sleep(300)
        for number in range(5):
            began_at = anyio.current_time()
            h.capture(f"good{number}")
            with anyio.fail_after(5):
                while f"good{number}" not in h.destination.stored:
                    await anyio.sleep(0.05)
            assert anyio.current_time() - began_at < 2
            await anyio.sleep(60)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("bad", [1, 20, 100])
def test_models_that_fail_cost_no_other(status: int, bad: int) -> None:
    models = {f"bad{number}-" for number in range(bad)}

    async def test() -> None:
        h = harness(failing(status, models=models), batch_size=50, queue_size=100_000)
        async with h.running():
            for model in sorted(models):
                h.capture_many(1000 // bad + 60, model=model)
                await anyio.sleep(0.1)
            await anyio.sleep(30)
            began_at = anyio.current_time()
            h.capture_many(2000, model="good")
            with anyio.fail_after(600):
                while len(h.destination.stored) < 2000:
                    await anyio.sleep(0.1)
            assert anyio.current_time() - began_at < 45
            # And once they go well again, all arrives.
            h.destination.script = lambda batch, _number: delivered(batch)
            assert await h.flush()
            h.check(delivered=2000 + bad * (1000 // bad + 60), pending=0, rejected=0)

    run(test)


def test_more_models_than_can_be_held_one_by_one_cost_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_health, "TROUBLED_KEPT", 20)
    run(_many_models)


async def _many_models() -> None:
    bad = 150
    models = {f"bad{number}-" for number in range(bad)}
    h = harness(failing(503, models=models), batch_size=50, queue_size=100_000)
    async with h.running():
        for model in sorted(models):
            h.capture_many(2, model=model)
        await anyio.sleep(60)
        for name, most in (("good", 10), ("later", 2)):
            began_at = anyio.current_time()
            h.capture_many(1000, model=name)
            with anyio.fail_after(600):
                while sum(each.startswith(name) for each in h.destination.stored) < 1000:
                    await anyio.sleep(0.1)
            assert anyio.current_time() - began_at < most
            await anyio.sleep(60)
        assert h.worker.sender.held_count == bad
        before = len(h.destination.requests)
        await anyio.sleep(300)
        # Those with a breaker of their own each half minute, a twentieth of the rest as well.
        assert len(h.destination.requests) - before < 10 * (20 + 130 / 20) * 1.5
        # One that recovers is found though no other does, and when all do, all arrives soon.
        h.destination.script = failing(503, models=models - {"bad70-"}).script
        await anyio.sleep(1200)
        assert {"bad70-0", "bad70-1"} <= set(h.destination.stored)
        h.destination.script = lambda batch, _number: delivered(batch)
        await anyio.sleep(60)
        h.check(delivered=2000 + 2 * bad, pending=0, rejected=0)
        assert h.worker.sender.held_count == 0


@virtual
async def test_bad_and_good_models_in_turn() -> None:
    """New rows of a model that is held wait in the buffer, and give way to nobody's."""
    h = harness(failing(503, models={"bad"}), batch_size=50, queue_size=1000)
    async with h.running():
        for number in range(200):
            h.capture(*[f"b{number}.{each}" for each in range(20)], model="bad")
            h.capture(*[f"g{number}.{each}" for each in range(20)], model="good")
            await anyio.sleep(1)
        await anyio.sleep(10)
        assert h.worker.sender.held_models == (
            "nothing of one model can be delivered (Arthur answered 503)"
        )
        # The queue is full of the bad model's, so its oldest gave way, and no other's.
        assert len(h.destination.stored) == 4000
        assert 900 < h.buffer.rows <= 1000
        h.check(delivered=4000, dropped={"overflow": 4000 - h.buffer.rows})


@virtual
async def test_rows_that_fail_one_by_one_take_no_place() -> None:
    """Arthur answers 207, with a 503 for some rows of each batch."""

    def script(batch: Batch, _number: int) -> Attempt:
        bad = Outcome(Verdict.RETRY, "row 503", 503)
        return Attempt(
            tuple(bad if row.id.endswith("7") else DELIVERED for row in batch.rows),
            reason="row 503",
        )

    h = harness(ScriptedDestination(script), batch_size=10, max_in_flight=2)
    async with h.running():
        h.capture_many(500)
        await anyio.sleep(30)
        h.check(delivered=450, pending=50)
        assert sorted(h.destination.stored) == sorted(
            name for name in (f"m{n}" for n in range(500)) if not name.endswith("7")
        )


def test_a_held_model_of_which_all_is_on_its_way_is_not_looked_at_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One row was given up, and the other hangs: there is nothing to ask about the model with."""
    looks = 0
    start_probes = Sender.start_probes

    def look(sender: Sender, group: TaskGroup) -> None:
        nonlocal looks
        looks += 1
        if looks > 500:
            raise SystemExit("it looks again and again")
        start_probes(sender, group)

    monkeypatch.setattr(Sender, "start_probes", look)

    async def script(batch: Batch, number: int) -> Attempt:
        hangs = batch.rows[0].id == "a" and number > 2
        await anyio.sleep(25 if hangs else 0.1)
        return unavailable(batch)

    async def test() -> None:
        h = harness(
            ScriptedDestination(script),
            batch_size=1,
            breaker_failures=3,
            retry_initial_seconds=0.001,
            retry_max_elapsed_seconds=3.0,
        )
        async with h.running():
            h.capture("a", "b")
            await anyio.sleep(20)
            assert h.worker.sender.is_down
            h.check(dropped={"retry_time_exceeded": 1}, pending=1)

    run(test)
    assert looks > 10


@pytest.mark.parametrize("is_down", [False, True])
def test_where_no_model_is_due_the_next_time_is_later(
    is_down: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models with breakers of their own and a crowd, at each step of a probe of each."""
    monkeypatch.setattr(model_health, "TROUBLED_KEPT", 3)
    health = model_health.ModelHealth(
        Breaker(failures=1, first_wait_seconds=1.0, max_wait_seconds=30.0, random=Always(1.0))
    )
    deliveries = {}
    for number in range(8):
        row = Row(f"r{number}", f"m{number}", b"{}")
        deliveries[row.model_id] = Delivery((row,), Lane.PROBE).state
        health.failed(deliveries[row.model_id], 0.0, at_once=True)
    assert (len(health.held), len(health.crowd)) == (3, 5)
    probed: set[str] = set()
    random = Random(7)
    now = 0.0
    for _ in range(500):
        due = health.due(now, probed, is_down=is_down)
        if not due:
            assert health.next_due(now, probed, is_down=is_down) > 0
        elif random.random() < 0.3:
            health.put_off(due[0], now + 1.0)
        else:
            health.begin_probe(due[0], now)
            probed.add(due[0])
        if probed and random.random() < 0.4:
            model_id = random.choice(sorted(probed))
            health.failed(deliveries[model_id], now, at_once=True)
            probed.discard(model_id)
            health.end_probe(model_id, now)
        now += random.choice([0.0, 0.1, 3.0])


REFUSED = "Arthur can't be reached: the connection was refused"


def test_in_an_outage_a_row_and_a_batch_ask_in_turn_and_then_all_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Of several models, each in turn; nothing is divided that was whole."""
    caplog.set_level(logging.INFO, logger="arthur_relay")
    run(_outage)
    assert [record.getMessage() for record in caplog.records] == [
        f"arthur-relay: {REFUSED}; inferences wait, and are sent again until Arthur takes them",
        "arthur-relay: Arthur answers again; delivery goes on",
    ]


async def _outage() -> None:
    is_over = False

    def script(batch: Batch, _number: int) -> Attempt:
        if is_over:
            return delivered(batch)
        return Attempt((RETRY,) * len(batch.rows), Failure.UNAVAILABLE, REFUSED)

    h = harness(ScriptedDestination(script), batch_size=100)
    async with h.running():
        for model in ("a", "b", "c"):
            h.capture_many(1000, model=model)
        await anyio.sleep(3600)
        requests = h.destination.requests
        assert {len(ids) for _, ids in requests[40:]} == {1, 100}
        assert {ids[0][0] for _, ids in requests[-6:]} == {"a", "b", "c"}
        assert len(requests) < 400
        assert h.worker.sender.in_progress <= 1  # the rest can give way, and be compressed
        is_over = True
        assert await h.flush()
        h.check(delivered=3000, pending=0)
