"""The server's life: start, stop, outages, restarts with data, signals."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from arthur_relay.http_server.server import HttpServer
from arthur_relay.sandbox import ArthurSandbox, ModelExistsError, attribute
from arthur_relay.sandbox.journal import Journal, RecordedRequest
from arthur_relay.sandbox.ticks import Ticks
from tests.waiting import wait_for

from .rows import INFERENCES, row

if TYPE_CHECKING:
    from pathlib import Path


def send(sandbox: ArthurSandbox, inference_id: str = "a") -> int:
    url = f"{sandbox.url}/api/v3/models/{sandbox.model_id}/inferences"
    headers = {"Authorization": sandbox.api_key}
    return httpx.post(url, json=[row(inference_id)], headers=headers).status_code


def test_it_starts_and_stops_again_and_again() -> None:
    sandbox = ArthurSandbox()
    with pytest.raises(RuntimeError, match="start it first"):
        _ = sandbox.url
    sandbox.stop()
    for number in range(3):
        with sandbox:
            sandbox.start()
            assert send(sandbox, str(number)) == 207
    sandbox.stop()
    assert [each["partner_inference_id"] for each in sandbox.inferences] == ["0", "1", "2"]


def test_its_environment() -> None:
    with ArthurSandbox(login="me", password="p", api_key="k", model_id="m") as sandbox:
        assert sandbox.environment() == {
            "ARTHUR_ENDPOINT_URL": sandbox.url,
            "ARTHUR_LOGIN": "me",
            "ARTHUR_PASSWORD": "p",
            "ARTHUR_API_KEY": "k",
            "ARTHUR_MODEL_ID": "m",
        }


def test_an_outage() -> None:
    with ArthurSandbox() as sandbox:
        url = sandbox.url
        assert send(sandbox) == 207
        sandbox.go_away()
        sandbox.go_away()
        with pytest.raises(httpx.ConnectError):
            send(sandbox)
        sandbox.come_back()
        assert sandbox.url == url
        assert send(sandbox, "b") == 207
        sandbox.go_away()
    assert len(sandbox.inferences) == 2
    assert not sandbox.duplicates


def test_a_port_that_is_taken() -> None:
    with ArthurSandbox() as sandbox:
        other = ArthurSandbox(port=int(sandbox.url.rpartition(":")[2]))
        with pytest.raises(OSError, match=r"can't listen on 127\.0\.0\.1:\d+"):
            other.start()


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with ArthurSandbox(host="::1") as sandbox:
        assert sandbox.url.startswith("http://[::1]:")
        assert send(sandbox) == 207


def test_a_name_as_host() -> None:
    with ArthurSandbox(host="localhost") as sandbox:
        assert httpx.get(sandbox.url).status_code == 200


def test_stopping_does_not_wait_for_those_that_hang() -> None:
    with ArthurSandbox(model_id="demo") as sandbox, ThreadPoolExecutor(1) as pool:
        sandbox.faults.hang()
        hung = pool.submit(send, sandbox)
        wait_for(lambda: sandbox.requests)
        begun = time.monotonic()
        sandbox.stop()
        assert time.monotonic() - begun < 1
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            hung.result(5)


def test_stopping_does_not_wait_for_those_that_never_finish_asking() -> None:
    with ArthurSandbox() as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as half:
            half.sendall(b"POST /api/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
            httpx.get(sandbox.url)
            begun = time.monotonic()
            sandbox.stop()
            assert time.monotonic() - begun < 5


def test_stopping_leaves_no_socket_open_of_those_who_come_meanwhile(
    request: pytest.FixtureRequest,
) -> None:
    def keep_coming(port: int, stopped: threading.Event) -> None:
        while not stopped.is_set():
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as coming:
                coming.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")

    gc.freeze()  # what was there before need not be looked through twenty times
    request.addfinalizer(gc.unfreeze)
    # By chance: nearly each time, some of the rounds used to leave one.
    for _ in range(20):
        stopped = threading.Event()
        with ThreadPoolExecutor(2) as threads, ArthurSandbox() as sandbox:
            port = urlsplit(sandbox.url).port
            assert port
            comings = [threads.submit(keep_coming, port, stopped) for _ in range(2)]
            sandbox.stop()
            stopped.set()
            for coming in comings:
                coming.result()
        gc.collect()  # an open socket that is forgotten warns now, which is an error


def test_data_survives(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.sqlite"
    with ArthurSandbox(data=file) as first:
        assert send(first) == 207
        login = {"login": first.login, "password": first.password}
        token = httpx.post(f"{first.url}/api/v3/login", json=login).cookies["Authorization"]
        other = first.add_model(partner_model_id="other")
    assert len(first.inferences) == 1, "what is stored can be read after the end"
    first.stop()
    with ArthurSandbox(data=str(file)) as second:
        assert second.model_id == first.model_id
        assert second.inferences == first.inferences
        headers = {"Authorization": token}
        answer = httpx.get(f"{second.url}/api/v3/models/{other}", headers=headers)
        assert answer.status_code == 200
        assert send(second) == 207
        assert second.duplicates == 1
    first.stop()


def test_data_with_the_model_under_another_id(tmp_path: Path) -> None:
    file = tmp_path / "sandbox.sqlite"
    ArthurSandbox(data=file, model_id="one").stop()
    ArthurSandbox(data=file, model_id="one").stop()
    with pytest.raises(ValueError, match="under the id 'one', not 'two'"):
        ArthurSandbox(data=file, model_id="two")


def test_a_model_of_ones_own() -> None:
    own = {
        "id": "mine",
        "partner_model_id": "my-model",
        "attributes": [attribute("question", "UNSTRUCTURED_TEXT", "PIPELINE_INPUT")],
    }
    with ArthurSandbox(model=own) as sandbox:
        assert sandbox.model_id == "mine"
        headers = {"Authorization": sandbox.api_key}
        model = httpx.get(f"{sandbox.url}/api/v3/models/mine", headers=headers).json()
        assert [each["name"] for each in model["attributes"]] == ["question"]
        assert model["display_name"] == "my-model"
        with pytest.raises(ModelExistsError, match="exists already"):
            sandbox.add_model(partner_model_id="my-model")


def test_many_threads(sandbox: ArthurSandbox) -> None:
    headers = {"Authorization": sandbox.api_key}
    with (
        httpx.Client(base_url=sandbox.url, headers=headers) as client,
        ThreadPoolExecutor(8) as pool,
    ):

        def post(number: int) -> int:
            rows = [row(f"{number}-{index}") for index in range(20)]
            assert len(sandbox.requests) >= 0
            return client.post(INFERENCES, json=[*rows, rows[0]]).status_code

        assert list(pool.map(post, range(40))) == [207] * 40
    assert len(sandbox.inferences) == 800
    assert sandbox.duplicates == 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_wait_returns_on_a_signal(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with ArthurSandbox() as sandbox:
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        assert sandbox.wait() == number
        assert signal.getsignal(number) is before
        assert send(sandbox) == 207


def test_wait_returns_when_the_server_stops() -> None:
    with ArthurSandbox() as sandbox, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sandbox.wait)
        sandbox.stop()
        assert waiting.result(5) is None
        assert sandbox.wait() is None


def test_a_server_that_does_not_come_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: HttpServer) -> None:
        raise OSError

    monkeypatch.setattr(HttpServer, "start", fail)
    sandbox = ArthurSandbox()
    with pytest.raises(RuntimeError, match="did not come up"):
        sandbox.start()


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    """With warnings as errors and logging on: no warning, no log record, no wait at exit."""
    script = f"""
