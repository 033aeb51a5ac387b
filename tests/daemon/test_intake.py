"""The intake over a Unix socket: what is acknowledged is safe, arrives as it was sent, and once."""

from __future__ import annotations

import json
import re
import socket
from typing import TYPE_CHECKING, Any

import pytest

from tests.daemon.process import DaemonProcess, arrived, row
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox


def path(sandbox: ArthurSandbox) -> str:
    return f"/api/v3/models/{sandbox.model_id}/inferences"


def sent_rows(sandbox: ArthurSandbox, method: str = "POST") -> list[bytes]:
    return [
        each.body
        for each in sandbox.requests
        if each.method == method and each.path.endswith("/inferences")
    ]


def test_rows_are_acknowledged_and_delivered(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    answer = daemon.client().post(path(sandbox), json=[row("a"), row("b")])
    assert answer.status_code == 207
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "counts": {"success": 2, "failure": 0, "total": 2},
        "results": [{"message": "success", "status": 200}] * 2,
    }
    wait_for(lambda: arrived(sandbox) == ["a", "b"])
    assert daemon.end() == 0, daemon.log


def test_rows_go_on_byte_for_byte(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    odd = json.dumps(row("a", output_text="Grüße 🙂"), ensure_ascii=False, indent=3).encode()
    other = b'{"partner_inference_id":"b","inference_data":{},"x":1.0E+5,"x":"\\u0041\\/"}'
    body = b"\r\n [ %b\t,\n%b] " % (odd, other)
    assert daemon.client().post(path(sandbox), content=body).status_code == 207
    wait_for(lambda: sent_rows(sandbox))
    wait_for(lambda: daemon.process.poll() is not None or sandbox.requests[-1].status is not None)
    assert sent_rows(sandbox) == [b"[%b,%b]" % (odd, other)]


def test_rows_that_never_can_be_are_refused_one_by_one(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    sent: list[Any] = [row("a"), {"x": 1}, 3, row(""), {"partner_inference_id": 7}, row("b")]
    answer = daemon.client().post(path(sandbox), json=sent).json()
    assert answer["counts"] == {"success": 2, "failure": 4, "total": 6}
    assert [each["status"] for each in answer["results"]] == [200, 400, 400, 400, 400, 200]
    assert [each["message"] for each in answer["results"][1:5]] == [
        "partner_inference_id is required",
        "the row must be an object",
        "partner_inference_id is required",
        "partner_inference_id must be a string",
    ]
    wait_for(lambda: arrived(sandbox) == ["a", "b"])


def test_rows_that_arthur_could_not_read_cost_no_other(
    daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    def line(inference_id: str, more: str) -> str:
        return json.dumps(row(inference_id))[:-1] + f', "more": {more}}}'

    bad = ["NaN", "1e400", '"\\ud800"', "1" * 5000, "[" * 300 + "]" * 300]
    lines = [line("a", "1"), *[line(str(n), more) for n, more in enumerate(bad)], line("b", "2")]
    nothing: list[Any] = [None, "x", []]
    lines += [json.dumps({**row("c"), "inference_data": data}) for data in nothing]
    answer = daemon.client().post(path(sandbox), content=f"[{','.join(lines)}]").json()
    assert [each["status"] for each in answer["results"]] == [200, *[400] * 5, 200, *[400] * 3]
    wait_for(lambda: arrived(sandbox) == ["a", "b"])


def test_ground_truth_is_relayed(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    client = daemon.client()
    truth = {
        "partner_inference_id": "a",
        "ground_truth_timestamp": "2026-06-07T12:00:13Z",
        "ground_truth_data": {"thumbs_up": True},
    }
    assert client.post(path(sandbox), json=[row("a")]).status_code == 207
    assert client.patch(path(sandbox), json=[truth]).json()["counts"]["success"] == 1
    wait_for(
        lambda: (
            [each.get("ground_truth_data") for each in sandbox.inferences] == [{"thumbs_up": True}]
        )
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"{}", 400), (b"[1", 400), (b'[{"a": 01}]', 400), (b"[] x", 400), (b"[]", 207)],
)
def test_bodies_that_are_no_rows(
    body: bytes, status: int, daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    answer = daemon.client().post(path(sandbox), content=body)
    assert answer.status_code == status
    if status == 207:
        assert answer.json() == {
            "counts": {"success": 0, "failure": 0, "total": 0},
            "results": [],
        }


def test_limits(start: Callable[..., DaemonProcess], sandbox: ArthurSandbox) -> None:
    daemon = start(
        ARTHUR_RELAY_DAEMON_MAX_ROWS="3",
        ARTHUR_RELAY_DAEMON_MAX_ROW_BYTES="1024",
        ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES="4096",
    ).wait_until_ready()
    client = daemon.client()
    assert client.post(path(sandbox), json=[row("a")] * 4).status_code == 413
    assert client.post(path(sandbox), json=[row("a", output_text="x" * 5000)]).status_code == 413

    def endless() -> Any:
        for _ in range(1000):
            yield b"[" * 1000

    assert client.post(path(sandbox), content=endless()).status_code == 413
    answer = client.post(path(sandbox), json=[row("a", output_text="x" * 1024), row("b")]).json()
    assert [each["status"] for each in answer["results"]] == [413, 200]
    packed = {"Content-Encoding": "gzip"}
    assert client.post(path(sandbox), content=b"x", headers=packed).status_code == 415
    wait_for(lambda: arrived(sandbox) == ["b"])


def test_arthur_is_away_for_the_whole_run(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start().wait_until_ready()
    sandbox.go_away()
    for number in range(5):
        sent = [row(f"i{number}-{each}") for each in range(100)]
        assert daemon.client().post(path(sandbox), json=sent).status_code == 207
    assert daemon.client().get("/readyz").status_code == 200, "Arthur's outage does not matter"
    assert daemon.end() == 0, daemon.log
    assert "500 stay in the spool" in daemon.log
    assert arrived(sandbox) == []
    sandbox.come_back()
    start().wait_until_ready()
    wait_for(lambda: len(arrived(sandbox)) == 500)


@pytest.mark.parametrize("body", [b"", b"[]", b"[" * 60_000, b'{"login"', b"\xff"])
def test_a_login_that_is_none(body: bytes, daemon: DaemonProcess) -> None:
    client = daemon.client()
    assert client.post("/api/v3/login", content=body).status_code == 400
    assert client.post("/api/v3/login", content=b"x" * 100_000).status_code == 413
    assert client.post("/api/v3/login", json={"login": "a", "password": "b"}).status_code == 200


def test_routes_that_there_are_not(daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    client = daemon.client()
    assert client.get("/api/v3/organizations").json() == {"error": "the daemon has no such route"}
    answer = client.delete(path(sandbox))
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) >= {"PATCH", "POST"}
    long_name = "m" * 300
    assert client.post(f"/api/v3/models/{long_name}/inferences", json=[]).status_code == 404
    wrong = client.get(f"/api/v3/models/{sandbox.model_id}?id_type=name")
    assert wrong.status_code == 400
    told = client.get("/api/v3/users/me/auth_info").json()
    assert told["organization_ids"] == [client.get("/api/v3/users/me").json()["organization_id"]]


def test_bodies_of_all_requests_share_a_bound(
    start: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    daemon = start(
        ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES="4096", ARTHUR_RELAY_DAEMON_MAX_INTAKE_BYTES="5000"
    ).wait_until_ready()
    head = f"POST {path(sandbox)} HTTP/1.1\r\nHost: x\r\nContent-Length: 4000\r\n\r\n{'[':3900}"
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(str(daemon.socket))
        slow.sendall(head.encode())
        big = [row("a", output_text="x" * 2000)]
        client = daemon.client()
        wait_for(lambda: client.post(path(sandbox), json=big).status_code == 503)
        answer = client.post(path(sandbox), json=big)
        assert answer.json() == {
            "error": "too much is coming in at once (ARTHUR_RELAY_DAEMON_MAX_INTAKE_BYTES)"
        }
        assert answer.headers["retry-after"] == "1"
    wait_for(lambda: client.post(path(sandbox), json=big).status_code == 207)


def test_the_collector_does_not_look_at_rows_all_the_time(
    sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    tell = """
import atexit, gc
atexit.register(lambda: print("rounds:", gc.get_stats()[0]["collections"] - before, flush=True))
freeze = gc.freeze
def gc_freeze():
    global before
    freeze()
    before = gc.get_stats()[0]["collections"]
gc.freeze = gc_freeze
"""
    with DaemonProcess(sandbox, tmp_path, before=tell) as daemon:
        client = daemon.wait_until_ready().client()
        for each in range(20):
            sent = [row(f"{each}-{number}") for number in range(500)]
            assert client.post(path(sandbox), json=sent).status_code == 207
        assert daemon.end() == 0
    rounds = re.search(r"rounds: (\d+)", daemon.log)
    assert rounds is not None
    assert int(rounds[1]) < 10, "with the default of Python 3.11 it is 55"
