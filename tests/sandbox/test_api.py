"""Every route of the API."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from arthur_relay.sandbox import ArthurSandbox, demo_attributes

from .rows import INFERENCES, row, truth

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.one_python

OK = {"message": "success", "status": 200}


def log_in(sandbox: ArthurSandbox) -> str:
    answer = httpx.post(
        f"{sandbox.url}/api/v3/login",
        json={"login": sandbox.login, "password": sandbox.password},
    )
    assert answer.status_code == 200
    assert answer.json()["organization_id"] == "sandbox-org"
    return answer.cookies["Authorization"]


def claims(token: str) -> Any:
    body = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))


def me(sandbox: ArthurSandbox, token: str) -> int:
    answer = httpx.get(f"{sandbox.url}/api/v3/users/me", headers={"Authorization": token})
    return answer.status_code


def test_login_gives_a_token_that_is_a_jwt(sandbox: ArthurSandbox) -> None:
    before = time.time()
    token = log_in(sandbox)
    assert 3600 <= claims(token)["exp"] - before < 3610
    assert me(sandbox, token) == 200
    assert sandbox.state["logins"] == 1


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"login": "admin", "password": "wrong"}, 401),
        ({"login": "nobody", "password": "sandbox"}, 401),
        ({"login": ["admin"]}, 401),
        ([], 400),
    ],
)
def test_a_wrong_login(sandbox: ArthurSandbox, body: Any, status: int) -> None:
    answer = httpx.post(f"{sandbox.url}/api/v3/login", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_login_that_is_not_json(client: httpx.Client) -> None:
    assert client.post("/api/v3/login", content=b"{").status_code == 400


def test_the_cookie_is_accepted(sandbox: ArthurSandbox) -> None:
    with httpx.Client(base_url=sandbox.url, cookies={"Authorization": log_in(sandbox)}) as client:
        assert client.get("/api/v3/users/me").status_code == 200


@pytest.mark.parametrize("credential", ["", "wrong", "a.b.c", "Bearer sandbox-key", "..", "é"])
def test_other_credentials_are_refused(sandbox: ArthurSandbox, credential: str) -> None:
    answer = httpx.get(
        f"{sandbox.url}/api/v3/users/me", headers={b"Authorization": credential.encode()}
    )
    assert answer.status_code == 401
    assert answer.json()["error"]


def test_a_forged_token_is_refused(sandbox: ArthurSandbox) -> None:
    head, body, signature = log_in(sandbox).split(".")
    assert me(sandbox, f"{head}.{body}x.{signature}") == 401


def test_a_token_ends() -> None:
    with ArthurSandbox(token_seconds=-1) as sandbox:
        assert me(sandbox, log_in(sandbox)) == 401


def test_tokens_can_be_expired_and_keys_not(sandbox: ArthurSandbox) -> None:
    token = log_in(sandbox)
    sandbox.faults.expire_tokens()
    assert me(sandbox, token) == 401
    assert me(sandbox, log_in(sandbox)) == 200
    assert me(sandbox, sandbox.api_key) == 200


def test_the_organization(client: httpx.Client) -> None:
    assert client.get("/api/v3/users/me").json()["organization_id"] == "sandbox-org"
    mine = {"Arthur-Organization-ID": "sandbox-org"}
    other = {"Arthur-Organization-ID": "other"}
    assert client.get("/api/v3/users/me", headers=mine).status_code == 200
    assert client.get("/api/v3/users/me", headers=other).status_code == 403


@pytest.mark.parametrize(
    ("outside", "ids"), [(True, ["sandbox-org"]), (["a", "b"], ["a", "b"]), ([], [])]
)
def test_users_of_an_outside_identity_provider(
    outside: bool | Sequence[str], ids: list[str]
) -> None:
    with ArthurSandbox(outside_identity_provider=outside) as sandbox:
        headers = {"Authorization": sandbox.api_key}
        users = f"{sandbox.url}/api/v3/users/me"
        assert httpx.get(users, headers=headers).status_code == 403
        info = httpx.get(f"{users}/auth_info", headers=headers).json()
        assert info["organization_ids"] == ids
        login = {"login": sandbox.login, "password": sandbox.password}
        user = httpx.post(f"{sandbox.url}/api/v3/login", json=login).json()
        assert user["organization_id"] == (ids[0] if ids else None)


def test_auth_info_of_an_own_user(client: httpx.Client) -> None:
    info = client.get("/api/v3/users/me/auth_info").json()
    assert info["organization_ids"] == ["sandbox-org"]


def test_the_demo_model(client: httpx.Client) -> None:
    model = client.get("/api/v3/models/demo?id_type=id&expand=attributes").json()
    assert model["id"] == "demo"
    assert model["status"] == "Ready"
    assert model["output_type"] == "TOKEN_SEQUENCE"
    assert [each["name"] for each in model["attributes"]][:2] == ["input_text", "output_text"]
    by_partner = client.get("/api/v3/models/arthur-relay-demo?id_type=partner_model_id").json()
    assert by_partner == model


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v3/models/nope", 404),
        ("/api/v3/models/demo?id_type=partner_model_id", 404),
        ("/api/v3/models/demo?id_type=name", 400),
        ("/api/v3/models/nope/inferences/query/a", 404),
        ("/api/v3/nothing", 404),
        ("/api/v3/models/demo/nothing", 404),
    ],
)
def test_what_is_not_there(client: httpx.Client, path: str, status: int) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_wrong_method(client: httpx.Client) -> None:
    assert client.put(INFERENCES, json=[]).status_code == 405


def test_models_can_be_registered_and_listed(client: httpx.Client) -> None:
    given = {
        "partner_model_id": "mine",
        "input_type": "NLP",
        "output_type": "TOKEN_SEQUENCE",
        "attributes": demo_attributes(),
        "something_new": 1,
    }
    answer = client.post("/api/v3/models?async_model_provisioning=True", json=given)
    assert answer.status_code == 201
    model = answer.json()
    assert model["something_new"] == 1
    assert client.get(f"/api/v3/models/{model['id']}").json() == model
    listed = client.get("/api/v3/models").json()
    assert [each["partner_model_id"] for each in listed["data"]] == ["arthur-relay-demo", "mine"]
    assert client.post("/api/v3/models", json=given).status_code == 409
    assert client.post("/api/v3/models", json={**given, "attributes": []}).status_code == 400
    assert client.post("/api/v3/models", json=[]).status_code == 400


def test_rows_are_answered_one_by_one_in_order(
    client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    answer = client.post(INFERENCES, json=[row("a"), {}, row("b", duration="x"), row("c")])
    assert answer.status_code == 207
    assert answer.json() == {
        "counts": {"success": 2, "failure": 2, "total": 4},
        "results": [
            OK,
            {"message": "partner_inference_id is required", "status": 400},
            {"message": "attribute 'duration' must be FLOAT, not a string", "status": 400},
            OK,
        ],
    }
    assert sandbox.inferences == [
        {**row("a"), "model_id": "demo"},
        {**row("c"), "model_id": "demo"},
    ]
    assert sandbox.state["rejected"] == 2


def test_a_known_id_is_a_duplicate_and_the_first_row_stays(
    client: httpx.Client, sandbox: ArthurSandbox
) -> None:
    answer = client.post(INFERENCES, json=[row("a"), row("a", finish_reason="second")])
    assert answer.json()["results"] == [OK, OK]
    client.post(INFERENCES, json=[row("a")])
    assert sandbox.duplicates == 2
    assert sandbox.inferences == [{**row("a"), "model_id": "demo"}]


def test_an_id_is_known_per_model(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    other = sandbox.add_model(model_id="other")
    client.post(INFERENCES, json=[row("a")])
    client.post(f"/api/v3/models/{other}/inferences", json=[row("a")])
    assert [each["model_id"] for each in sandbox.inferences] == ["demo", "other"]
    assert sandbox.duplicates == 0


def test_no_rows(client: httpx.Client) -> None:
    answer = client.post(INFERENCES, json=[])
    assert answer.status_code == 207
    assert answer.json() == {"counts": {"success": 0, "failure": 0, "total": 0}, "results": []}


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{}", b"null", b"[NaN]", b"\xff", b"[" * 100_000, b'[{"a": Infinity}]']
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_that_is_no_list_of_rows(client: httpx.Client, method: str, body: bytes) -> None:
    answer = client.request(method, INFERENCES, content=body)
    assert answer.status_code == 400
    assert "the body" in answer.json()["error"]


def test_any_text_survives(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    odd = "NUL \0, lone surrogate \ud800, emoji \U0001f600, \u2028"
    body = json.dumps([row("ü/\U0001f600", input_text=odd)]).encode()
    assert client.post(INFERENCES, content=body).json()["results"] == [OK]
    assert sandbox.inferences[0]["inference_data"]["input_text"] == odd
    found = client.get(f"{INFERENCES}/query/ü%2F\U0001f600")
    assert found.json()["inference_data"]["input_text"] == odd
    assert client.get("/sandbox/inferences?q=emoji").json()["inferences"][0]["input"] == odd


def test_a_body_that_is_too_long() -> None:
    with ArthurSandbox(model_id="demo", max_body_bytes=500) as sandbox:
        url, headers = sandbox.url + INFERENCES, {"Authorization": sandbox.api_key}
        assert httpx.post(url, json=[row()], headers=headers).status_code == 207
        long = [row(input_text="x" * 2_000_000)]
        assert httpx.post(url, json=long, headers=headers).status_code == 413
        assert httpx.patch(url, json=long, headers=headers).status_code == 413


def test_ground_truth(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    client.post(INFERENCES, json=[row("a"), row("b")])
    answer = client.patch(INFERENCES, json=[truth("a"), truth("unknown"), truth("b", nothing=1)])
    assert answer.status_code == 207
    assert answer.json()["counts"] == {"success": 1, "failure": 2, "total": 3}
    assert [each["status"] for each in answer.json()["results"]] == [200, 404, 400]
    first, second = sandbox.inferences
    assert first == {**row("a"), **truth("a"), "model_id": "demo"}
    assert "ground_truth_data" not in second
    client.patch(INFERENCES, json=[truth("a", thumbs_up=False)])
    assert sandbox.inferences[0]["ground_truth_data"] == {"thumbs_up": False}


def test_ground_truth_with_the_inference(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    both = row("a") | truth("a")
    assert client.post(INFERENCES, json=[both]).json()["results"] == [OK]
    assert sandbox.inferences == [{**both, "model_id": "demo"}]


def test_an_inference_can_be_queried(client: httpx.Client) -> None:
    client.post(INFERENCES, json=[row("a")])
    assert client.get(f"{INFERENCES}/query/a").json() == row("a")
    assert client.get(f"{INFERENCES}/query/b").status_code == 404


def test_an_unknown_model(client: httpx.Client) -> None:
    assert client.post("/api/v3/models/nope/inferences", json=[]).status_code == 404
    assert client.patch("/api/v3/models/nope/inferences", json=[]).status_code == 404


def test_requests_are_recorded(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    client.post(INFERENCES, content=b"nonsense", headers={"X-Trace": "1"})
    client.get("/api/v3/models/demo?id_type=id")
    client.get("/sandbox/state")
    first, second = sandbox.requests
    assert (first.method, first.path, first.body, first.status) == (
        "POST",
        INFERENCES,
        b"nonsense",
        400,
    )
    assert first.headers["x-trace"] == "1"
    assert (second.path, second.query, second.status) == ("/api/v3/models/demo", "id_type=id", 200)
    assert sandbox.state["requests"] == {"inferences": {"400": 1}, "models": {"200": 1}}
