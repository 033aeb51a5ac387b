"""The intake of spans: what is acknowledged is safe, and arrives as it was sent."""

from __future__ import annotations

import gzip
import json
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf.json_format import MessageToDict

from arthur_relay.destinations.engine.feedback import read_feedback
from arthur_relay.sandbox import ArthurSandbox
from tests.daemon.process import DaemonProcess
from tests.daemon.traces import PROTOBUF, TRACE, TRACES, body, hex_id, request, span, stored
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GOOD = {
    "total_spans": 2,
    "accepted_spans": 2,
    "rejected_spans": 0,
    "rejection_reasons": [],
    "status": "success",
}


@pytest.mark.parametrize("path", [TRACES, "/v1/traces"])
def test_spans_are_acknowledged_and_delivered(
    path: str, engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    sent = body(1, 2, task=sandbox.task_id)
    answer = engine_daemon.client().post(path, content=sent, headers=PROTOBUF)
    assert (answer.status_code, answer.json()) == (200, GOOD)
    wait_for(lambda: stored(sandbox) == [hex_id(1), hex_id(2)])
    assert {each["task_id"] for each in sandbox.spans} == {sandbox.task_id}
    sent_on = [each for each in sandbox.requests if each.path == TRACES and len(each.body) > 2]
    assert [each.body for each in sent_on] == [sent]
    assert "content-encoding" not in sent_on[0].headers
    assert engine_daemon.end() == 0, engine_daemon.log


def test_gzip_and_json_are_taken_in(engine_daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    client = engine_daemon.client()
    zipped = gzip.compress(body(1, task=sandbox.task_id))
    headers = {**PROTOBUF, "Content-Encoding": "gzip"}
    assert client.post(TRACES, content=zipped, headers=headers).status_code == 200
    given: dict[str, Any] = MessageToDict(request(span(2, name="of JSON"), service__name="bot"))
    for each in given["resourceSpans"][0]["scopeSpans"][0]["spans"]:
        each["traceId"], each["spanId"] = TRACE, hex_id(2)
        each["kind"] = 3
    assert client.post(TRACES, json=given).json()["accepted_spans"] == 1
    plain = json.dumps({**given, "unknown": 1}).encode()
    both = {"Content-Type": "application/json; charset=utf-8", "Content-Encoding": "gzip"}
    assert client.post(TRACES, content=gzip.compress(plain), headers=both).status_code == 200
    wait_for(lambda: len(stored(sandbox)) == 2)  # what is sent again is stored once
    assert stored(sandbox) == [hex_id(1), hex_id(2)]
    found = sandbox.spans[1]
    assert (found["trace_id"], found["span_name"]) == (TRACE, "of JSON")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"\x0a\x00", PROTOBUF, 200),
        (b"", PROTOBUF, 400),
        (b"\x0a\xff", PROTOBUF, 400),
        (b"[{}]", {"Content-Type": "application/json"}, 400),
        (b'{"resourceSpans": 3}', {"Content-Type": "application/json"}, 400),
        (b"\x0a\x00", {"Content-Type": "text/plain"}, 415),
        (b"\x0a\x00", {}, 415),
        (b"\x0a\x00", {**PROTOBUF, "Content-Encoding": "br"}, 415),
        (b"\x0a\x00", {**PROTOBUF, "Content-Encoding": "gzip"}, 400),
        (gzip.compress(b"\x0a\x00", mtime=0)[:-9], {**PROTOBUF, "Content-Encoding": "gzip"}, 400),
        (gzip.compress(bytes(1 << 22), mtime=0), {**PROTOBUF, "Content-Encoding": "gzip"}, 413),
        (bytes(1 << 21), PROTOBUF, 413),
    ],
)
def test_bodies_that_are_no_spans(
    content: bytes,
    headers: dict[str, str],
    status: int,
    start_for_engine: Callable[..., DaemonProcess],
) -> None:
    daemon = start_for_engine(ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES=str(1 << 20)).wait_until_ready()
    answer = daemon.client().post(TRACES, content=content, headers=headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["detail"]


def test_spans_that_never_can_be_are_refused_one_by_one(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    odd = span(3)
    odd.trace_id = b"short"
    none = span(4)
    none.ClearField("span_id")
    sent = request(span(1), odd, none, span(2), arthur__task=sandbox.task_id)
    more = request(span(5), arthur__task="no-uuid").SerializeToString()
    unknown = body(6, task="11111111-1111-4111-8111-111111111111")
    content = sent.SerializeToString() + more + unknown
    answer = engine_daemon.client().post(TRACES, content=content, headers=PROTOBUF)
    assert answer.status_code == 206
    assert answer.json() == {
        "total_spans": 6,
        "accepted_spans": 2,
        "rejected_spans": 4,
        "rejection_reasons": [
            "the trace id must have 16 bytes, not all of them 0",
            "the span id must have 8 bytes, not all of them 0",
            "arthur.task must be the id of a task, which is a UUID",
            "the Engine has no such task",
        ],
        "status": "partial_success",
    }
    answer = engine_daemon.client().post(TRACES, content=more, headers=PROTOBUF)
    assert (answer.status_code, answer.json()["status"]) == (422, "failure")
    wait_for(lambda: stored(sandbox) == [hex_id(1), hex_id(2)])


def test_tasks_by_names_and_by_none(engine_daemon: DaemonProcess, sandbox: ArthurSandbox) -> None:
    content = (
        request(span(1), service__name="a bot").SerializeToString()
        + request(span(2)).SerializeToString()
        + body(3, task=sandbox.task_id)
    )
    answer = engine_daemon.client().post(TRACES, content=content, headers=PROTOBUF)
    assert answer.json()["accepted_spans"] == 3
    wait_for(lambda: len(stored(sandbox)) == 3)
    assert len({each["task_id"] for each in sandbox.spans}) == 3
    models = engine_daemon.client().get("/status").json()["models"]
    assert {each["id"] for each in models} == {"a bot", "Unmapped", sandbox.task_id}


def test_spans_without_times_cost_no_other(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    content = body(1, task=sandbox.task_id, start=0, end=0) + body(2, 3, task=sandbox.task_id)
    answer = engine_daemon.client().post(TRACES, content=content, headers=PROTOBUF)
    assert answer.json()["accepted_spans"] == 3
    wait_for(lambda: len(stored(sandbox)) == 3)
    assert "arthur_relay_intake_repaired_total 1" in engine_daemon.client().get("/metrics").text


def test_a_poisoned_span_costs_no_other(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    content = body(1, 2, task=sandbox.task_id) + body(
        3, task=sandbox.task_id, llm__token_count__prompt=1 << 40
    )
    answer = engine_daemon.client().post(TRACES, content=content, headers=PROTOBUF)
    assert answer.status_code == 200
    client = engine_daemon.client()
    wait_for(lambda: client.get("/status").json()["rows"]["pending"] == 0)
    assert {hex_id(1), hex_id(2)} <= set(stored(sandbox))
    rows = client.get("/status").json()["rows"]
    assert rows["delivered"] == len(stored(sandbox))
    assert rows["delivered"] + rows["rejected"] == 3


def test_feedback_goes_behind_its_trace(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    client = engine_daemon.client()
    sandbox.go_away()
    client.post(TRACES, content=body(1, task=sandbox.task_id), headers=PROTOBUF)
    judged = {"annotation_score": 1, "annotation_description": "good"}
    answer = client.post(f"{TRACES}/{TRACE}/annotations", json=judged)
    assert (answer.status_code, answer.json()["trace_id"]) == (200, TRACE)
    sandbox.come_back()
    wait_for(lambda: sandbox.annotations)
    assert sandbox.annotations[0]["annotation_description"] == "good"
    for given, status in (
        ({"annotation_score": 2}, 400),
        ({"annotation_score": True}, 400),
        ({"annotation_score": 1, "annotation_description": 7}, 400),
        ([], 400),
    ):
        assert client.post(f"{TRACES}/{TRACE}/annotations", json=given).status_code == status
    assert client.post(f"{TRACES}/{TRACE[:-1]}/annotations", json=judged).status_code == 404


def test_feedback_is_kept_with_the_time_when_it_came(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox, tmp_path: Path
) -> None:
    client = engine_daemon.client()
    sandbox.go_away()
    began_at = time.time()
    for score in (1, 0):  # what the client says of the time is not believed
        judged = {"annotation_score": score, "known_at": 9e9}
        assert client.post(f"{TRACES}/{TRACE}/annotations", json=judged).status_code == 200
    engine_daemon.end(signal.SIGKILL)
    (path,) = tmp_path.rglob("*.spool")
    with closing(sqlite3.connect(path)) as spool:
        bodies = [body for (body,) in spool.execute("SELECT body FROM rows ORDER BY rowid")]
    assert [json.loads(read_feedback(body).body)["annotation_score"] for body in bodies] == [1, 0]
    times = [read_feedback(body).known_at or 0 for body in bodies]
    assert began_at <= times[0] <= times[1] <= time.time()


def test_feedback_may_be_as_long_as_a_handler_sends_it(
    start_for_engine: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    rows = {"ARTHUR_RELAY_DAEMON_MAX_ROW_BYTES": "1100000"}
    client = start_for_engine(**rows).wait_until_ready().client()
    client.post(TRACES, content=body(1, task=sandbox.task_id), headers=PROTOBUF)
    for length, status in ((1_000_000, 200), (1_100_000, 400)):
        judged = {"annotation_score": 1, "annotation_description": "x" * length}
        answer = client.post(f"{TRACES}/{TRACE}/annotations", json=judged)
        assert answer.status_code == status
    assert "1100000 are allowed" in answer.json()["detail"]
    wait_for(lambda: sandbox.annotations)
    assert sandbox.annotations[0]["annotation_description"] == "x" * 1_000_000


def test_a_daemon_for_the_engine_takes_no_inferences(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    found = engine_daemon.client().post(f"/api/v3/models/{sandbox.model_id}/inferences", json=[])
    assert (found.status_code, found.json()["arthur_relay"]) == (404, True)
    assert "delivers to Arthur Engine" in found.json()["error"]


def test_a_daemon_for_scope_takes_no_spans(daemon: DaemonProcess) -> None:
    found = daemon.client().post("/v1/traces", content=b"\x0a\x00", headers=PROTOBUF)
    assert (found.status_code, found.json()["arthur_relay"]) == (404, True)
    assert "delivers to Arthur Scope" in found.json()["detail"]
    found = daemon.client().get("/api/v3/nothing")
    assert (found.status_code, found.json()) == (404, {"error": "the daemon has no such route"})


def test_a_span_that_is_too_large_for_the_engine_is_cut(tmp_path: Path) -> None:
    with (
        ArthurSandbox(max_body_bytes=50_000) as sandbox,
        DaemonProcess(sandbox, tmp_path, for_engine=True) as daemon,
    ):
        client = daemon.wait_until_ready().client()
        content = body(1, task=sandbox.task_id, input__value="x" * 90_000)
        assert client.post(TRACES, content=content, headers=PROTOBUF).status_code == 200
        wait_for(lambda: stored(sandbox) == [hex_id(1)])
        assert "cut by arthur-relay" in sandbox.spans[0]["raw_data"]["attributes"]["input.value"]


def test_the_spans_of_a_request_are_of_few_tasks(engine_daemon: DaemonProcess) -> None:
    content = b"".join(
        request(span(number), service__name=f"bot {number}").SerializeToString()
        for number in range(1, 102)
    )
    answer = engine_daemon.client().post(TRACES, content=content, headers=PROTOBUF)
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "the spans are of more than 100 tasks",
    )


def test_without_room_spans_are_put_off(
    start_for_engine: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    sandbox.go_away()
    daemon = start_for_engine(
        ARTHUR_RELAY_SPOOL_BYTES="4000000", ARTHUR_RELAY_DAEMON_MAX_BODY_BYTES="2000000"
    ).wait_until_ready()
    client = daemon.client()
    statuses = []
    for number in range(1, 9):
        content = body(number, task=sandbox.task_id, text="x" * 900_000)
        answer = client.post(TRACES, content=content, headers=PROTOBUF)
        statuses.append(answer.status_code)
    assert statuses[0] == 200
    assert (statuses[-1], answer.headers["retry-after"]) == (503, "5")
    taken = statuses.count(200)
    sandbox.come_back()
    wait_for(lambda: len(stored(sandbox)) == taken)


def test_feedback_outlives_the_daemon(
    start_for_engine: Callable[..., DaemonProcess], sandbox: ArthurSandbox
) -> None:
    sandbox.go_away()
    first = start_for_engine().wait_until_ready()
    client = first.client()
    client.post(TRACES, content=body(1, 2, task=sandbox.task_id), headers=PROTOBUF)
    judged = {"annotation_score": 0, "annotation_description": None}
    assert client.post(f"{TRACES}/{TRACE}/annotations", json=judged).status_code == 200
    first.end(signal.SIGKILL)
    sandbox.come_back()
    start_for_engine().wait_until_ready()
    wait_for(lambda: sandbox.annotations)
    assert stored(sandbox) == [hex_id(1), hex_id(2)]
    assert sandbox.annotations[0]["annotation_score"] == 0
