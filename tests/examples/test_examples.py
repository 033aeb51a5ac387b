"""docs/examples: each runs as it is written, without a key, and what it logs arrives.

Those of an application's own tests are run by tests/project/test_readme.py.
"""

from __future__ import annotations

import ast
import json
import re
import runpy
import signal
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient

from tests.environment import forget_arthur
from tests.hosts.programs import Programs
from tests.readme import ROOT, commands_of, page

if TYPE_CHECKING:
    from pathlib import Path

    from arthur_relay.sandbox import ArthurSandbox

pytestmark = pytest.mark.one_python

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def scope(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> ArthurSandbox:
    """A sandbox whose lines for Arthur Scope are exported."""
    forget_arthur(monkeypatch)
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)
    return sandbox


@pytest.fixture
def engine(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> ArthurSandbox:
    """A sandbox whose line for Arthur Engine is exported."""
    forget_arthur(monkeypatch)
    for name, value in sandbox.engine_environment().items():
        monkeypatch.setenv(name, value)
    return sandbox


def texts(sandbox: ArthurSandbox) -> list[tuple[str, str]]:
    """The input and the output of each inference that arrived."""
    data = [row["inference_data"] for row in sandbox.inferences]
    return [(each["input_text"], each["output_text"]) for each in data]


def test_the_chat(
    scope: ArthurSandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(["What is a callback?", "And what is a relay?", "q"])
    monkeypatch.setattr("builtins.input", lambda _: next(typed))
    runpy.run_path(str(EXAMPLES / "chat.py"), run_name="__main__")
    first, second = texts(scope)
    assert first == ("Human: What is a callback?", "It is something that is called back.")
    assert second[0] == f"{first[0]}\nAI: {first[1]}\nHuman: And what is a relay?"
    assert all("time_to_first_token" in row["inference_data"] for row in scope.inferences)
    assert "delivered=2" in capsys.readouterr().out


def test_the_service(scope: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_from_file_location("service", EXAMPLES / "service.py")
    assert spec is not None
    assert spec.loader is not None
    service = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "service", service)  # its annotations are looked up there
    spec.loader.exec_module(service)
    with TestClient(service.app) as client:
        answer = client.post("/chat", json={"text": "How is the weather?", "user_id": "u1"})
        assert answer.text == "It is sunny."
        run_id = answer.headers["X-Run-Id"]
        assert client.post(f"/feedback/{run_id}?liked=true").status_code == 204
        service.handler.flush()
        told = client.get("/health").json()
        assert told["arthur"]["status"] == "ok"
        assert (told["counts"]["captured"], told["counts"]["pending"]) == (2, 0)
        client.post("/chat", json={"text": "And tomorrow?", "user_id": "u2"})
    # The lifespan's end has delivered what waited.
    first, second = scope.inferences
    assert first["partner_inference_id"] == run_id
    assert first["ground_truth_data"] == {"thumbs_up": True}
    users = [row["inference_data"]["user_id"] for row in (first, second)]
    assert users == ["u1", "u2"]


def test_the_commands_that_the_service_is_asked_by() -> None:
    """Their routes and their fields are the service's."""
    text = (EXAMPLES / "service.py").read_text(encoding="utf-8")
    told = ast.get_docstring(ast.parse(text)) or ""
    asked = [words for words in commands_of(told[told.index("    curl") :]) if words[0] == "curl"]
    paths = [next(word for word in words if "localhost:8000" in word) for words in asked]
    assert [re.sub(r"[?].*", "", path).split("/")[1] for path in paths] == [
        "chat",
        "feedback",
        "health",
    ]
    assert json.loads(asked[0][asked[0].index("-d") + 1]).keys() == {"text", "user_id"}


def test_the_agent(engine: ArthurSandbox, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langgraph", reason="needs LangGraph")
    runpy.run_path(str(EXAMPLES / "agent.py"), run_name="__main__")
    (trace,) = engine.traces
    assert (trace["session_id"], trace["user_id"]) == ("s1", "u1")
    kinds = [span["span_kind"] for span in engine.spans]
    assert (kinds.count("LLM"), kinds.count("TOOL")) == (2, 1)
    (judged,) = engine.annotations
    assert judged["annotation_description"] == "helpful"
    out = capsys.readouterr().out
    assert out.startswith("It is sunny: leave the umbrella.\n")
    assert "pending=0" in out


def test_the_notebook(scope: ArthurSandbox) -> None:
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
    nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    *_, invoked, streamed, flushed = [
        "".join(output.get("text") or output["data"]["text/plain"] for output in cell["outputs"])
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]
    assert (invoked, streamed) == ("'It is sunny.'", "It is sunny.")
    assert "delivered=2" in flushed
    cities = ["Human: How is the weather in Ulm?", "Human: How is the weather in Bonn?"]
    assert texts(scope) == [(city, "It is sunny.") for city in cities]


def test_the_tasks(sandbox: ArthurSandbox, tmp_path: Path) -> None:
    """A worker of Celery's, and a task that is sent by the command of the first lines."""
    folder = EXAMPLES / "celery_worker"
    told = ast.get_docstring(ast.parse((folder / "tasks.py").read_text(encoding="utf-8"))) or ""
    lines = [words for words in commands_of(told[told.index("    celery") :]) if len(words) > 2]
    (_, *worker), (_, *send) = lines
    for name in ("tasks.py", "celeryconfig.py"):
        (tmp_path / name).write_text((folder / name).read_text(encoding="utf-8"), encoding="utf-8")
    programs = Programs(sandbox, tmp_path)
    programs.environment |= {"TMPDIR": str(tmp_path), "ARTHUR_RELAY_FLUSH_INTERVAL_SECONDS": "3600"}
    quiet = ("--without-mingle", "--without-gossip", "--without-heartbeat", "--concurrency=1")
    try:
        started = programs.start(sys.executable, "-m", "celery", *worker, *quiet, "--loglevel=INFO")
        started.wait_for(r"ready\.")
        assert send[0] == "-c"
        assert programs.source(send[1]).end().status == 0
        started.wait_for(r"succeeded")
        started.signal(signal.SIGTERM)
        assert started.end().status == 0, started.printed
    finally:
        programs.kill_all()
    assert texts(sandbox) == [("Human: How is the weather?", "It is sunny.")]


def test_every_example_is_named_and_says_for_whom_it_is() -> None:
    table = page("docs/examples/README.md")
    named = {EXAMPLES / name for name in re.findall(r"\]\(([\w/]+\.(?:py|ipynb))\)", table)}
    programs = {
        path
        for path in EXAMPLES.rglob("*")
        if path.suffix in {".py", ".ipynb"} and "For " in path.read_text(encoding="utf-8")[:300]
    }
    assert named == programs
    helpers = {path.name for path in EXAMPLES.rglob("*.py")} - {path.name for path in named}
    assert helpers == {"answers.py", "celeryconfig.py", "conftest.py"}
    for path in named:
        assert "Run " in path.read_text(encoding="utf-8")[:400], path
