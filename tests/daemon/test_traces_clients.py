"""The package's own handler takes a daemon for an Arthur Engine; who may send to which task."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.runnables import RunnableLambda

from arthur_relay import ArthurCallbackHandler, ModelError, RelaySettings
from tests.daemon.process import DaemonProcess
from tests.daemon.traces import PROTOBUF, TRACE, TRACES, body, hex_id, stored
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

QUICK = {"flush_interval_seconds": 0.01, "connect_timeout_seconds": 10.0}
ALL, SOME = "all-0123456789abcdef", "some-0123456789abcdef"
NO_TASK = "11111111-1111-4111-8111-111111111111"


@pytest.fixture
def make_handler() -> Iterator[Callable[..., ArthurCallbackHandler]]:
    made: list[ArthurCallbackHandler] = []

    def make(url: str, **given: Any) -> ArthurCallbackHandler:
        settings = RelaySettings(**QUICK)
        made.append(ArthurCallbackHandler.from_engine(base_url=url, settings=settings, **given))
        return made[-1]

    yield make
    for handler in made:
        handler.relay.close(5)


@pytest.fixture
def guarded(start_for_engine: Callable[..., DaemonProcess], tmp_path: Path) -> DaemonProcess:
    """A daemon on TCP with a token for all tasks, and one for the task `a bot`."""
    tokens = tmp_path / "tokens"
    tokens.write_text(f"all:{ALL}\nsome:{SOME}:a bot\n")
    return start_for_engine(
        ARTHUR_RELAY_DAEMON_LISTEN="127.0.0.1:0", ARTHUR_RELAY_DAEMON_TOKENS_FILE=str(tokens)
    ).wait_until_ready()


def test_a_handler_by_the_socket(
    engine_daemon: DaemonProcess,
    sandbox: ArthurSandbox,
    make_handler: Callable[..., ArthurCallbackHandler],
) -> None:
    handler = make_handler(f"unix://{engine_daemon.socket}", task_id=sandbox.task_id)
    run_id = uuid.uuid4()
    chain = RunnableLambda(str.upper) | RunnableLambda(str.lower)
    chain.invoke("Text", config={"callbacks": [handler], "run_id": run_id})
    handler.log_feedback(run_id, liked=True, description="helpful")
    assert handler.flush(60).rejected == 0
    wait_for(lambda: sandbox.annotations)
    assert len(sandbox.spans) == 3
    (trace,) = sandbox.traces
    assert (trace["trace_id"], trace["output_content"]) == (run_id.hex, "text")
    assert sandbox.annotations[0]["trace_id"] == run_id.hex


def test_a_handler_names_its_task(
    engine_daemon: DaemonProcess,
    sandbox: ArthurSandbox,
    make_handler: Callable[..., ArthurCallbackHandler],
) -> None:
    url = f"unix://{engine_daemon.socket}"
    known = sandbox.add_task("a bot")
    for task in ("a bot", "a new one"):
        handler = make_handler(url, task=task)
        RunnableLambda(str.upper).invoke("text", config={"callbacks": [handler]})
        assert not handler.flush(60).timed_out
    wait_for(lambda: len(sandbox.spans) == 2)
    assert sandbox.spans[0]["task_id"] == known
    with pytest.raises(ModelError, match="no task with id"):
        make_handler(url, task_id=NO_TASK)
    sandbox.add_task("two")
    sandbox.add_task("two")
    with pytest.raises(ValueError, match="several tasks|400"):
        make_handler(url, task="two")


def test_a_handler_starts_while_the_engine_is_away(
    engine_daemon: DaemonProcess,
    sandbox: ArthurSandbox,
    make_handler: Callable[..., ArthurCallbackHandler],
) -> None:
    sandbox.go_away()
    handler = make_handler(f"unix://{engine_daemon.socket}", task_id=sandbox.task_id)
    RunnableLambda(str.upper).invoke("text", config={"callbacks": [handler]})
    assert not handler.flush(60).timed_out
    assert handler.relay.stats().delivered == 1
    sandbox.come_back()
    wait_for(lambda: len(sandbox.spans) == 1)


def test_tokens(guarded: DaemonProcess, sandbox: ArthurSandbox) -> None:
    client = guarded.client(f"http://{guarded.address('taking rows on')}")
    task, bot = sandbox.task_id, sandbox.add_task("a bot")

    def post(path: str, token: str, **given: Any) -> int:
        headers = {"Authorization": f"Bearer {token}", **given.pop("headers", {})}
        found = client.post(path, headers=headers, **given)
        assert found.status_code < 400 or found.json()["detail"]
        return found.status_code

    def send(number: int, task: str, token: str) -> int:
        return post(TRACES, token, content=body(number, task=task), headers=PROTOBUF)

    assert send(1, task, "wrong") == 401
    assert send(1, task, ALL) == 200
    assert send(2, task, SOME) == 403
    assert send(2, bot, SOME) == 403, "nobody has said so far that this is the bot"
    search = {"task_name": "a bot"}
    assert post("/api/v2/tasks/search", SOME, json=search) == 200
    assert post("/api/v2/tasks/search", SOME, json={"task_name": "x"}) == 403
    assert send(2, bot, SOME) == 200
    judged = {"annotation_score": 0}
    assert post(f"{TRACES}/{TRACE}/annotations", SOME, json=judged) == 200
    assert post(f"{TRACES}/{'7' * 32}/annotations", SOME, json=judged) == 404
    wait_for(lambda: sandbox.annotations)
    assert stored(sandbox) == [hex_id(1), hex_id(2)]


def test_what_a_client_that_heard_no_answer_is_told(
    engine_daemon: DaemonProcess, sandbox: ArthurSandbox
) -> None:
    client = engine_daemon.client()
    client.post(TRACES, content=body(1, 2, task=sandbox.task_id), headers=PROTOBUF)
    query = {"task_ids": sandbox.task_id, "span_ids": [hex_id(2), hex_id(3)]}
    assert client.get(f"{TRACES}/spans", params=query).json() == {
        "count": 1,
        "spans": [{"trace_id": TRACE, "span_id": hex_id(2)}],
    }
    again = body(2, 3, task=sandbox.task_id)
    answer = client.post(TRACES, content=again, headers=PROTOBUF)
    assert answer.json()["accepted_spans"] == 2
    wait_for(lambda: len(stored(sandbox)) == 3)
    assert client.get("/health").status_code == 200
