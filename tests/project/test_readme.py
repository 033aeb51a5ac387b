"""What the README and docs/ say is so: their tables, their programs, their commands."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
from enum import StrEnum
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from langchain_core.runnables import RunnableLambda

import arthur_relay
from arthur_relay import Relay
from arthur_relay.broker.settings import BROKER_PREFIX, BrokerSettings
from arthur_relay.capture.queue import CaptureQueueLimits
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.sandbox import ArthurSandbox, Kind
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings
from arthur_relay.stats import DropReason, FlushResult, HealthStatus, Stats
from arthur_relay.testing import MemoryDestination, memory_engine, memory_relay
from tests.environment import forget_arthur
from tests.readme import (
    ROOT,
    blocks,
    command,
    example,
    first_cells,
    marked,
    page,
    pages,
    quoted,
)

pytestmark = pytest.mark.one_python

pytest_plugins = ["pytester"]


def settings_table() -> str:
    """Return the table of settings in docs/settings.md, as it has to be."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in RelaySettings.model_fields.items():
        default = field.default
        shown = default.value if isinstance(default, StrEnum) else str(default).lower()
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_the_table_of_settings_is_the_settings() -> None:
    found = marked("settings", "docs/settings.md")
    assert found == settings_table(), "replace the page's table by settings_table()"


def test_the_readmes_table_is_a_part_of_it() -> None:
    """The most important settings, in the same words and the same order."""
    main = marked("main settings", "README.md").splitlines()
    every = settings_table().splitlines()
    assert main == [line for line in every if line in main], "take lines of settings_table()"
    assert len(main) == 5 + 2, "five settings that matter first, and the table's head"


def daemon_settings_table() -> str:
    """Return the table of the daemon's settings in docs/daemon.md, as it has to be."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in DaemonSettings.model_fields.items():
        default = DaemonSettings.shown_default(name)
        lines.append(f"| `…{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_the_table_of_the_daemons_settings_is_the_settings() -> None:
    found = marked("daemon settings", "docs/daemon.md")
    assert found == daemon_settings_table(), "replace it by daemon_settings_table()"


def broker_settings_table() -> str:
    """Return the table of the broker's settings in docs/fleet.md, as it has to be."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in BrokerSettings.model_fields.items():
        default = BrokerSettings.shown_default(name)
        lines.append(f"| `…{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_the_table_of_the_brokers_settings_is_the_settings() -> None:
    found = marked("broker settings", "docs/fleet.md")
    assert found == broker_settings_table(), "replace it by broker_settings_table()"


def test_the_tables_of_counts_name_each_field_and_each_reason() -> None:
    names = {
        "stats": list(Stats._fields),
        "flush": list(FlushResult._fields),
        "drop reasons": [reason.value for reason in DropReason],
        "health": [status.value for status in HealthStatus],
    }
    for mark, expected in names.items():
        assert first_cells(marked(mark, "docs/monitoring.md")) == expected, mark


def benchmark_summary() -> str:
    """Return the facts and the first table of the report, as docs/performance.md has them."""
    report = (ROOT / "tests" / "benchmarks" / "report" / "report.md").read_text(encoding="utf-8")
    facts = re.search(r"\n\n((?:- [^\n]+\n)+)", report)
    table = re.search(r"## Summary\n\n(.*?\n)\n!", report, re.DOTALL)
    assert facts is not None
    assert table is not None
    return facts[1] + "\n" + table[1].rstrip()


def test_the_costs_are_those_of_the_report() -> None:
    found = marked("benchmark", "docs/performance.md")
    assert found == benchmark_summary(), "replace the page's table by benchmark_summary()"


@pytest.mark.parametrize("path", pages())
def test_every_variable_that_a_page_names_exists(path: str) -> None:
    named = set(re.findall(rf"{ENVIRONMENT_PREFIX}[A-Z_]+", page(path))) - {
        DAEMON_PREFIX,
        BROKER_PREFIX,
    }
    known = {f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in RelaySettings.model_fields}
    known |= {f"{DAEMON_PREFIX}{name.upper()}" for name in DaemonSettings.model_fields}
    known |= {f"{BROKER_PREFIX}{name.upper()}" for name in BrokerSettings.model_fields}
    assert named <= known
    assert named or path not in {"README.md", "docs/settings.md", "docs/daemon.md"}


def test_every_public_name_that_a_page_imports_exists() -> None:
    found = [each for path in pages() for each in blocks(path) if each.language == "python"]
    assert {each.path for each in found} >= {"README.md", "docs/usage.md"}
    for block in found:
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module == "arthur_relay":
                for alias in node.names:
                    assert hasattr(arthur_relay, alias.name), block.path


def test_the_commands_that_the_gate_runs_are_there() -> None:
    assert command("demo").endswith("arthur-relay demo")
    assert command("test").endswith("-m pytest")


def test_every_file_that_the_guides_name_exists() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "arthur_relay"
    for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", contributing):
        folders = [ROOT, source, *(each.parent for each in source.rglob("__init__.py"))]
        assert any((folder / name).exists() for folder in folders), name


def environment_file() -> str:
    """Return deploy/arthur-relay.env, as it has to be."""
    lines = [
        "# The environment of an application that logs to Arthur by arthur-relay: a template.",
        "# For systemd's EnvironmentFile=, docker's --env-file, or `set -a; . ./arthur-relay.env`.",
        "# Keep the secrets out of it where your platform has a place for them.",
        "",
        "# Arthur Scope. These are the variables of Arthur's own SDK.",
        "ARTHUR_ENDPOINT_URL=https://app.arthur.ai",
        "ARTHUR_MODEL_ID=",
        "# A key, or else a login and its password.",
        "ARTHUR_API_KEY=",
        "#ARTHUR_LOGIN=",
        "#ARTHUR_PASSWORD=",
        "#ARTHUR_ORGANIZATION_ID=",
        "#VERIFY_SSL=true",
        "",
        "# Or Arthur Engine, with ARTHUR_API_KEY and without ARTHUR_MODEL_ID: its address (else",
        "# http://localhost:3030), and a task by its id, or by its name.",
        "#ARTHUR_BASE_URL=",
        "#ARTHUR_TASK_ID=",
        "#OTEL_SERVICE_NAME=",
        "",
        "# The relay. What is commented out is the default; docs/settings.md has all as a table.",
    ]
    for name, field in RelaySettings.model_fields.items():
        default = field.default
        shown = default.value if isinstance(default, StrEnum) else str(default).lower()
        lines += ["", f"# {field.description}", f"#{ENVIRONMENT_PREFIX}{name.upper()}={shown}"]
    return "\n".join(lines) + "\n"


def test_the_template_of_an_environment_names_every_setting() -> None:
    found = (ROOT / "deploy" / "arthur-relay.env").read_text(encoding="utf-8")
    assert found == environment_file(), "replace the file by environment_file()"


def test_the_examples_of_users_tests_pass_as_they_are_written(pytester: pytest.Pytester) -> None:
    """Those of docs/testing.md, and the application's own tests in docs/examples."""
    pytester.makeconftest(example("conftest", "docs/testing.md"))
    pytester.makepyfile(
        test_page=example("tests", "docs/testing.md"),
        test_spans=example("spans", "docs/testing.md"),
        test_sandbox=example("sandbox", "docs/testing.md"),
    )
    testing = ROOT / "docs" / "examples" / "testing"
    assert (testing / "conftest.py").read_text().endswith(example("conftest", "docs/testing.md"))
    for name in ("answers.py", "test_answers.py"):
        shutil.copy(testing / name, pytester.path)
    # As a process, because here the package was imported long ago.
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=6)


