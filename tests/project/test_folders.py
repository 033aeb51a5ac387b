"""Tests stand in folders named after the packages, so that a module leads to its tests."""

from __future__ import annotations

import pytest

from tests.readme import ROOT

pytestmark = pytest.mark.one_python

SOURCE = ROOT / "src" / "arthur_relay"
TESTS = ROOT / "tests"

WHOLE = {
    "benchmarks",
    "conformance",
    "deploy",
    "end_to_end",
    "engine_acceptance",
    "engine_conformance",
    "engine_sdk",
    "examples",
    "fidelity",
    "fuzz",
    "hosts",
    "process",
    "project",
    "providers",
    "soak",
    "type_checks",
}
"""Folders of tests that are about the whole, each about one side of it."""


def packages() -> set[str]:
    return {path.parent.name for path in SOURCE.glob("*/__init__.py")}


def modules() -> set[str]:
    return {path.stem for path in SOURCE.glob("*.py")}


def folders() -> set[str]:
    return {path.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/*.py")}


def test_each_package_has_a_folder_of_tests() -> None:
    for name in packages():
        assert list((TESTS / name).rglob("test_*.py")), f"tests/{name} has no tests"


def test_each_folder_of_tests_is_that_of_a_package_or_a_module() -> None:
    assert folders() - WHOLE <= packages() | modules()


def test_the_folders_of_the_whole_are_there_and_no_packages() -> None:
    assert folders() >= WHOLE
    assert not WHOLE & packages()


def test_each_file_beside_the_folders_is_about_a_module() -> None:
    assert {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py")} <= modules()
