"""The README says what is so: its table of settings, its guide, its commands."""

from __future__ import annotations

import ast
import re
import textwrap
from enum import StrEnum
from pathlib import Path

import pytest

import arthur_relay
from arthur_relay.settings import ENVIRONMENT_PREFIX, RelaySettings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    """Return the README's table of settings, as it has to be."""
    lines = ["| setting | default | what it is |", "|---|---|---|"]
    for name, field in RelaySettings.model_fields.items():
        default = field.default
        shown = default.value if isinstance(default, StrEnum) else str(default).lower()
        lines.append(f"| `{name}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_the_table_of_settings_is_the_settings() -> None:
    found = re.search(r"<!-- settings -->\n(.*?)\n<!-- /settings -->", README, re.DOTALL)
    assert found is not None
    assert found[1] == settings_table(), "replace the README's table by settings_table()"


def benchmark_summary() -> str:
    """Return the facts and the first table of the benchmark's report, as the README has them."""
    report = (ROOT / "tests" / "benchmarks" / "report" / "report.md").read_text(encoding="utf-8")
    facts = re.search(r"\n\n((?:- [^\n]+\n)+)", report)
    table = re.search(r"## Summary\n\n(.*?\n)\n!", report, re.DOTALL)
    assert facts is not None
    assert table is not None
    return facts[1] + "\n" + table[1].rstrip()


def test_the_costs_are_those_of_the_report() -> None:
    found = re.search(r"<!-- benchmark -->\n(.*?)\n<!-- /benchmark -->", README, re.DOTALL)
    assert found is not None
    assert found[1] == benchmark_summary(), "replace the README's table by benchmark_summary()"


def test_every_variable_that_the_readme_names_exists() -> None:
    named = set(re.findall(rf"{ENVIRONMENT_PREFIX}([A-Z_]+)", README))
    assert {name.lower() for name in named} <= set(RelaySettings.model_fields)
    assert named


def test_every_public_name_that_the_readme_imports_exists() -> None:
    blocks = re.findall(r"^ *```python\n(.*?)^ *```", README, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        for node in ast.walk(ast.parse(textwrap.dedent(block))):
            if isinstance(node, ast.ImportFrom) and node.module == "arthur_relay":
                for alias in node.names:
                    assert hasattr(arthur_relay, alias.name)


@pytest.mark.parametrize("command", ["demo", "test"])
def test_the_commands_that_the_gate_runs_are_there(command: str) -> None:
    assert re.search(rf"<!-- command: {command} -->\n```sh\n[^\n]+\n```", README)


def test_every_file_that_the_guides_name_exists() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = ROOT / "src" / "arthur_relay"
    for name in re.findall(r"`([a-z_/]+(?:\.py|/))`", contributing):
        folders = [source, source / "pipeline", source / "encoding", source / "destinations", ROOT]
        assert any((folder / name).exists() for folder in folders), name


def environment_file() -> str:
    """Return deploy/arthur-relay.env, as it has to be."""
    lines = [
        "# The environment of an application that logs to Arthur by arthur-relay: a template.",
        "# For systemd's EnvironmentFile=, docker's --env-file, or `set -a; . ./arthur-relay.env`.",
        "# Keep the secrets out of it where your platform has a place for them.",
        "",
        "# Arthur. These are the variables of Arthur's own SDK.",
        "ARTHUR_ENDPOINT_URL=https://app.arthur.ai",
        "ARTHUR_MODEL_ID=",
        "# A key, or else a login and its password.",
        "ARTHUR_API_KEY=",
        "#ARTHUR_LOGIN=",
        "#ARTHUR_PASSWORD=",
        "#ARTHUR_ORGANIZATION_ID=",
        "#VERIFY_SSL=true",
        "",
        "# The relay. What is commented out is the default; README.md has the same as a table.",
    ]
    for name, field in RelaySettings.model_fields.items():
        default = field.default
        shown = default.value if isinstance(default, StrEnum) else str(default).lower()
        lines += ["", f"# {field.description}", f"#{ENVIRONMENT_PREFIX}{name.upper()}={shown}"]
    return "\n".join(lines) + "\n"


def test_the_template_of_an_environment_names_every_setting() -> None:
    found = (ROOT / "deploy" / "arthur-relay.env").read_text(encoding="utf-8")
    assert found == environment_file(), "replace the file by environment_file()"