def test_what_the_fixtures_hand_over_is_there(sandbox: ArthurSandbox) -> None:
    """The names in the table of docs/testing.md are those of the objects."""
    rows = [line.split(" | ") for line in marked("fixtures", "docs/testing.md").splitlines()[2:]]
    told = {first_cells(row[0] + " |")[0]: quoted(row[1]) for row in rows}
    memory, engine = memory_relay(), memory_engine()
    objects = {
        "arthur_memory": memory,
        "arthur_memory_engine": engine,
        "arthur_sandbox": (sandbox,),
    }
    assert told.keys() == objects.keys()
    for name, given in objects.items():
        classes = {type(each).__name__ for each in given}
        assert classes <= told[name], name
        for each in told[name] - classes - {"(relay, destination)"}:
            assert each.startswith("."), (name, each)
            assert any(hasattr(it, each[1:].removesuffix("()")) for it in given), (name, each)
    for relay, _ in (memory, engine):
        relay.close()


def test_the_shapes_of_what_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)
    text = page("docs/testing.md")
    relay, destination = memory_relay()
    with relay:
        given = arthur_relay.Inference(input_text="in", output_text="out", inference_id="i1")
        relay.capture(given)
        relay.log_ground_truth("i1", {"thumbs_up": True})
    (told,) = re.findall(r"^An inference is a dict with ([^.]+)\.", text, re.MULTILINE)
    assert quoted(told) == destination.inferences[0].keys()
    (told,) = re.findall(r"^Ground truth is a row of its own, with ([^.]+)\.", text, re.MULTILINE)
    assert quoted(told) == destination.inferences[1].keys()
    spans, engine = memory_engine()
    with spans:
        handler = arthur_relay.ArthurCallbackHandler(relay=spans)
        run_id = uuid4()
        RunnableLambda(str.upper).invoke("in", {"callbacks": [handler], "run_id": run_id})
        handler.log_feedback(run_id, liked=True)
    (told,) = re.findall(r"^A span is a dict: ([^.]+)\.", text, re.MULTILINE)
    assert quoted(told) >= engine.spans[0].keys()
    (told,) = re.findall(r"has the feedback, with ([^.]+)\.", text)
    assert quoted(told) == engine.annotations[0].keys()


def environment_of(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)
    for name, value in sandbox.environment().items():
        monkeypatch.setenv(name, value)


