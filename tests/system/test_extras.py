"""A package that is missing is an error that says which extra brings it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from arthur_relay.system.extras import MissingExtraError, needed_by

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
