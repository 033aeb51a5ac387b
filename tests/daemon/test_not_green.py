"""Nothing looks green that is not: what a daemon shows before it has reached Arthur."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from tests.daemon.process import DaemonProcess, arrived, row
from tests.daemon.test_metrics import scrape
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from arthur_relay.sandbox import ArthurSandbox

    Start = Callable[..., DaemonProcess]


def ask(client: httpx.Client, model: str) -> int:
    """Ask for a model, as a client does before it can send anything."""
    return client.get(f"/api/v3/models/{model}", headers={"Authorization": "x"}).status_code


def test_before_anything_was_asked_it_does_not_say_that_delivery_goes_well(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    client = daemon.client()
    health = client.get("/status").json()["health"]
    assert health["status"] == "ok"
    assert health["detail"].startswith("Arthur has not been asked for anything so far")
    assert ask(client, sandbox.model_id) == 200
    wait_for(lambda: "Delivery goes well" in client.get("/status").json()["health"]["detail"])


def test_a_daemon_that_was_started_while_arthur_is_away(
    start: Start, sandbox: ArthurSandbox
) -> None:
    sandbox.go_away()
    daemon = start().wait_until_ready()
    client = daemon.client()
    for _ in range(5):
        assert ask(client, sandbox.model_id) == 503
    wait_for(lambda: scrape(client)["breaker_open"] == {(): 1})
    found = scrape(client)
    assert found["questions_total"]["unavailable",] == 5
    assert found["questions_failing"] == {(): 1}
    assert found["breaker_opened_total"] == {(): 1}
    status = client.get("/status").json()
    assert status["health"]["status"] == "failing"
    assert status["state"]["title"].startswith("Arthur can't be reached at http")
    assert status["delivery"]["questions"]["unavailable"] == 5
    assert daemon.log.count("clients ask for models in vain") == 1
    assert client.get("/readyz").status_code == 200, "rows are taken"
    # Rows pass through, so they need no model to be kept.
    answer = client.post(f"/api/v3/models/{sandbox.model_id}/inferences", json=[row("a")])
    assert answer.status_code == 207
    sandbox.come_back()
    wait_for(lambda: arrived(sandbox) == ["a"])
    assert ask(client, sandbox.model_id) == 200
    wait_for(lambda: client.get("/status").json()["state"]["title"] == "All is well")
    found = scrape(client)
    assert found["questions_failing"] == found["breaker_open"] == {(): 0}
    daemon.wait_for_log("Arthur answers again")


def test_one_answer_closes_a_breaker_that_questions_have_opened(
    start: Start, sandbox: ArthurSandbox
) -> None:
    sandbox.go_away()
    client = start(ARTHUR_RELAY_BREAKER_MAX_SECONDS="3600").wait_until_ready().client()
    for _ in range(5):
        ask(client, sandbox.model_id)
    wait_for(lambda: scrape(client)["breaker_open"] == {(): 1})
    sandbox.come_back()
    assert ask(client, sandbox.model_id) == 200
    wait_for(lambda: scrape(client)["breaker_open"] == {(): 0})


def test_an_answer_closes_no_breaker_that_deliveries_have_opened(
    start: Start, sandbox: ArthurSandbox
) -> None:
    client = start(ARTHUR_RELAY_BREAKER_MAX_SECONDS="0.01").wait_until_ready().client()
    sandbox.faults.status(503, times=None)
    client.post(f"/api/v3/models/{sandbox.model_id}/inferences", json=[row("a")])
    wait_for(lambda: scrape(client)["breaker_open"] == {(): 1})
    opened = scrape(client)["breaker_opened_total"]
    assert ask(client, sandbox.add_model()) == 200
    wait_for(lambda: scrape(client)["retries_total"][()] > 20)
    assert scrape(client)["breaker_opened_total"] == opened == {(): 1}


def test_a_daemon_whose_key_is_refused(
    start: Start, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("canary-key\n")
    daemon = start(ARTHUR_API_KEY="", ARTHUR_API_KEY_FILE=str(key)).wait_until_ready()
    client = daemon.client()
    for _ in range(3):
        assert ask(client, sandbox.model_id) == 503
    found = scrape(client)
    assert found["questions_total"]["refused",] == 3
    assert found["questions_failing"] == {(): 1}
    status = client.get("/status").json()
    assert status["state"]["title"] == "Arthur refuses the credentials"
    assert status["health"]["status"] == "failing"
    assert "refused the daemon's credentials" in status["health"]["detail"]
    assert daemon.log.count("clients ask for models in vain") == 1
    key.write_text(sandbox.api_key)
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded: ")
    assert ask(client, sandbox.model_id) == 200
    assert scrape(client)["questions_failing"] == {(): 0}
    assert client.get("/status").json()["state"]["title"] == "Ready"
    assert "canary" not in daemon.log


def test_dead_letters_that_give_way_are_counted(start: Start, sandbox: ArthurSandbox) -> None:
    daemon = start(ARTHUR_RELAY_DEAD_LETTER_BYTES="4096").wait_until_ready()
    client = daemon.client()
    sandbox.faults.fail_rows(every=1, status=422, times=None)
    rows = [row(f"r{number}") for number in range(20)]
    client.post(f"/api/v3/models/{sandbox.model_id}/inferences", json=rows)
    wait_for(lambda: scrape(client)["pending_rows"] == {(): 0})
    wait_for(lambda: scrape(client)["dead_letters_evicted_total"][()] > 10)
    kept = client.get("/status").json()["dead_letters"]
    assert kept["evicted"] == scrape(client)["dead_letters_evicted_total"][()]
    assert daemon.log.count("the oldest are lost") == 1
    status = client.get("/status").json()
    assert status["health"]["status"] == "degraded"
    assert "dead letters gave way to newer ones and are gone" in status["health"]["detail"]
    assert status["state"]["kind"] == "warn"
