"""The page, the JSON that feeds it, and its live counts."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from arthur_relay.sandbox import ArthurSandbox, attribute
from arthur_relay.sandbox import page as page_module

from .rows import INFERENCES, row, truth

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_python


@contextmanager
def events(client: httpx.Client) -> Iterator[Iterator[Any]]:
    with client.stream("GET", "/sandbox/events") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        yield (json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:"))


def ids(client: httpx.Client, query: str) -> list[str]:
    answer = client.get(f"/sandbox/inferences?{query}")
    assert answer.status_code == 200
    return [each["id"] for each in answer.json()["inferences"]]


def test_the_page_is_one_file_that_loads_nothing(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", answer.text) == []
    assert "@import" not in answer.text
    assert "script-src 'sha256-" in answer.headers["Content-Security-Policy"]
    assert "'unsafe-inline'" not in answer.headers["Content-Security-Policy"].split("script-src")[1]


def test_the_page_writes_text_never_markup(client: httpx.Client) -> None:
    text = client.get("/").text
    for way_in in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "$("):
        assert way_in not in text
    assert "textContent" in text


def test_markup_in_texts_arrives_as_it_is(client: httpx.Client) -> None:
    evil = "<script>alert(1)</script>"
    client.post(INFERENCES, json=[row("<b>", input_text=evil)])
    answer = client.get("/sandbox/inferences")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["inferences"][0]["input"] == evil
    assert evil not in client.get("/").text


def test_inferences_come_newest_first(client: httpx.Client) -> None:
    data = {
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "duration": 0.5,
        "outcome": "ok",
    }
    client.post(INFERENCES, json=[row("a"), row("b", input_text="x" * 1000, **data)])
    client.patch(INFERENCES, json=[truth("b")])
    page = client.get("/sandbox/inferences").json()
    assert page["next"] is None
    newest, oldest = page["inferences"]
    assert oldest["id"] == "a"
    assert oldest["duration"] is None
    assert newest | data == newest
    assert newest["input"] == "x" * 600
    assert newest["names"] == ["input_text", "output_text"]
    assert newest["ground_truth"] == {"thumbs_up": True}
    full = client.get(f"/sandbox/inferences/{newest['seq']}").json()
    assert full["inference_data"]["input_text"] == "x" * 1000
    assert client.get("/sandbox/inferences/999").status_code == 404


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Human: Hi\nAI: Hello\nHuman: How are\nyou?", "… Human: How are\nyou?"),
        ("System: Be kind.\nTool: 21 °C", "… Tool: 21 °C"),
        ("Human: Hi", "Human: Hi"),
        ("A prompt\nwith: lines", "A prompt\nwith: lines"),
    ],
)
def test_a_conversation_shows_its_last_message(client: httpx.Client, text: str, shown: str) -> None:
    client.post(INFERENCES, json=[row("a", input_text=text)])
    [found] = client.get("/sandbox/inferences").json()["inferences"]
    assert found["input"] == shown


def test_rejected_rows_are_told_with_their_reasons(client: httpx.Client) -> None:
    client.post(INFERENCES, json=[row("good"), row("bad", duration="long"), 3])
    client.patch(INFERENCES, json=[truth("never seen")])
    state = client.get("/sandbox/state").json()
    assert state["rejected"] == 3
    assert [each["id"] for each in state["rejections"]] == ["never seen", "", "bad"]
    assert "duration" in state["rejections"][2]["reason"]
    client.post(INFERENCES, json=[row(f"{number}", duration="long") for number in range(30)])
    rejections = client.get("/sandbox/state").json()["rejections"]
    assert [each["id"] for each in rejections] == [f"{number}" for number in range(29, 9, -1)]


def test_pages_follow_each_other(client: httpx.Client) -> None:
    client.post(INFERENCES, json=[row(f"{number:03}") for number in range(250)])
    assert ids(client, "limit=1000") == [f"{number:03}" for number in range(249, 49, -1)]
    seen: list[str] = []
    before: Any = ""
    while before is not None:
        page = client.get(f"/sandbox/inferences?limit=100&before={before}").json()
        seen += [each["id"] for each in page["inferences"]]
        before = page["next"]
    assert seen == [f"{number:03}" for number in range(249, -1, -1)]


def test_search(client: httpx.Client) -> None:
    client.post(
        INFERENCES,
        json=[
            row("first", input_text="Where is Straße 5?"),
            row("second", output_text="100% sure_thing"),
            row("third", finish_reason="straße"),
        ],
    )
    assert ids(client, "q=STRASSE") == ["first"]
    assert ids(client, "q=SECOND") == ["second"]
    assert ids(client, "q=0%25") == ["second"]
    assert ids(client, "q=e_t") == ["second"]
    assert ids(client, "q=nowhere") == []


def test_models_apart(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    other = sandbox.add_model([attribute("amount", "FLOAT", "PREDICTED_VALUE")], model_id="other")
    amount = row("b") | {"inference_data": {"amount": 1}}
    client.post(INFERENCES, json=[row("a")])
    client.post(f"/api/v3/models/{other}/inferences", json=[amount])
    assert ids(client, "") == ["b", "a"]
    assert ids(client, "model_id=demo") == ["a"]
    page = client.get("/sandbox/inferences?model_id=other").json()
    assert page["inferences"][0]["input"] == ""
    models = client.get("/sandbox/state").json()["models"]
    assert [(each["id"], each["inferences"]) for each in models] == [("demo", 1), ("other", 1)]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "before=-1", "before=²", "limit=" + "9" * 16]
)
def test_wrong_numbers(client: httpx.Client, query: str) -> None:
    assert client.get(f"/sandbox/inferences?{query}").status_code == 400


def test_ten_thousand_rows(client: httpx.Client) -> None:
    client.post(INFERENCES, json=[row(f"run-{number}") for number in range(10_000)])
    assert client.get("/sandbox/state").json()["inferences"] == 10_000
    assert ids(client, "q=run-77&limit=1") == ["run-7799"]


def test_events_tell_of_changes(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    with events(client) as states:
        assert next(states)["inferences"] == 0
        httpx.post(
            sandbox.url + INFERENCES,
            json=[row("a"), {}],
            headers={"Authorization": sandbox.api_key},
        )
        state = next(states)
        while not state["requests"]:
            state = next(states)
        assert state["inferences"] == 1
        assert state["rejected"] == 1
        sandbox.faults.cut()
        assert [fault["kind"] for fault in next(states)["faults"]] == ["cut"]


def test_events_keep_the_connection_alive(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "_HEARTBEAT_SECONDS", 0.01)
    with events(client) as states:
        assert next(states) == next(states)


def test_events_end_when_the_server_stops(client: httpx.Client, sandbox: ArthurSandbox) -> None:
    with events(client) as states:
        next(states)
        sandbox.stop()
        assert list(states) == []


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200),
        ("sandbox.localhost", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
    ],
)
def test_other_names_for_the_loopback_address(client: httpx.Client, host: str, status: int) -> None:
    headers = {"Host": host}
    for path in ("/", "/sandbox/inferences", "/sandbox/events"):
        with client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == status
    login = {"login": "admin", "password": "sandbox"}
    assert client.post("/api/v3/login", json=login, headers=headers).status_code == status
    key = {**headers, "Authorization": "sandbox-key"}
    assert client.get("/api/v3/users/me", headers=key).status_code == status


def test_any_name_for_other_addresses() -> None:
    with ArthurSandbox(host="0.0.0.0") as sandbox:
        url = sandbox.url.replace("0.0.0.0", "127.0.0.1")
        assert httpx.get(f"{url}/", headers={"Host": "sandbox.example"}).status_code == 200
