"""The small files beside the code: they can be read, and say what the project says elsewhere."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import pytest
import yaml

from arthur_relay.system.extras import PACKAGES
from tests.readme import ROOT

pytestmark = pytest.mark.one_python

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def parsed(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_the_projects_version_and_licence() -> None:
    citation = parsed("CITATION.cff")
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert [each["name"] for each in citation["authors"]] == [
        each["name"] for each in PROJECT["authors"]
    ]


def test_the_changelog_has_the_version_with_its_day_and_a_place_for_what_is_next() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(re.escape(PROJECT["version"]) + r" - \d{4}-\d\d-\d\d", headings[1])


def test_the_projects_addresses_are_those_of_one_repository() -> None:
    repository = PROJECT["urls"]["Repository"]
    assert all(address.startswith(repository) for address in PROJECT["urls"].values())
    for name in ("mkdocs.yml", "tests/deploy/readme.py"):
        assert repository in (ROOT / name).read_text(encoding="utf-8")


def test_hooks_run_what_the_gate_runs() -> None:
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    [repository] = parsed(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"  # so that versions stand in one place
    for hook in repository["hooks"]:
        words = hook["entry"].removesuffix(" --fix").split()
        assert "session.run(" + ", ".join(f'"{word}"' for word in words) in sessions


def test_each_folder_of_tests_is_run_by_the_readmes_command_or_by_a_session() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    default = options["pytest"]["ini_options"]["testpaths"]
    sessions = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("test_*.py")}
    assert files <= set(default)
    folders = {path.parent for path in (ROOT / "tests").glob("*/**/test_*.py")}
    for folder in sorted({path.relative_to(ROOT).parts[1] for path in folders}):
        run = [each for each in default if each == f"tests/{folder}"]
        run += re.findall(rf'"tests/{folder}["/]', sessions)
        assert run, f"nothing runs tests/{folder}"


def test_the_gate_runs_every_session() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    named = set(re.findall(r"^@nox\.session.*\ndef (\w+)\(", noxfile, re.MULTILINE))
    run = set(re.findall(r"nox -s (\w+)", gate))
    for listed in re.findall(r"sessions\+?=\(([^)]*)\)", gate):
        run |= {each.strip('"').partition("-")[0] for each in listed.split()}
    # The gate has the README's command, of which `tests` is the same.
    assert named - run == {"tests"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_no_more_than_it_says(path: Any) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_the_gate_runs_on_every_python_that_is_claimed() -> None:
    claimed = {
        each.rpartition(" ")[2]
        for each in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", each)
    }
    steps = parsed(".github/workflows/ci.yaml")["jobs"]["gate"]["steps"]
    [set_up] = [step for step in steps if "setup-python" in step.get("uses", "")]
    assert set(set_up["with"]["python-version"].split()) == claimed


def test_templates_ask_for_something() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert {"name", "description", "body"} <= form.keys()
        ids = [each["id"] for each in form["body"] if each["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0


@pytest.mark.parametrize("extra", list(PACKAGES))
def test_the_packages_that_an_error_names_an_extra_for_are_those_of_the_extra(extra: str) -> None:
    required = {
        re.split(r"[^a-z0-9-]", each.lower())[0]
        for each in PROJECT["optional-dependencies"][extra]
        if not each.startswith("arthur-relay")
    }
    brought_by = packages_distributions()
    brought = {name for package in PACKAGES[extra] for name in brought_by[package]}
    assert {re.sub(r"[-_.]+", "-", name.lower()) for name in brought} == required
