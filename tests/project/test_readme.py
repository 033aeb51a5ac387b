"""What the README and docs/ say is so: their tables, their programs, their commands."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from enum import StrEnum
from typing import Any

import httpx
import pytest

import arthur_relay
from arthur_relay import Relay
from arthur_relay.broker.settings import BROKER_PREFIX, BrokerSettings
from arthur_relay.capture.queue import CaptureQueueLimits
from arthur_relay.daemon.settings import DAEMON_PREFIX, DaemonSettings
from arthur_relay.encoding.run_fields import RUN_VALUES
from arthur_relay.sandbox import ArthurSandbox, Kind
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings
from arthur_relay.stats import DropReason, FlushResult, HealthStatus, Stats
from arthur_relay.testing import MemoryDestination
from tests.environment import forget_arthur
from tests.readme import (
    ROOT,
    command,
    first_cells,
    marked,
    page,
    pages,
    python_block,
    python_blocks,
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
    assert len(main) > 10


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
    blocks = {path: python_blocks(path) for path in pages()}
    assert {path for path, found in blocks.items() if found} >= {"README.md", "docs/usage.md"}
    for path, found in blocks.items():
        for block in found:
            for node in ast.walk(ast.parse(textwrap.dedent(block))):
                if isinstance(node, ast.ImportFrom) and node.module == "arthur_relay":
                    for alias in node.names:
                        assert hasattr(arthur_relay, alias.name), path


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_commands_that_the_gate_runs_are_there(name: str) -> None:
    assert command(name)


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


def test_the_plug_in_for_the_users_tests(pytester: pytest.Pytester) -> None:
    (line,) = re.findall(r"`(pytest_plugins = [^`]+)`", page("docs/testing.md"))
    pytester.makeconftest(line)
    pytester.makepyfile(
        """
        from arthur_relay import ArthurCallbackHandler, Inference
        from langchain_core.language_models.fake_chat_models import FakeListChatModel

        def test_sandbox(arthur_sandbox):
            handler = ArthurCallbackHandler.from_credentials(
                arthur_sandbox.model_id, arthur_url=arthur_sandbox.url,
                arthur_login=arthur_sandbox.login, arthur_password=arthur_sandbox.password,
            )
            model = FakeListChatModel(responses=["out"], callbacks=[handler])
            model.invoke("in")
            handler.relay.close()
            (row,) = arthur_sandbox.inferences
            assert row["inference_data"]["output_text"] == "out"

        def test_memory(arthur_memory):
            relay, destination = arthur_memory
            relay.capture(Inference(input_text="in", output_text="out"))
            relay.flush()
            assert len(destination.inferences) == 1
        """
    )
    # As a process, because here the package was imported long ago.
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2)


def test_the_example_with_spans(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["arthur_relay.testing"]')
    pytester.makepyfile(python_block(0, "docs/testing.md"))
    result = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)


def test_without_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_arthur(monkeypatch)
    with ArthurSandbox() as sandbox:
        for name, value in sandbox.environment().items():
            monkeypatch.setenv(name, value)
        exec(compile(python_block(0, "docs/usage.md"), "usage.md", "exec"), {})
        (row,) = sandbox.inferences
    data = row["inference_data"]
    expected = {"input_text": "…", "output_text": "…", "duration": 1.5, "user_id": "u1"}
    assert data == expected | {"outcome": "ok"}


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
