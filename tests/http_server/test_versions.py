"""The versions of uvicorn that `http_server` is for, and all of its inside that it uses.

To let a new minor version in: read its `protocols/http/httptools_impl.py`, `flow_control.py` and
`server.py` beside those of the version before, mend `http_server` and the tables here where they
differ, raise `constraints.txt` and the bound in `pyproject.toml`, and let the gate pass.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.version import Version
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

import arthur_relay
from arthur_relay import http_server
from arthur_relay.http_server.connection import Connection
from arthur_relay.http_server.framing import FramedProtocol

pytestmark = pytest.mark.one_python

ROOT = Path(__file__).parents[2]
READ = (
    "read uvicorn's protocols/http/httptools_impl.py, flow_control.py and server.py beside the"
    " version before, then mend http_server and this test"
)

OVERRIDDEN: dict[str, str] = {
    "__init__": "self, config, server_state, app_state, _loop",
    "connection_made": "self, transport",
    "connection_lost": "self, exc",
    "data_received": "self, data",
    "eof_received": "self",
    "on_message_begin": "self",
    "on_url": "self, url",
    "on_header": "self, name, value",
    "on_headers_complete": "self",
    "on_body": "self, body",
    "on_message_complete": "self",
    "on_response_complete": "self",
    "pause_writing": "self",
    "resume_writing": "self",
    "timeout_keep_alive_handler": "self",
}

CALLED: dict[Any, dict[str, str]] = {
    HttpToolsProtocol: {"shutdown": "self", "_unset_keepalive_if_required": "self"},
    FlowControl: {"pause_reading": "self", "resume_reading": "self"},
}

ATTRIBUTES: dict[Any, set[str]] = {
    HttpToolsProtocol: {
        *{"config", "cycle", "flow", "headers", "loop", "parser", "pipeline", "scheme", "scope"},
        *{"server_state", "transport"},
    },
    RequestResponseCycle: {
        *{"disconnected", "keep_alive", "message_event", "response_complete", "response_started"},
        "waiting_for_100_continue",
    },
    FlowControl: {"write_paused"},
    ServerState: {"connections", "tasks", "default_headers"},
}


def uvicorn_requirement() -> Requirement:
    """Return what the extra `daemon` asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = map(Requirement, project["optional-dependencies"]["daemon"])
    (found,) = [each for each in needed if each.name == "uvicorn"]
    return found


def parameters(function: Any) -> str:
    return ", ".join(inspect.signature(function).parameters)


def test_the_installed_uvicorn_is_in_the_range_that_is_declared() -> None:
    installed = version("uvicorn")
    assert installed in uvicorn_requirement().specifier, (
        f"uvicorn {installed} is not one that http_server was made for: {READ}"
    )


def test_the_range_ends_behind_the_version_that_the_gate_runs_with() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (pinned,) = re.findall(r"^uvicorn==(\S+)$", constraints, re.MULTILINE)
    major, minor = Version(pinned).release[:2]
    bounds = {each.operator: each.version for each in uvicorn_requirement().specifier}
    assert bounds["<"] == f"{major}.{minor + 1}", (
        f"constraints.txt has uvicorn {pinned}: before pyproject.toml's bound is raised, {READ}"
    )


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_what_is_overridden_is_there(name: str) -> None:
    method = vars(HttpToolsProtocol).get(name)
    assert method is not None, f"uvicorn no longer calls {name}: {READ}"
    assert parameters(method) == OVERRIDDEN[name], f"uvicorn's {name} has changed: {READ}"


def test_all_that_is_overridden_stands_here() -> None:
    own = {name for each in (FramedProtocol, Connection) for name in vars(each)}
    of_uvicorn = {name for name, value in vars(HttpToolsProtocol).items() if callable(value)}
    assert own & of_uvicorn == set(OVERRIDDEN)


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in CALLED.items() for name in names]
)
def test_what_is_called_is_there(owner: Any, name: str) -> None:
    method = getattr(owner, name, None)
    assert method is not None, f"uvicorn's {owner.__name__} has no {name} any more: {READ}"
    assert parameters(method) == CALLED[owner][name], f"uvicorn's {name} has changed: {READ}"


@pytest.mark.parametrize("owner", ATTRIBUTES)
def test_the_attributes_that_are_used_are_there(owner: Any) -> None:
    lines = inspect.getsource(owner.__init__)
    found = set(re.findall(r"self\.(\w+)(?:: [^=\n]+)? =", lines))
    missing = ATTRIBUTES[owner] - found
    assert not missing, f"uvicorn's {owner.__name__} has no {missing} any more: {READ}"


def test_all_that_is_used_of_a_connection_stands_here() -> None:
    """Whatever `self` has that is not ours is in the tables above."""
    of_uvicorn = {name for name in vars(HttpToolsProtocol) if name[:2] != "__"}
    made = HttpToolsProtocol(
        uvicorn.Config(lambda: None, log_config=None), ServerState(), {}, asyncio.new_event_loop()
    )
    made.loop.close()
    of_uvicorn |= set(vars(made))
    used: set[str] = set()
    for module in ("framing", "connection"):
        text = (Path(http_server.__file__).parent / f"{module}.py").read_text(encoding="utf-8")
        used |= set(re.findall(r"(?:self|super\(\))\.(\w+)", text))
    known = set(OVERRIDDEN) | set(CALLED[HttpToolsProtocol]) | ATTRIBUTES[HttpToolsProtocol]
    assert (used & of_uvicorn) - known == set()


def test_the_package_names_each_of_them() -> None:
    tables = [OVERRIDDEN, *CALLED.values(), *ATTRIBUTES.values()]
    named = set(re.findall(r"`(\w+)`", http_server.__doc__ or ""))
    assert {name for table in tables for name in table} <= named


def test_nothing_else_knows_uvicorn() -> None:
    package = Path(arthur_relay.__file__).parent
    found = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if re.search(r"^\s*(?:import|from) uvicorn", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == {"http_server"}
