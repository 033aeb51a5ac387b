"""One daemon for both products: each has its own pipeline, and neither delays the other."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.runnables import RunnableLambda

from arthur_relay import ArthurCallbackHandler, Inference, Relay, RelaySettings
from tests.daemon.process import PATIENT, DaemonProcess, arrived, row
from tests.daemon.traces import PROTOBUF, TRACES, body, hex_id, stored
from tests.waiting import SECONDS, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from arthur_relay.sandbox import ArthurSandbox


def wait_until_both_ready(daemon: DaemonProcess) -> DaemonProcess:
    daemon.wait_for_log("rows for Arthur Engine of earlier processes")
    return daemon


def send_rows(client: httpx.Client, sandbox: ArthurSandbox, *ids: str, **data: Any) -> int:
    path = f"/api/v3/models/{sandbox.model_id}/inferences"
    return client.post(path, json=[row(each, **data) for each in ids]).status_code


def send_spans(client: httpx.Client, engine: ArthurSandbox, *numbers: int, **options: Any) -> int:
    sent = body(*numbers, task=engine.task_id, **options)
    return client.post(TRACES, content=sent, headers=PROTOBUF).status_code


@pytest.mark.one_python
def test_each_route_belongs_to_its_product(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    daemon = wait_until_both_ready(start_both())
    client = daemon.client()
    assert send_rows(client, sandbox, "a") == 207
    assert send_spans(client, engine, 1) == 200
    wait_for(lambda: arrived(sandbox) == ["a"] and stored(engine) == [hex_id(1)])
    assert not stored(sandbox)
    assert not arrived(engine)
    assert client.get("/health").json() == {"message": "ok"}
    answer = client.get("/api/v1/prompts")
    assert (answer.status_code, answer.json()["arthur_relay"]) == (404, True)
    assert "for Arthur Scope, and traces and feedback" in answer.json()["detail"]
    assert client.get("/readyz").json()["detail"] == "The spool takes rows."
    assert daemon.end() == 0, daemon.log
    assert "stopped: 1 rows for Arthur Scope were delivered" in daemon.log
    assert "stopped: 1 rows for Arthur Engine were delivered" in daemon.log


def test_handlers_of_both_products_send_to_it(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    daemon = wait_until_both_ready(start_both())
    address = f"unix://{daemon.socket}"
    settings = RelaySettings(flush_interval_seconds=0.01)
    handler = ArthurCallbackHandler.from_engine(
        base_url=address, task_id=engine.task_id, settings=settings
    )
    RunnableLambda(str.upper).invoke("Text", config={"callbacks": [handler]})
    handler.relay.close(5)
    with Relay.from_credentials(sandbox.model_id, address, settings=settings) as relay:
        relay.capture(Inference(input_text="a", output_text="b", inference_id="x"))
    wait_for(lambda: arrived(sandbox) == ["x"] and len(stored(engine)) == 1)


@pytest.mark.parametrize("fault", ["hang", "status"])
@pytest.mark.parametrize("away", ["scope", "engine"])
def test_a_product_that_is_away_does_not_delay_the_other(
    fault: str,
    away: str,
    start_both: Callable[..., DaemonProcess],
    sandbox: ArthurSandbox,
    engine: ArthurSandbox,
) -> None:
    daemon = wait_until_both_ready(start_both(**PATIENT))
    client = daemon.client()
    # What is known of models and tasks is asked for once.
    assert (send_rows(client, sandbox, "a"), send_spans(client, engine, 1)) == (207, 200)
    wait_for(lambda: arrived(sandbox) == ["a"] and stored(engine) == [hex_id(1)])
    broken = sandbox if away == "scope" else engine
    if fault == "hang":
        broken.faults.hang()
    else:
        broken.faults.status(503, times=None)
    assert (send_rows(client, sandbox, "b"), send_spans(client, engine, 2)) == (207, 200)
    if away == "scope":
        wait_for(lambda: stored(engine) == [hex_id(1), hex_id(2)])
        assert arrived(sandbox) == ["a"]
    else:
        wait_for(lambda: arrived(sandbox) == ["a", "b"])
        assert stored(engine) == [hex_id(1)]
    if fault == "status":
        name = "Arthur Scope" if away == "scope" else "Arthur Engine"
        daemon.wait_for_log("Arthur answered 503")
        lines = [json.loads(each) for each in daemon.log.splitlines() if each.startswith("{")]
        about = {each.get("product") for each in lines if each["level"] == "warning"}
        assert about == {name}
        documents = client.get("/status").json()["products"]
        assert [each["product"] for each in documents if each["errors"]] == [name]
    assert client.get("/readyz").status_code == 200
    broken.faults.reset()
    wait_for(lambda: arrived(sandbox) == ["a", "b"] and len(stored(engine)) == 2)
    assert daemon.end() == 0, daemon.log


def test_kill_9_loses_nothing_of_either(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    first = wait_until_both_ready(start_both())
    for each in (sandbox, engine):
        each.faults.status(503, times=None)
    client = first.client()
    assert send_rows(client, sandbox, *(f"i{each}" for each in range(20))) == 207
    assert send_spans(client, engine, *range(1, 21)) == 200
    first.end(signal.SIGKILL)
    assert list(first.spool.glob("*.spool"))
    assert list((first.spool / "engine").glob("*.spool"))
    for each in (sandbox, engine):
        each.faults.reset()
    second = wait_until_both_ready(start_both())
    wait_for(lambda: len(arrived(sandbox)) == len(set(stored(engine))) == 20)
    assert second.end() == 0, second.log


def test_the_engine_s_rows_are_found_by_a_daemon_that_gains_or_loses_a_product(
    start_both: Callable[..., DaemonProcess],
    engine: ArthurSandbox,
    sandbox: ArthurSandbox,
    tmp_path: Path,
) -> None:
    engine.faults.status(503, times=None)
    sandbox.faults.status(503, times=None)
    with DaemonProcess(engine, tmp_path, for_engine=True) as alone:
        assert send_spans(alone.wait_until_ready().client(), engine, 1) == 200
        alone.end(signal.SIGKILL)
    both = wait_until_both_ready(start_both())
    assert "1 spool files with rows for Arthur Engine are now in" in both.log
    assert "ready: 1 rows for Arthur Engine" in both.log
    assert send_spans(both.client(), engine, 2) == 200
    assert send_rows(both.client(), sandbox, "a") == 207
    both.end(signal.SIGKILL)
    engine.faults.reset()
    with DaemonProcess(engine, tmp_path, for_engine=True) as again:
        again.wait_until_ready()
        wait_for(lambda: sorted(stored(engine)) == [hex_id(1), hex_id(2)])
        assert again.end() == 0
    sandbox.faults.reset()
    with DaemonProcess(sandbox, tmp_path) as of_scope:
        of_scope.wait_until_ready()
        wait_for(lambda: arrived(sandbox) == ["a"])


def test_a_flood_of_one_takes_no_room_of_the_other(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    daemon = wait_until_both_ready(
        start_both(
            **PATIENT,
            ARTHUR_RELAY_SPOOL_BYTES=str(2 << 20),
            ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES=str(256 * 1024),
        )
    )
    engine.faults.status(503, times=None)
    client = daemon.client()
    number, last = 1, 200
    while last == 200:
        last = send_spans(client, engine, number, name="x" * 100_000)
        number += 1
        assert number < 100
    assert last == 503
    assert send_rows(client, sandbox, "a", "b") == 207
    wait_for(lambda: arrived(sandbox) == ["a", "b"])
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert "Arthur Scope: The spool takes rows. Arthur Engine: The spool is full" in answer.text
    taken = sum(each.stat().st_size for each in (daemon.spool / "engine").iterdir())
    assert taken < 1.2 * (1 << 20)


@pytest.mark.one_python
def test_the_views_show_both(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    daemon = wait_until_both_ready(start_both())
    client = daemon.client()
    assert (send_rows(client, sandbox, "a"), send_spans(client, engine, 1, 2)) == (207, 200)
    wait_for(lambda: arrived(sandbox) == ["a"] and len(stored(engine)) == 2)
    found = client.get("/status").json()
    assert [each["product"] for each in found["products"]] == ["Arthur Scope", "Arthur Engine"]
    assert [each["rows"]["captured"] for each in found["products"]] == [1, 2]
    text = client.get("/metrics").text
    model, task = sandbox.model_id, engine.task_id
    assert f'arthur_relay_captured_total{{model="{model}",product="scope"}} 1.0' in text
    assert f'arthur_relay_captured_total{{model="{task}",product="engine"}} 2.0' in text
    assert 'arthur_relay_ready{product="engine"} 1.0' in text
    assert "arthur_relay_intake_connections 1.0" in text
    names = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(names) == len(set(names)), "each metric is described once"


@pytest.mark.one_python
def test_top_shows_both(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    daemon = wait_until_both_ready(start_both())
    found = run_command(daemon, "top", "--once", "--socket", str(daemon.socket))
    assert found.returncode == 0, found.stderr
    for product, destination in (("Scope", sandbox.url), ("Engine", engine.url)):
        assert f"Arthur {product}, {destination}" in found.stdout


@pytest.mark.one_python
def test_a_check_looks_at_both(
    start_both: Callable[..., DaemonProcess], engine: ArthurSandbox, tmp_path: Path
) -> None:
    daemon = wait_until_both_ready(start_both())
    other = {
        "ARTHUR_RELAY_DAEMON_SOCKET": str(daemon.socket.with_name("other.sock")),
        "ARTHUR_RELAY_SPOOL_DIR": str(tmp_path / "other"),
    }
    found = run_command(daemon, "check", "--daemon", **other)
    assert found.returncode == 0, found.stdout
    text = " ".join(found.stdout.split())
    assert "Arthur Scope and Arthur Engine: each has a pipeline" in text
    assert f"Arthur Engine at {engine.url}" in text
    assert "There is an API key (ARTHUR_ENGINE_API_KEY)" in text


@pytest.mark.one_python
def test_dead_letters_are_of_the_product_that_the_spool_is_of(
    start_both: Callable[..., DaemonProcess], sandbox: ArthurSandbox, engine: ArthurSandbox
) -> None:
    daemon = wait_until_both_ready(start_both())
    engine.faults.fail_rows(every=1)
    sandbox.faults.fail_rows(every=1, status=422, times=1)
    client = daemon.client()
    assert (send_rows(client, sandbox, "a"), send_spans(client, engine, 1)) == (207, 200)

    def kept() -> list[int]:
        found = client.get("/status").json()["products"]
        return [each["dead_letters"]["kept"] for each in found]

    wait_for(lambda: kept() == [1, 1])
    engine.faults.reset()
    for directory in (daemon.spool, daemon.spool / "engine"):
        place = {"ARTHUR_RELAY_SPOOL_DIR": str(directory)}
        found = run_command(daemon, "dead-letters", "replay", **place)
        assert "1 of 1 dead letters were delivered" in found.stdout, found
    assert arrived(sandbox) == ["a"]
    assert stored(engine) == [hex_id(1)]


def run_command(
    daemon: DaemonProcess, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in a daemon's environment."""
    return subprocess.run(
        [sys.executable, "-m", "arthur_relay.cli", *arguments],
        env={**daemon.environment, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def test_a_reload_renews_the_keys_of_both(
    start_both: Callable[..., DaemonProcess],
    sandbox: ArthurSandbox,
    engine: ArthurSandbox,
    tmp_path: Path,
) -> None:
    key = tmp_path / "key"
    key.write_text("wrong")
    daemon = wait_until_both_ready(
        start_both(ARTHUR_ENGINE_API_KEY="", ARTHUR_ENGINE_API_KEY_FILE=str(key))
    )
    client = daemon.client()
    assert send_spans(client, engine, 1) == 200
    refused = 'arthur_relay_credentials_refused{product="%s"} %s'
    wait_for(lambda: refused % ("engine", "1.0") in client.get("/metrics").text)
    assert refused % ("scope", "0.0") in client.get("/metrics").text
    key.write_text(engine.engine_environment()["ARTHUR_API_KEY"])
    daemon.send_signal(signal.SIGHUP)
    daemon.wait_for_log("reloaded: tokens")
    wait_for(lambda: stored(engine) == [hex_id(1)])
    assert send_rows(client, sandbox, "a") == 207
    wait_for(lambda: arrived(sandbox) == ["a"])


@pytest.mark.one_python
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("ARTHUR_BASE_URL", "ARTHUR_BASE_URL is not set, and ARTHUR_ENGINE_API_KEY is set"),
        ("ARTHUR_API_KEY", "or set ARTHUR_API_KEY in the environment. (ARTHUR_ENGINE_API_KEY is"),
    ],
)
def test_what_is_missing_for_one_product_is_told(
    missing: str, said: str, start_both: Callable[..., DaemonProcess]
) -> None:
    daemon = start_both(**{missing: "", "ARTHUR_LOGIN": ""})
    assert daemon.end(None) == 2
    assert said in " ".join(daemon.log.split())


@pytest.mark.one_python
def test_without_the_engine_s_own_key_the_engine_alone_is_served(
    start_both: Callable[..., DaemonProcess], engine: ArthurSandbox
) -> None:
    key = engine.engine_environment()["ARTHUR_API_KEY"]
    alone = {"ARTHUR_ENGINE_API_KEY": "", "ARTHUR_API_KEY": key, "ARTHUR_MODEL_ID": ""}
    daemon = start_both(**alone).wait_until_ready()
    assert "products" not in daemon.client().get("/status").json()
    assert send_spans(daemon.client(), engine, 1) == 200
    wait_for(lambda: stored(engine) == [hex_id(1)])
