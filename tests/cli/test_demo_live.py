"""`arthur-relay demo --live`: the Arthur of the environment, and OpenAI's chat model."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from arthur_relay.cli.demo import stage as stage_module

from .openai_server import serving

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from arthur_relay.sandbox import ArthurSandbox

    from .conftest import Run

pytestmark = pytest.mark.one_python


def completion(text: str) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }


async def answer(request: Request) -> Response:
    if request.headers["Authorization"] != "Bearer good-key":
        error = {"message": "no such key: bad-key", "type": "auth"}
        return JSONResponse({"error": error}, status_code=401)
    body = await request.json()
    assert body["stream"]

    async def events() -> Any:
        for text in ("One ", "two"):
            yield b"data: " + orjson.dumps(completion(text)) + b"\n\n"
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@pytest.fixture
def openai(monkeypatch: pytest.MonkeyPatch) -> Any:
    app = Starlette(routes=[Route("/v1/chat/completions", answer, methods=["POST"])])
    with serving(app) as url:
        monkeypatch.setenv("OPENAI_API_KEY", "good-key")
        monkeypatch.setenv("OPENAI_API_BASE", f"{url}/v1")
        monkeypatch.setenv("OPENAI_MODEL", "gpt-4o-mini")
        yield


def test_live(run: Run, environment: dict[str, str], sandbox: ArthurSandbox, openai: None) -> None:
    result = run("demo", "--live")
    assert result.exit_code == 0, result.output
    assert "OpenAI's gpt-4o-mini" in result.output
    assert "the real one: it is not taken away" in result.output
    assert result.output.splitlines()[-1] == "captured 4 = delivered 4: nothing is missing."
    assert [row["inference_data"]["output_text"] for row in sandbox.inferences] == ["One two"] * 4


def test_live_with_a_model_that_fails(
    run: Run,
    environment: dict[str, str],
    sandbox: ArthurSandbox,
    openai: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "bad-key")
    monkeypatch.delenv("OPENAI_MODEL")
    result = run("demo", "--live")
    # The name depends on the version of langchain-openai.
    assert re.search(r"the model failed: \w*AuthenticationError", result.output)
    assert result.output.splitlines()[-1] == "captured 1 = delivered 1, but the model failed."
    assert "bad-key" not in result.output
    assert result.exit_code == 1
    assert len(sandbox.inferences) == 1  # a failed run is logged too


def test_live_needs_langchain_openai(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "find_spec", lambda name: None)
    result = run("demo", "--live")
    assert result.exit_code == 2
    assert result.stderr.startswith("arthur-relay: --live needs langchain-openai")


def test_live_needs_a_key(run: Run) -> None:
    result = run("demo", "--live")
    assert result.exit_code == 2
    assert result.stderr.startswith("arthur-relay: --live needs OPENAI_API_KEY")


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "ARTHUR_MODEL_ID is not set"),
        ({"ARTHUR_RELAY_DISABLED": "true"}, "nothing to show while ARTHUR_RELAY_DISABLED"),
        ({"ARTHUR_RELAY_BATCH_SIZE": "0"}, "can't be '0'"),
    ],
)
def test_live_needs_arthur(
    run: Run, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], told: str
) -> None:
    for name, value in {"OPENAI_API_KEY": "good-key", **variables}.items():
        monkeypatch.setenv(name, value)
    result = run("demo", "--live")
    assert result.exit_code == 2
    assert told in result.stderr
    assert result.stderr.count("\n") == 1
