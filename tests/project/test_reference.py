"""The reference has every public name, once, with every public method."""

from __future__ import annotations

import ast
import enum
import inspect
import re
from typing import Any

import pytest
import yaml

import arthur_relay
import arthur_relay.sandbox
import arthur_relay.testing
from tests.readme import page, pages

pytestmark = pytest.mark.one_python

_ENTRY = re.compile(r"^::: ([\w.]+)\n((?: +[^\n]*\n)*)", re.MULTILINE)


def entries() -> dict[str, list[Any]]:
    """Return the options of each entry, by the name that it documents."""
    found: dict[str, list[Any]] = {}
    for path in pages():
        for name, options in _ENTRY.findall(page(path) + "\n"):
            read = yaml.safe_load(options) if options else {}
            found.setdefault(name, []).append(read.get("options", {}))
    return found


def named(name: str) -> Any:
    """Return what a name of a module stands for."""
    module, _, attribute = name.rpartition(".")
    modules = [arthur_relay, arthur_relay.testing, arthur_relay.sandbox]
    return getattr(next(each for each in modules if each.__name__ == module), attribute)


def test_every_public_name_is_there_once() -> None:
    public = {
        id(getattr(module, name)): f"{module.__name__}.{name}"
        for module in (arthur_relay.sandbox, arthur_relay.testing, arthur_relay)
        for name in module.__all__
    }
    found = entries()
    assert {name: len(options) for name, options in found.items() if len(options) > 1} == {}
    assert sorted(found) == sorted(public.values())


def test_a_list_of_members_is_whole() -> None:
    lists = {
        name: options["members"]
        for name, [options] in entries().items()
        if isinstance(options.get("members"), list)
    }
    assert {"arthur_relay.Relay", "arthur_relay.ArthurCallbackHandler"} <= lists.keys()
    for name, members in lists.items():
        owner = named(name)
        ours = {
            method
            for each in owner.__mro__
            if each.__module__.startswith("arthur_relay")
            for method, value in vars(each).items()
            if callable(getattr(value, "__func__", value)) and not method.startswith(("_", "on_"))
        }
        assert sorted(members) == sorted(ours), name


def undocumented(body: list[ast.stmt]) -> list[str]:
    """Return the assigned names in a class's body that no text follows."""
    found = []
    for statement, following in zip(body, [*body[1:], None], strict=True):
        match statement, following:
            case _, ast.Expr(value=ast.Constant(value=str())):
                pass
            case ast.Assign(targets=[ast.Name(id=name)]), _:
                found.append(name)
    return found


def test_every_value_of_a_public_enum_says_what_it_is() -> None:
    """One without a text would not be in the reference at all."""
    enums = [
        value
        for value in map(named, entries())
        if isinstance(value, type) and issubclass(value, enum.Enum)
    ]
    assert len(enums) > 10
    for each in enums:
        [definition] = ast.parse(inspect.getsource(each)).body
        assert isinstance(definition, ast.ClassDef)
        assert undocumented(definition.body) == [], each