def test_without_langchain(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_of(sandbox, monkeypatch)
    exec(compile(example("capture", "docs/usage.md"), "usage.md", "exec"), {})
    (row,) = sandbox.inferences
    data = row["inference_data"]
    expected = {"input_text": "…", "output_text": "…", "duration": 1.5, "user_id": "u1"}
    assert data == expected | {"outcome": "ok"}


def test_the_thumb_goes_up(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_of(sandbox, monkeypatch)
    names: dict[str, Any] = {}
    exec(example("application", "docs/hosts.md"), names)
    names["run_id"] = uuid4()
    names["model"].invoke("How is the weather?", {"run_id": names["run_id"]})
    exec(example("thumbs up", "docs/ground-truth.md"), names)
    names["handler"].relay.close()
    (row,) = sandbox.inferences
    assert row["ground_truth_data"] == {"thumbs_up": True}


def test_a_health_endpoint(sandbox: ArthurSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    environment_of(sandbox, monkeypatch)
    names: dict[str, Any] = {"app": FastAPI()}
    exec(example("application", "docs/hosts.md"), names)
    exec(example("health", "docs/monitoring.md"), names)
    names["model"].invoke("How is the weather?")
    names["handler"].flush()
    with TestClient(names["app"]) as client:
        told = client.get("/health").json()
    assert told["relay"]["status"] == "ok"
    assert (told["counts"]["captured"], told["counts"]["delivered"]) == (1, 1)


def test_redactors_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)
    said = quoted(page("docs/privacy.md"))
    (code,) = {each for each in said if each.startswith("RelaySettings(")}
    names = {
        "RelaySettings": RelaySettings,
        "scrub_names": lambda text: text.replace("Alice", "[a name]"),
    }
    settings: RelaySettings = eval(code, names)
    destination = MemoryDestination()
    with Relay(destination, model_id="m", settings=settings) as relay:
        relay.capture(
            arthur_relay.Inference(input_text="Alice, a@example.com", output_text="Hello, Alice")
        )
    (row,) = destination.inferences
    assert row["inference_data"]["input_text"] == "[a name], [redacted: email]"
    assert row["inference_data"]["output_text"] == "Hello, [a name]"


def test_the_command_that_sets_a_fault() -> None:
    words = shlex.split(command("fault", "docs/testing.md"))
    assert words[0] == "curl"
    name, _, value = words[words.index("-H") + 1].partition(": ")
    data = words[words.index("-d") + 1]
    with ArthurSandbox() as sandbox:
        url = words[1].replace("$ARTHUR_ENDPOINT_URL", sandbox.url)
        # With data, curl posts.
        assert httpx.post(url, headers={name: value}, content=data).status_code == 200
        (fault,) = sandbox.faults.active
        assert (fault.kind, fault.status, fault.times) == ("status", 503, 2)
        assert httpx.delete(url).status_code == 200
        assert sandbox.faults.active == []


def test_all_kinds_of_faults_are_named() -> None:
    text = page("docs/testing.md")
    kinds = text[text.index("The kinds are") : text.index("each a method")]
    assert quoted(kinds) == set(Kind)
    assert {"expire_tokens", "reset"} <= quoted(text[text.index("The kinds are") :])


def attributes_table() -> str:
    """Return the table of the attributes that are sent by name, as docs/ has to have it."""
    lines = ["| attribute | type | what it is |", "|---|---|---|"]
    lines += [f"| `{name}` | {each.kind} | {each.what} |" for name, each in RUN_VALUES.items()]
    return "\n".join(lines)


def test_the_table_of_attributes_is_the_one_list() -> None:
    found = marked("attributes", "docs/attributes.md")
    assert found == attributes_table(), "replace the page's table by attributes_table()"


def test_the_shares_of_the_queues_bytes() -> None:
    lines = page("docs/settings.md").splitlines()
    (told,) = [line for line in lines if line.startswith("`queue_bytes` bounds")]
    assert "three sixteenths are for runs that have not ended" in told
    assert "an eighth for what the worker has not seen yet, a sixteenth for rejected rows" in told
    settings = RelaySettings(queue_bytes=8_000_000)
    with Relay(MemoryDestination(), model_id="m", settings=settings) as relay:
        assert relay._host.open_runs._max_bytes == 1_500_000
        limits = relay._host.pipeline.queue.limits
        assert CaptureQueueLimits.of(settings).size == limits.size == 1_000_000
        assert settings.dead_letter_ring_bytes == 500_000
        buffer: Any = relay._host.pipeline.worker.buffer.intake
        assert buffer._max_bytes == 5_000_000


def test_each_guarantee_names_tests_that_exist() -> None:
    text = page("docs/guarantees.md")
    headers = ("| guaranteed ", "| not guaranteed ")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    lines = [line for line in lines if not line.startswith(headers)]
    assert len(lines) > 40
    for line in lines:
        named = re.findall(r"`(tests/[^`]+\.py)::(test_\w+)`", line)
        assert named, line
        assert line.startswith("| **"), line
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            functions = (ast.FunctionDef, ast.AsyncFunctionDef)
            assert name in {node.name for node in tree.body if isinstance(node, functions)}, name
