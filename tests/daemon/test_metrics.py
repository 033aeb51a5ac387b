"""What /metrics says: every row is accounted for, by model; all labels are bounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from arthur_relay.accounting import MODELS, OTHER, REASONS, BoundedReasons, ModelLedger
from arthur_relay.daemon.measurements import Histogram
from arthur_relay.sandbox import ArthurSandbox
from tests.waiting import wait_for

from .process import arrived, row

if TYPE_CHECKING:
    from collections.abc import Callable

    from .process import DaemonProcess

    Start = Callable[..., DaemonProcess]

pytestmark = pytest.mark.one_python

Samples = dict[str, dict[tuple[str, ...], float]]


def scrape(client: httpx.Client) -> Samples:
    """Return the samples by name, and in there by the values of their labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            name = sample.name.removeprefix("arthur_relay_")
            values = found.setdefault(name, {})
            key = tuple(sample.labels.values())
            assert key not in values, sample
            values[key] = sample.value
    return found


def pending_by_model(found: Samples) -> dict[str, float]:
    left = {model: rows for (model,), rows in found["captured_total"].items()}
    for (model,), rows in found.get("delivered_total", {}).items():
        left[model] -= rows
    for name in ("rejected_total", "dropped_total"):
        for (model, _), rows in found.get(name, {}).items():
            left[model] -= rows
    return left


def post(client: httpx.Client, model: str, *ids: str, **data: Any) -> httpx.Response:
    return client.post(
        f"/api/v3/models/{model}/inferences",
        headers={"Authorization": "any"},
        json=[row(each, **data) for each in ids],
    )


def test_every_row_is_accounted_for_by_model_and_reason(
    sandbox: ArthurSandbox, daemon: DaemonProcess
) -> None:
    client = daemon.client()
    one, two = sandbox.model_id, sandbox.add_model()
    sandbox.faults.fail_rows(every=1, status=422, times=1)
    assert post(client, one, "a").status_code == 207
    wait_for(lambda: scrape(client).get("rejected_total") == {(one, "row 422"): 1})
    assert post(client, one, "b", "c").status_code == 207
    assert post(client, two, "d", "e", "f").status_code == 207
    wait_for(lambda: scrape(client)["pending_rows"] == {(): 0})
    found = scrape(client)
    assert found["captured_total"] == {(one,): 3, (two,): 3}
    assert found["delivered_total"] == {(one,): 2, (two,): 3}
    assert pending_by_model(found) == {one: 0, two: 0}
    assert found["dead_letters_total"] == {("row 422",): 1}
    wait_for(lambda: scrape(client)["dead_letters"] == {(): 1})
    assert found["intake_requests_total"] == {("POST", "207"): 3}
    assert found["intake_rows_total"] == {("accepted",): 6, ("refused",): 0}
    assert found["intake_seconds_count"] == {(): 3}
    assert found["batch_rows_sum"] == {(): 6}
    requests = found["requests_total"]["answered",]
    assert found["delivery_seconds_count"] == found["batch_bytes_count"] == {(): requests}
    assert found["ready"] == {(): 1}
    assert found["oldest_row_age_seconds"] == {(): 0}


def test_what_waits_is_told_and_survives_a_restart_with_its_model_and_age(
    sandbox: ArthurSandbox, start: Start
) -> None:
    one, two = sandbox.model_id, sandbox.add_model()
    sandbox.faults.status(503, times=None)
    first = start().wait_until_ready()
    client = first.client()
    post(client, one, "a")
    post(client, two, "b", "c")
    wait_for(lambda: scrape(client)["breaker_open"] == {(): 1})
    found = scrape(client)
    assert pending_by_model(found) == {one: 1, two: 2}
    assert found["pending_rows"] == found["spool_rows"] == {(): 3}
    assert found["spool_bytes"][()] > 0
    assert found["spool_limit_bytes"][()] > found["spool_bytes"][()]
    assert found["breaker_opened_total"] == {(): 1}
    assert found["requests_total"]["unavailable",] >= 1
    wait_for(lambda: scrape(client)["retries_total"][()] > 0)
    wait_for(lambda: scrape(client)["oldest_row_age_seconds"][()] > 0.2)
    age = scrape(client)["oldest_row_age_seconds"][()]
    assert client.get("/readyz").status_code == 200
    first.process.kill()
    first.process.wait()

    client = start().wait_until_ready().client()
    found = scrape(client)
    assert pending_by_model(found) == {one: 1, two: 2}
    assert found["pending_rows"] == {(): 3}
    assert found["oldest_row_age_seconds"][()] > age
    sandbox.faults.reset()
    wait_for(lambda: scrape(client)["pending_rows"] == {(): 0})
    assert scrape(client)["delivered_total"] == {(one,): 1, (two,): 2}
    assert arrived(sandbox) == ["a", "b", "c"]


def test_no_view_shows_a_text_or_an_inferences_id(
    sandbox: ArthurSandbox, daemon: DaemonProcess
) -> None:
    client = daemon.client()
    sandbox.faults.fail_rows(every=1, status=422, times=1)
    post(client, sandbox.model_id, "canary-id", output_text="canary-text")
    wait_for(lambda: client.get("/status").json()["dead_letters"]["kept"] == 1)
    for path in ("/metrics", "/status", "/", "/healthz", "/readyz"):
        assert "canary" not in client.get(path).text


