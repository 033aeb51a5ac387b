"""A package that is missing is an error that says which extra brings it."""

from __future__ import annotations

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING

import pytest

from arthur_relay.system.extras import PACKAGES, MissingExtraError, needed_by
from tests.readme import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.one_python


def import_from_testing() -> object:
    from arthur_relay.testing import ArthurSandbox

    return ArthurSandbox


def import_from_sandbox() -> object:
    from arthur_relay.sandbox import Faults

    return Faults


@pytest.mark.parametrize("attempt", [import_from_testing, import_from_sandbox])
@pytest.mark.parametrize("package", ["starlette", "uvicorn", "httptools"])
def test_the_sandbox_says_what_to_install(
    package: str, attempt: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = ("arthur_relay.sandbox", "arthur_relay.http_server", "uvicorn", package)
    for name in list(sys.modules):
        if name in ours or name.startswith(tuple(f"{each}." for each in ours)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError) as raised:
        attempt()
    assert str(raised.value) == (
        f"The sandbox needs {package}, which is not installed:"
        " run pip install 'arthur-relay[daemon]'."
    )


def test_a_package_of_no_extra_is_told_as_it_is() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match="No module named 'other'") as raised,
        needed_by("x"),
    ):
        raise ModuleNotFoundError("No module named 'other'", name="other")
    assert not isinstance(raised.value, MissingExtraError)


@pytest.mark.parametrize("extra", list(PACKAGES))
def test_the_packages_are_those_of_the_extra(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {
        re.split(r"[^a-z0-9-]", each.lower())[0]
        for each in project["optional-dependencies"][extra]
        if not each.startswith("arthur-relay")
    }
    brought_by = packages_distributions()
    brought = {name for package in PACKAGES[extra] for name in brought_by[package]}
    assert {re.sub(r"[-_.]+", "-", name.lower()) for name in brought} == required
