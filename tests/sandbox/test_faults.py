"""Every fault, as a client meets it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.waiting import wait_for

from .rows import INFERENCES, row, truth

if TYPE_CHECKING:
    from arthur_relay.sandbox import ArthurSandbox

FAULTS = "/sandbox/faults"


def send(client: httpx.Client, *ids: str) -> httpx.Response:
    return client.post(INFERENCES, json=[row(each) for each in ids or ("a",)])


def stored(sandbox: ArthurSandbox) -> list[str]:
    return [each["partner_inference_id"] for each in sandbox.inferences]


def test_slow(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.slow(0.2, times=1)
    begun = time.monotonic()
    assert send(client).status_code == 207
    assert time.monotonic() - begun >= 0.2
    assert sandbox.faults.active == []


def test_slow_goes_with_other_faults(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.slow(0.05)
    sandbox.faults.slow(0.05)
    sandbox.faults.status(500)
    begun = time.monotonic()
    assert send(client).status_code == 500
    assert time.monotonic() - begun >= 0.1


@pytest.mark.parametrize("store", [False, True])
def test_hang_until_reset(client: httpx.Client, sandbox: ArthurSandbox, store: bool) -> None:
    sandbox.faults.hang(times=1, store=store)
    changed = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        hung = pool.submit(send, client)
        while not sandbox.requests or (store and not sandbox.inferences):
            changed.wait(0.005)
        assert stored(sandbox) == (["a"] if store else [])
        assert not hung.done()
        sandbox.faults.reset()
        assert hung.result(5).status_code == 207
    assert stored(sandbox) == ["a"]
    assert sandbox.duplicates == 0


def test_a_hang_that_is_spent_still_ends_with_reset_only(
    client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    sandbox.faults.hang(times=1)
    with pytest.raises(httpx.ReadTimeout):
        client.post(INFERENCES, json=[row()], timeout=0.1)
    assert send(client, "b").status_code == 207
    assert stored(sandbox) == ["b"]


def test_a_client_that_hangs_up(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.slow(60)
    with pytest.raises(httpx.ReadTimeout):
        client.post(INFERENCES, json=[row()], timeout=0.1)
    sandbox.faults.reset()
    wait_for(lambda: sandbox.state["requests"])
    assert sandbox.state["requests"] == {"inferences": {"none": 1}}
    assert sandbox.requests[0].status is None
    assert stored(sandbox) == []


def test_a_client_that_hangs_up_within_its_request(sandbox: ArthurSandbox) -> None:
    def body() -> Any:
        yield b"["
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        httpx.post(sandbox.url + INFERENCES, content=body())
    assert sandbox.requests == []


def test_status_times_and_order(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(503, retry_after="soon", times=2)
    sandbox.faults.status(429, retry_after=1.5)
    answers = [send(client) for _ in range(4)]
    assert [each.status_code for each in answers] == [503, 503, 429, 207]
    assert answers[0].headers["Retry-After"] == "soon"
    assert answers[2].headers["Retry-After"] == "1.5"
    assert answers[0].json()["error"]
    assert sandbox.state["requests"] == {"inferences": {"503": 2, "429": 1, "207": 1}}
    assert stored(sandbox) == ["a"]


def test_status_that_stores(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(500, store=True)
    assert send(client).status_code == 500
    assert stored(sandbox) == ["a"]


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body(client: httpx.Client, sandbox: ArthurSandbox, status: int) -> None:
    sandbox.faults.status(status)
    answer = send(client)
    assert (answer.status_code, answer.content) == (status, b"")


def test_redirect(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.redirect("https://elsewhere.invalid/")
    answer = send(client)
    assert answer.status_code == 307
    assert answer.headers["Location"] == "https://elsewhere.invalid/"


@pytest.mark.parametrize("store", [False, True])
def test_not_json(client: httpx.Client, sandbox: ArthurSandbox, store: bool) -> None:
    sandbox.faults.not_json(store=store)
    answer = send(client)
    assert answer.status_code == 207
    assert answer.headers["Content-Type"] == "text/html"
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()
    assert stored(sandbox) == (["a"] if store else [])


@pytest.mark.parametrize("store", [False, True])
def test_cut(client: httpx.Client, sandbox: ArthurSandbox, store: bool) -> None:
    sandbox.faults.cut(store=store)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        send(client)
    assert sandbox.requests[0].status is None
    assert sandbox.state["requests"] == {"inferences": {"none": 1}}
    assert stored(sandbox) == (["a"] if store else [])
    assert send(client, "b").status_code == 207


def test_cut_midbody(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.cut_midbody()
    with client.stream("POST", INFERENCES, json=[row()]) as answer:
        assert answer.status_code == 207
        length = int(answer.headers["Content-Length"])
        parts = answer.iter_raw()
        assert len(next(parts)) == length // 2
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            next(parts)
    assert stored(sandbox) == ["a"]


@pytest.mark.parametrize(("shift", "results"), [(-1, 1), (-5, 0), (2, 4), (0, 2)])
def test_wrong_length(
    client: httpx.Client, sandbox: ArthurSandbox, shift: int, results: int
) -> None:
    sandbox.faults.wrong_length(shift)
    answer = send(client, "a", "b").json()
    assert len(answer["results"]) == results
    assert answer["counts"]["total"] == 2
    assert stored(sandbox) == ["a", "b"]


def test_wrong_counts(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.wrong_counts(-1)
    assert send(client, "a", "b").json()["counts"] == {"success": 1, "failure": 0, "total": 2}
    sandbox.faults.wrong_counts()
    answer = client.post(INFERENCES, content=b"nonsense")
    assert answer.status_code == 400, "only a 207 has counts"


def test_fail_rows_by_index(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.fail_rows([503, 200, 400])
    answer = send(client, "a", "b", "c", "d").json()
    assert [each["status"] for each in answer["results"]] == [503, 200, 400, 200]
    assert answer["counts"] == {"success": 2, "failure": 2, "total": 4}
    assert stored(sandbox) == ["b", "d"]


def test_fail_rows_every_nth_and_by_id(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.fail_rows(every=2, status=500, times=1)
    sandbox.faults.fail_rows(containing="x")
    answer = send(client, "ax", "bx", "c", "d").json()
    assert [each["status"] for each in answer["results"]] == [400, 500, 200, 500]
    answer = client.patch(INFERENCES, json=[truth("c"), truth("x")]).json()
    assert [each["status"] for each in answer["results"]] == [200, 400]
    assert len(sandbox.faults.active) == 1


def test_routes(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    sandbox.faults.status(500, times=None, routes=["login", "users", "models", "query"])
    assert send(client).status_code == 207
    assert client.patch(INFERENCES, json=[truth()]).status_code == 207
    assert client.post("/api/v3/login", json={}).status_code == 500
    assert client.get("/api/v3/users/me").status_code == 500
    assert client.get("/api/v3/models/demo").status_code == 500
    assert client.get(f"{INFERENCES}/query/a").status_code == 500
    sandbox.faults.reset()
    assert client.get("/api/v3/models/demo").status_code == 200
    sandbox.faults.status(503, routes=["other"])
    assert client.get("/api/v3/organizations/current").status_code == 503
    assert client.get("/api/v3/organizations/current").status_code == 404
    assert sandbox.state["requests"]["other"] == {"503": 1, "404": 1}


def test_faults_over_http(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    set_ = client.post(FAULTS, json={"kind": "status", "status": 503, "routes": ["inferences"]})
    assert set_.status_code == 200
    assert set_.json() == [{"kind": "status", "times": 1, "routes": ["inferences"], "status": 503}]
    assert client.get(FAULTS).json() == set_.json()
    assert client.get("/sandbox/state").json()["faults"] == set_.json()
    assert send(client).status_code == 503
    assert client.get(FAULTS).json() == []
    client.post(FAULTS, json={"kind": "slow", "seconds": 60})
    assert client.post(FAULTS, json={"kind": "reset"}).json() == []
    client.post(FAULTS, json={"kind": "hang"})
    assert client.delete(FAULTS).json() == []
    assert client.post(FAULTS, json={"kind": "expire_tokens"}).status_code == 200
    assert send(client).status_code == 207


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"kind": "nonsense"},
        {"kind": "active"},
        {"kind": ["status"]},
        {"kind": "status"},
        {"kind": "status", "status": "503"},
        {"kind": "status", "status": 99},
        {"kind": "status", "status": 500, "times": 0},
        {"kind": "status", "status": 500, "times": "x"},
        {"kind": "status", "status": 500, "routes": ["nowhere"]},
        {"kind": "status", "status": 500, "more": 1},
        {"kind": "slow", "seconds": -1},
        {"kind": "slow", "seconds": "1"},
        {"kind": "not_json", "status": 600},
        {"kind": "fail_rows"},
        {"kind": "fail_rows", "statuses": [1]},
        {"kind": "fail_rows", "every": 0},
        {"kind": "fail_rows", "every": 1, "status": 200},
        [],
    ],
)
def test_wrong_faults_over_http(client: httpx.Client, sandbox: ArthurSandbox, body: Any) -> None:
    answer = client.post(FAULTS, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert sandbox.faults.active == []
    assert send(client).status_code == 207


def test_another_site_cannot_set_faults(client: httpx.Client) -> None:
    answer = client.post(
        FAULTS, content=b'{"kind": "hang"}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 415