import logging, httpx
logging.basicConfig(level=logging.WARNING)
from arthur_relay.http_server.server import HttpServer
from arthur_relay.sandbox import ArthurSandbox
for data in (None, {str(tmp_path / "file")!r}):
    sandbox = ArthurSandbox(data=data)
    with sandbox:
        sandbox.faults.cut()
        sandbox.faults.cut_midbody()
        sandbox.faults.hang()
        for _ in range(3):
            try:
                httpx.post(
                    f"{{sandbox.url}}/api/v3/models/{{sandbox.model_id}}/inferences",
                    json=[], headers={{"Authorization": sandbox.api_key}}, timeout=0.2,
                )
            except httpx.TransportError:
                pass
    print(len(sandbox.inferences))
ArthurSandbox().start()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("0\n0\n", "", 0)


def test_the_journal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arthur_relay.sandbox.journal.MAX_REQUESTS", 3)
    monkeypatch.setattr("arthur_relay.sandbox.journal.MAX_BODY_BYTES", 10)
    journal = Journal()
    for body in (b"1", b"2", b"3", b"4"):
        journal.arrived(RecordedRequest("GET", "/", "", {}, body))
    assert [each.body for each in journal.requests] == [b"2", b"3", b"4"]
    journal.arrived(RecordedRequest("GET", "/", "", {}, b"123456789"))
    assert [each.body for each in journal.requests] == [b"4", b"123456789"]
    journal.arrived(RecordedRequest("GET", "/", "", {}, b"x" * 11))
    assert journal.requests == []


def test_ticks_outlive_the_loops_that_waited() -> None:
    ticks = Ticks()
    waiting = ticks.wait_past(0)

    async def begin() -> None:
        waiting.send(None)

    asyncio.run(begin())
    ticks.advance()
    assert ticks.count == 1
    waiting.close()


def test_ticks_wake_and_forget() -> None:
    async def scenario() -> None:
        ticks = Ticks()
        both = [asyncio.create_task(ticks.wait_past(0)) for _ in range(2)]
        await asyncio.sleep(0)
        ticks.advance()
        both[0].cancel()
        assert await both[1] == 1
        assert await ticks.wait_past(0) == 1

    asyncio.run(scenario())
