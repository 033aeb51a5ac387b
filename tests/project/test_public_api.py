"""What a user meets in a public signature can be imported from a public module."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import types
import typing
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

import arthur_relay
import arthur_relay.sandbox
import arthur_relay.testing

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.one_python

OTHERS = ("httpx", "httpcore", "tenacity", "uvicorn", "starlette")
"""Libraries whose types stay behind our own: they may be replaced."""


def public(module: types.ModuleType) -> dict[str, Any]:
    """Return what a module gives to users, by name."""
    if hasattr(module, "__all__"):
        return {name: getattr(module, name) for name in module.__all__}
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    ]
    return {name: getattr(module, name) for name in (*own, "ArthurSandbox", "LLM_ATTRIBUTES")}


ENTRANCES = {**public(arthur_relay), **public(arthur_relay.testing)}
EXPORTED = [*ENTRANCES.values(), *public(arthur_relay.sandbox).values()]


@cache
def names_in(module: types.ModuleType) -> dict[str, Any]:
    """Return the names of a module, with those that it imports for type checking only."""
    names = dict(vars(module))
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), body=body):
                for statement in body:
                    if isinstance(statement, ast.ImportFrom):
                        there = importlib.import_module(str(statement.module))
                        for name in statement.names:
                            names[name.asname or name.name] = getattr(there, name.name)
    return names


def hints(annotated: Any, module_name: str) -> dict[str, Any]:
    """Return the annotations of a function, or of a class's own fields, resolved."""
    names = names_in(importlib.import_module(module_name))
    if isinstance(annotated, type):
        # A copy, because the bases' annotations have names of other modules.
        own = vars(annotated).get("__annotations__", {})
        annotated = types.SimpleNamespace(__annotations__=own)
    return typing.get_type_hints(annotated, names, names)


def parts(hint: Any) -> Iterator[Any]:
    """Yield the classes of which a type is made."""
    if isinstance(hint, list):  # a function's arguments
        for each in hint:
            yield from parts(each)
        return
    if (origin := typing.get_origin(hint)) is not None:
        yield origin
        for each in typing.get_args(hint):
            yield from parts(each)
        return
    yield hint


def functions(owner: type) -> Iterator[tuple[str, Any]]:
    """Yield the functions of a class that a user may call; some have names with underscores."""
    for name, value in vars(owner).items():
        if name.startswith("_") and name not in ("__init__", "__call__"):
            continue
        function = value.fget if isinstance(value, property) else inspect.unwrap(value)
        if isinstance(function, (classmethod, staticmethod)):
            function = function.__func__
        if inspect.isfunction(function) and function.__module__.startswith("arthur_relay"):
            yield name, function


def signatures(name: str, entrance: Any) -> Iterator[tuple[str, Any]]:
    """Yield each type in the signatures of what is public, and where it is."""
    if not isinstance(entrance, type):
        function = inspect.unwrap(entrance)
        if inspect.isfunction(function):
            for argument, hint in hints(function, function.__module__).items():
                yield f"{name}({argument})", hint
        return
    for owner in entrance.__mro__:
        if not owner.__module__.startswith("arthur_relay"):
            continue
        if not issubclass(owner, enum.Enum):
            for field, hint in hints(owner, owner.__module__).items():
                if not field.startswith("_"):
                    yield f"{name}.{field}", hint
        for method, function in functions(owner):
            for argument, hint in hints(function, function.__module__).items():
                yield f"{name}.{method}({argument})", hint


@cache
def found() -> list[tuple[str, Any]]:
    """Return each class in the signatures of what is public, and where it is."""
    return [
        (place, part)
        for name, entrance in ENTRANCES.items()
        for place, hint in signatures(name, entrance)
        for part in parts(hint)
    ]


def test_every_type_of_ours_is_exported() -> None:
    hidden = {
        f"{place}: {part.__module__}.{part.__qualname__}"
        for place, part in found()
        if isinstance(part, type)
        and part.__module__.startswith("arthur_relay")
        and not any(part is each for each in EXPORTED)
    }
    assert not hidden, "\n".join(sorted(hidden))


def test_no_type_of_a_library_behind_a_seam_is_shown() -> None:
    shown = {
        f"{place}: {part}"
        for place, part in found()
        if getattr(part, "__module__", "").partition(".")[0] in OTHERS
    }
    assert not shown, "\n".join(sorted(shown))


def test_the_walk_finds_what_there_is() -> None:
    places = {place for place, _ in found()}
    assert {
        "Relay.__init__(destination)",
        "Relay.aclose(return)",  # inherited
        "DeadLetter.kind",
        "RelaySettings.overflow",
        "Stats.dropped",
        "MemoryDestination.inferences(return)",
        "memory_relay(return)",
        "ArthurSandbox.requests(return)",
        "lifespan(handler_or_relay)",
    } <= places


def test_a_relay_shows_only_what_is_its_users() -> None:
    assert {name for name in dir(arthur_relay.Relay) if not name.startswith("_")} == {
        "aclose",
        "aflush",
        "capture",
        "close",
        "connect",
        "dead_letters",
        "flush",
        "from_credentials",
        "from_engine",
        "from_env",
        "health",
        "log_feedback",
        "log_ground_truth",
        "resubmit",
        "stats",
    }
