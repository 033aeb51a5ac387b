"""The sandbox as an Arthur Engine: every route, every way of refusing, and what is remembered."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from arthur_relay.destinations.engine.rows import joined
from arthur_relay.sandbox import ArthurSandbox, Role
from arthur_relay.sandbox.engine import store
from tests.destinations.engine.spans import TRACE, row, row_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from arthur_relay.row import Row

pytestmark = pytest.mark.one_python

TASK = "b0d9ad8e-6d2c-4a6e-9f39-7fe6bc9d6c39"
OTHER_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACES = "/api/v1/traces"
TASKS = "/api/v2/tasks"
PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
def sandbox() -> Iterator[ArthurSandbox]:
    with ArthurSandbox(task_id=TASK) as running:
        yield running


@pytest.fixture
def client(sandbox: ArthurSandbox) -> Iterator[httpx.Client]:
    with client_of(sandbox, sandbox.api_key) as opened:
        yield opened


def client_of(sandbox: ArthurSandbox, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=sandbox.url, headers=headers, timeout=10)


def body(*rows: Row) -> bytes:
    return b"".join(joined(each.body for each in rows))


def made(number: int = 1, **options: Any) -> Row:
    return row(number, task=TASK, **options)


def post(client: httpx.Client, *rows: Row) -> httpx.Response:
    return client.post(TRACES, content=body(*rows), headers=PROTOBUF)


def test_good_spans(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    answer = post(client, made(1), made(2))
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "total_spans": 2,
            "accepted_spans": 2,
            "rejected_spans": 0,
            "rejection_reasons": [],
            "status": "success",
        },
    )
    assert (sandbox.state["spans"], sandbox.state["traces"]) == (2, 1)


def test_the_same_bytes_twice_are_stored_twice(
    client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    for _ in range(2):
        assert post(client, made(1)).status_code == 200
    assert len(sandbox.spans) == 2
    assert sandbox.duplicates == 1


def test_an_empty_resource_stores_nothing(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    answer = client.post(TRACES, content=b"\x0a\x00")
    assert (answer.status_code, answer.json()["total_spans"]) == (200, 0)
    assert sandbox.spans == []


def test_what_is_no_protobuf(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    good = body(made(1))
    as_json = json.dumps({"resourceSpans": []}).encode()
    for bad in (gzip.compress(good), as_json, good.replace(b"call", b"c\xff\xffl"), b"", b"\xff"):
        answer = client.post(TRACES, content=bad, headers={**PROTOBUF, "Content-Encoding": "gzip"})
        assert answer.status_code == 400
        assert isinstance(answer.json()["detail"], str)
    assert sandbox.spans == []


REJECTED: dict[str, dict[str, Any]] = {
    "a slash in metadata": {"metadata": '{"a": [{"b/c": 1}]}'},
    "a slash in parameters": {"llm__invocation_parameters": '{"a/b": 1}'},
    "a slash in an attribute's name": {"a/b": "x"},
    "a slash in a JSON value": {
        "input__value": '{"/tmp/file": 1}',
        "input__mime_type": "application/json",
    },
    "a count that is text": {"llm__token_count__total": "7"},
    "a cost that is text": {"llm__cost__total": "7"},
    "deep JSON": {"metadata": "[" * 2000 + "]" * 2000},
}
HARMLESS: dict[str, dict[str, Any]] = {
    "a slash in a text": {"input__value": '{"/tmp/file": 1}'},
    "a slash in a value": {"metadata": '{"a": "b/c"}'},
    "an escape in a text": {"input__value": '"\\u0000"'},
    "JSON that is none": {"metadata": "{"},
    "deep JSON that is text": {"input__value": "[" * 2000},
    "a count of 31 bits": {"llm__token_count__total": 2**31 - 1},
}
POISON: dict[str, dict[str, Any]] = {
    "a NUL in a text": {"input__value": "a\0b"},
    "a NUL in a key": {"a\0b": 1},
    "a NUL in a name": {"name": "a\0b"},
    "a NUL in JSON": {"metadata": '{"a": "\\u0000"}'},
    "NaN": {"a": float("nan")},
    "infinity": {"a": float("inf")},
    "NaN in JSON": {"metadata": '{"a": NaN}'},
    "a surrogate in JSON": {"metadata": '{"a": "\\ud800"}'},
    "a count beyond 32 bits": {"llm__token_count__prompt": 2**31},
    "no start": {"start": 0},
    "no end": {"end": 0},
}


@pytest.mark.parametrize("options", REJECTED.values(), ids=REJECTED)
def test_spans_that_are_rejected(
    options: dict[str, Any], client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    alone = post(client, made(1, **options))
    assert (alone.status_code, alone.json()["status"]) == (422, "failure")
    answer = post(client, made(1, **options), made(2))
    assert (answer.status_code, answer.json()["status"]) == (206, "partial_success")
    assert answer.json()["rejected_spans"] == len(answer.json()["rejection_reasons"]) == 1
    assert [span["span_id"] for span in sandbox.spans] == [row_id(2).partition("-")[2]]
    assert sandbox.state["rejected"] == 2


@pytest.mark.parametrize("options", HARMLESS.values(), ids=HARMLESS)
def test_spans_that_are_taken(options: dict[str, Any], client: httpx.Client) -> None:
    assert post(client, made(1, **options)).status_code == 200


@pytest.mark.parametrize("options", POISON.values(), ids=POISON)
def test_requests_that_are_lost_for_ever(
    options: dict[str, Any], client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    for _ in range(2):
        answer = post(client, made(1, **options), made(2, input__value="quoted"))
        assert answer.status_code == 500
        assert "quoted" in answer.json()["detail"], "as the real one does, which is a trap"
    assert sandbox.spans == []


def test_a_task_that_there_is_not_loses_the_whole_request(
    client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    other = row(2, task=TASK.replace("b0d9", "ffff"))
    assert post(client, made(1), other).status_code == 500
    assert sandbox.spans == []


def test_a_task_by_its_services_name(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    taken = sandbox.add_task("bot")
    post(client, row(1, task="bot"), row(2, task="bot"))
    (task_id,) = {span["task_id"] for span in sandbox.spans}
    assert task_id != taken, "names are not unique: a second task of that name is made"
    found = client.post(f"{TASKS}/search", json={"task_name": "bot"}).json()
    assert {each["id"] for each in found["tasks"]} == {taken, task_id}


ROLES: dict[Role, tuple[int, int, int, int]] = {
    # To write, to read, to annotate, to read tasks.
    Role.ORG_ADMIN: (200, 200, 200, 200),
    Role.TASK_ADMIN: (200, 200, 200, 200),
    Role.ORG_AUDITOR: (403, 200, 403, 200),
    Role.TENANT_USER: (403, 200, 200, 403),
    Role.VALIDATION_USER: (200, 403, 200, 403),
    Role.CHAT_USER: (200, 403, 200, 403),
    Role.ADMIN_KEY: (403, 200, 403, 200),
}


@pytest.mark.parametrize("role", ROLES)
def test_roles(role: Role, client: httpx.Client, sandbox: ArthurSandbox) -> None:
    post(client, made(1))
    sandbox.engine_keys["key"] = role
    with client_of(sandbox, "key") as other:
        statuses = (
            post(other, made(2)).status_code,
            other.get(f"{TRACES}/{TRACE}").status_code,
            other.post(f"{TRACES}/{TRACE}/annotations", json={"annotation_score": 1}).status_code,
            other.get(f"{TASKS}/{TASK}").status_code,
        )
    assert statuses == ROLES[role]


@pytest.mark.parametrize("given", [None, "Bearer wrong", "sandbox-key", "Basic sandbox-key"])
def test_without_a_key(given: str | None, sandbox: ArthurSandbox) -> None:
    headers = {} if given is None else {"Authorization": given}
    answer = httpx.post(f"{sandbox.url}{TRACES}", content=b"\x0a\x00", headers=headers)
    assert (answer.status_code, list(answer.json())) == (401, ["detail"])
    assert httpx.get(f"{sandbox.url}/health").status_code == 200


def test_spans_by_their_ids(client: httpx.Client) -> None:
    post(client, *[made(n) for n in range(1, 61)])
    ids = [row_id(n).partition("-")[2] for n in (1, 2, 99)]
    query: dict[str, Any] = {"task_ids": TASK, "span_ids": ids, "page_size": 50}
    found = client.get(f"{TRACES}/spans", params=query).json()
    assert found["count"] == 2
    assert {(each["trace_id"], each["span_id"]) for each in found["spans"]} == {
        (TRACE, ids[0]),
        (TRACE, ids[1]),
    }
    whole = client.get(f"{TRACES}/spans", params={"task_ids": TASK, "page": 1, "page_size": 50})
    assert (whole.json()["count"], len(whole.json()["spans"])) == (60, 10)
    elsewhere = {**query, "task_ids": TASK.replace("b0d9", "ffff")}
    assert client.get(f"{TRACES}/spans", params=elsewhere).json()["count"] == 0
    assert client.get(f"{TRACES}/spans", params={"span_ids": ids}).status_code == 400
    assert client.get(f"{TRACES}/spans", params={**query, "page_size": 0}).status_code == 400
    assert client.get(f"{TRACES}/spans", params={**query, "page": "x"}).status_code == 400


def test_a_span_by_its_id(client: httpx.Client) -> None:
    post(client, made(1, input__value="in"))
    span_id = row_id(1).partition("-")[2]
    found = client.get(f"{TRACES}/spans/{span_id}").json()
    assert (found["span_kind"], found["input_content"]) == ("LLM", "in")
    assert found["raw_data"]["attributes"]["openinference.span.kind"] == "LLM"
    assert client.get(f"{TRACES}/spans/nowhere").status_code == 404


def test_a_trace_is_a_tree_whatever_the_order(client: httpx.Client) -> None:
    second = 1_000_000_000
    start = 1_700_000_000 * second
    post(client, made(3, parent=1, start=start + 2 * second, llm__token_count__total=5))
    post(client, made(4, parent=3), made(2, parent=1, start=start + second))
    before = client.get(f"{TRACES}/{TRACE}").json()
    assert (before["input_content"], before["total_token_count"]) == (None, 5), "no root yet"
    post(client, made(1, start=start, input__value="in", output__value="out", session__id="s"))
    found = client.get(f"{TRACES}/{TRACE}").json()
    assert (found["input_content"], found["output_content"]) == ("in", "out")
    assert (found["session_id"], found["span_count"]) == ("s", 4)
    (root,) = found["root_spans"]
    assert [child["span_id"][-1] for child in root["children"]] == ["2", "3"]
    assert [child["span_id"][-1] for child in root["children"][1]["children"]] == ["4"]
    assert client.get(f"{TRACES}/{TRACE.upper()}").status_code == 404


def test_of_several_roots_the_last_requests_counts(client: httpx.Client) -> None:
    post(client, made(1, input__value="first"))
    post(client, made(2, input__value="second"))
    assert client.get(f"{TRACES}/{TRACE}").json()["input_content"] == "second"


def test_parents_in_a_circle_are_shown_once_each(client: httpx.Client) -> None:
    post(client, made(1, parent=2), made(2, parent=1), made(3, parent=3), made(4, parent=9))
    found = client.get(f"{TRACES}/{TRACE}").json()["root_spans"]
    shown = []
    while found:
        found += (span := found.pop())["children"]
        shown.append(span["span_id"][-1])
    assert sorted(shown) == ["1", "2", "3", "4"]


def test_annotations(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    path = f"{TRACES}/{TRACE}/annotations"
    assert client.post(path, json={"annotation_score": 1}).status_code == 404
    post(client, made(1))
    first = client.post(path, json={"annotation_score": 1, "annotation_description": "good"})
    second = client.post(path, json={"annotation_score": 0})
    assert (first.status_code, second.status_code) == (200, 200)
    (found,) = sandbox.traces[0]["annotations"]
    assert (found["annotation_score"], found["annotation_description"]) == (0, None)
    refused: list[Any] = [
        {},
        {"annotation_score": 2},
        {"annotation_score": True},
        {"annotation_score": [1]},
        {"annotation_score": 1, "annotation_description": "a\0b"},
        {"annotation_score": 1, "annotation_description": 7},
        [],
    ]
    for bad in refused:
        assert client.post(path, json=bad).status_code == 400


def test_tasks(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    assert client.get(f"{TASKS}/{TASK}").json()["id"] == TASK
    assert client.get(f"{TASKS}/{TASK.replace('b0d9', 'ffff')}").status_code == 404
    assert client.get(f"{TASKS}/bot").status_code == 400
    made_ = client.post(TASKS, json={"name": "My Bot"})
    assert client.post(TASKS, json={"name": " "}).status_code == 400
    found = client.post(f"{TASKS}/search", json={"task_name": "bot"}).json()
    assert [each["id"] for each in found["tasks"]] == [made_.json()["id"]]
    assert client.post(f"{TASKS}/search", json={}).json()["count"] == 2
    for bad in ("no uuid", TASK):
        with pytest.raises(ValueError, match=r"UUID|already"):
            sandbox.add_task("bot", task_id=bad)


def test_routes_that_there_are_not(client: httpx.Client) -> None:
    for method, path in (("GET", "/api/v1/nothing"), ("PUT", TRACES), ("GET", "/api/v2/x")):
        answer = client.request(method, path)
        assert answer.status_code in (404, 405)
        assert list(answer.json()) == ["detail"]


def test_413() -> None:
    with (
        ArthurSandbox(task_id=TASK, max_body_bytes=10) as small,
        client_of(small, small.api_key) as client,
    ):
        assert post(client, made(1)).status_code == 413


def test_faults(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(503, retry_after=3)
    answer = post(client, made(1))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "3")
    assert list(answer.json()) == ["detail"]
    sandbox.faults.cut(store=True)
    with pytest.raises(httpx.HTTPError):
        post(client, made(2))
    assert len(sandbox.spans) == 1
    sandbox.faults.wrong_counts(1)
    assert post(client, made(3)).json()["accepted_spans"] == 2
    sandbox.faults.fail_rows([200, 400], times=1)
    assert post(client, made(4), made(5)).json()["rejected_spans"] == 1
    sandbox.faults.fail_rows(containing=row_id(6))
    assert post(client, made(6)).status_code == 422
    sandbox.faults.reset()
    sandbox.faults.status(500, times=None, routes=["spans", "tasks"])
    assert client.get(f"{TASKS}/{TASK}").status_code == 500
    assert client.get(f"{TRACES}/{TRACE}").status_code == 500
    assert post(client, made(7)).status_code == 200
    assert sandbox.state["requests"]["traces"]["200"] == 2


def test_what_is_kept_is_bounded(
    client: httpx.Client, sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_SPANS", 3)
    post(client, made(9, trace=OTHER_TRACE))
    client.post(f"{TRACES}/{OTHER_TRACE}/annotations", json={"annotation_score": 1})
    for number in range(1, 6):
        post(client, made(number))
    assert [span["span_id"][-1] for span in sandbox.spans] == ["3", "4", "5"]
    assert client.get(f"{TRACES}/{OTHER_TRACE}").status_code == 404
    monkeypatch.setattr(store, "MAX_SPAN_BYTES", 1)
    post(client, made(6))
    assert sandbox.spans == []


def test_the_pages_list_and_tree(client: httpx.Client) -> None:
    for number in range(1, 4):
        post(client, made(number, trace=f"{number:032x}", input__value="t" * 2000))
    first = client.get("/sandbox/traces", params={"limit": 2}).json()
    assert [trace["trace_id"][-1] for trace in first["traces"]] == ["3", "2"]
    assert len(first["traces"][0]["input_content"]) == 600
    assert "root_spans" not in first["traces"][0]
    rest = client.get("/sandbox/traces", params={"before": first["next"]}).json()
    assert [trace["trace_id"][-1] for trace in rest["traces"]] == ["1"]
    assert rest["next"] is None
    whole = client.get(f"/sandbox/traces/{1:032x}").json()
    assert len(whole["root_spans"][0]["input_content"]) == 2000
    assert client.get("/sandbox/traces/nothing").status_code == 404


def test_its_environment(sandbox: ArthurSandbox) -> None:
    assert sandbox.engine_environment() == {
        "ARTHUR_BASE_URL": sandbox.url,
        "ARTHUR_API_KEY": "sandbox-key",
        "ARTHUR_TASK_ID": TASK,
    }
    assert sandbox.engine_environment(api_key="other")["ARTHUR_API_KEY"] == "other"


def test_what_it_has_outlives_an_outage(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    post(client, made(1))
    sandbox.go_away()
    sandbox.come_back()
    assert len(sandbox.spans) == 1


def test_values_of_every_kind(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    request = ExportTraceServiceRequest()
    request.ParseFromString(body(made(1)))
    span = request.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="none")
    span.attributes.add(key="bytes").value.bytes_value = b"\x01"
    span.attributes.add(key="list").value.array_value.values.add().double_value = 0.5
    span.attributes.add(key="map").value.kvlist_value.values.add(key="k").value.bool_value = True
    span.events.add(name="exception", time_unix_nano=1_500_000_000)
    span.status.code = 2
    span.status.message = "it broke"
    assert client.post(TRACES, content=request.SerializeToString()).status_code == 200
    (found,) = sandbox.spans
    attributes = found["raw_data"]["attributes"]
    assert [attributes[key] for key in ("none", "bytes", "list", "map")] == [
        None,
        "01",
        [0.5],
        {"k": True},
    ]
    assert (found["status_code"], found["status_message"]) == ("Error", "it broke")
    assert found["raw_data"]["events"] == [
        {"name": "exception", "timestamp": 1.5, "attributes": {}}
    ]
    assert sandbox.traces[0]["has_error"]