def test_the_accounts_come_out_even_at_every_moment(
    sandbox: ArthurSandbox, daemon: DaemonProcess
) -> None:
    models = [sandbox.model_id, sandbox.add_model()]
    sandbox.faults.fail_rows(every=5, status=422, times=None)
    sandbox.faults.slow(0.02, times=None)
    stop = threading.Event()

    def send(number: int) -> int:
        client, sent = daemon.client(), 0
        while not stop.is_set():
            ids = [f"{number}-{sent + more}" for more in range(7)]
            assert post(client, models[number % 2], *ids).status_code == 207
            sent += len(ids)
        return sent

    with ThreadPoolExecutor(4) as pool:
        senders = [pool.submit(send, number) for number in range(4)]
        client, busy = daemon.client(), 0
        try:
            while busy < 30:
                found = scrape(client)
                pending = pending_by_model(found) if "captured_total" in found else {}
                assert min(pending.values(), default=0) >= 0
                assert sum(pending.values()) == found["pending_rows"][()]
                busy += found["pending_rows"][()] > 0
        finally:
            stop.set()
        sent = sum(sender.result() for sender in senders)
    wait_for(lambda: scrape(client)["pending_rows"] == {(): 0})
    assert sum(scrape(client)["captured_total"].values()) == sent


def test_what_is_given_up_is_told_by_model(sandbox: ArthurSandbox, start: Start) -> None:
    sandbox.faults.status(503, times=None)
    daemon = start(ARTHUR_RELAY_RETRY_MAX_ELAPSED_SECONDS="0.1").wait_until_ready()
    client, model = daemon.client(), sandbox.model_id
    post(client, model, "a", "b")
    reason = "retry_time_exceeded"
    wait_for(lambda: scrape(client).get("dropped_total") == {(model, reason): 2})
    found = scrape(client)
    assert pending_by_model(found) == {model: 0}
    assert found["dead_letters_total"] == {(reason,): 2}


def test_a_spool_that_is_full_is_told(sandbox: ArthurSandbox, start: Start) -> None:
    sandbox.faults.status(503, times=None)
    client = (
        start(ARTHUR_RELAY_SPOOL_BYTES="2097152", ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES="1000000")
        .wait_until_ready()
        .client()
    )
    text, number = "x" * 100_000, 0
    while post(client, sandbox.model_id, str(number), output_text=text).status_code == 207:
        number += 1
    found = scrape(client)
    assert found["ready"] == {(): 0}
    assert found["intake_rows_total"] == {("accepted",): number, ("refused",): 0, ("deferred",): 1}
    assert found["intake_requests_total"]["POST", "503"] == 1
    assert found["spool_bytes"][()] > 0.8 * found["spool_limit_bytes"][()]
    state = client.get("/status").json()["state"]
    assert state["kind"] == "bad"
    assert state["title"] == "No rows are taken"
    assert state["detail"].startswith("The spool is full")


def test_the_views_are_on_their_own_port_which_takes_no_rows(
    sandbox: ArthurSandbox, start: Start
) -> None:
    daemon = start(ARTHUR_RELAY_DAEMON_METRICS_LISTEN="127.0.0.1:0")
    views = daemon.client("http://" + daemon.address("health and metrics are on"))
    assert scrape(views)["build_info"]
    assert views.get("/status").json()["phase"] == "running"
    assert views.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert post(views, sandbox.model_id, "a").status_code == 404


def test_the_views_are_not_where_applications_come_in_by_tcp(start: Start) -> None:
    daemon = start(ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0")
    endpoint = daemon.client("http://" + daemon.address("taking rows on"))
    assert endpoint.get("/readyz").status_code == 200
    for path in ("/metrics", "/status", "/"):
        assert endpoint.get(path).status_code == 404


def test_models_beyond_a_number_share_one_account() -> None:
    ledger = ModelLedger()
    models = [f"model-{number}" for number in range(MODELS + 5)]
    for number, model in enumerate(models):
        ledger.capture(3, model)
        ledger.deliver(1, model)
        ledger.reject(f"row {400 + number}", 1, model)
    found = ledger.accounts()
    assert len(found.captured) == len(found.delivered) == MODELS + 1
    assert found.captured[OTHER] == 15
    assert len({reason for _, reason in found.rejected}) == REASONS + 1
    assert set(found.pending.values()) == {1, 5}


def test_what_was_found_is_accounted_for_also_where_its_model_can_not_be_told() -> None:
    ledger = ModelLedger()
    ledger.recover(7, {"small": 1, "large": 4})
    assert ledger.accounts().captured == {"small": 1, "large": 4, OTHER: 2}


def test_odd_reasons_are_not_told_apart() -> None:
    reasons = BoundedReasons()
    for usual in ("row 400", "http 503", "login refused", "retry_time_exceeded"):
        assert reasons.bound(usual) == usual
    for odd in ("row 1234567", "row -1", "http 4000", "he said: 'no'", "Ünicode"):
        assert reasons.bound(odd) == OTHER


def test_a_histogram_counts_up_to_and_with_its_bounds() -> None:
    histogram = Histogram((1.0, 2.0))
    assert histogram.read().quantile(0.5) is None
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    found = histogram.read()
    assert found.buckets == [(1.0, 2), (2.0, 3), (float("inf"), 4)]
    assert found.total == 12.0
    assert [found.quantile(share) for share in (0.5, 0.75, 1.0)] == [1.0, 2.0, float("inf")]
