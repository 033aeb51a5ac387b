"""The names are where the table says, in the packages that are installed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pytest

from arthur_relay.migration.moved_names import KEPT_MODULES, MOVED, Place, is_gone

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize("place", sorted(set(MOVED.values())), ids=".".join)
def test_a_name_is_where_the_table_says(place: Place) -> None:
    assert hasattr(import_module(place.module), place.name)


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_module_that_is_kept_has_not_moved_whole(name: str) -> None:
    module = name.rpartition(".")[0]
    assert is_gone(module) or module.startswith(("langchain_community", "langchain.chat_models"))


@pytest.mark.skipif(find_spec("langchain") is None, reason="LangChain itself is not installed")
@pytest.mark.parametrize("module", sorted(KEPT_MODULES))
def test_a_module_that_is_kept_is_there(module: str) -> None:
    assert find_spec(module) is not None


@pytest.mark.skipif(find_spec("langchain") is None, reason="LangChain itself is not installed")
@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_module_that_is_gone_is_not_there(name: str) -> None:
    top = ".".join(name.split(".")[:2])
    assert not is_gone(name) or find_spec(top) is None
