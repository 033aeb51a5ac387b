"""The provider tests run where the client packages are, and are skipped everywhere else.

`python -m tests.providers.environment .venv-providers` makes such a place. No request leaves this
machine: a connection to another address fails the test that makes it.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from .clients import CLIENTS
from .server import Server

NEEDED = ("langchain_openai", "langchain_mistralai", "langchain_aws", "langchain_litellm")

KEYS = ("_API_KEY", "_API_TOKEN", "_ACCESS_KEY", "_BASE_URL", "_API_BASE", "_ENDPOINT", "_PROXY")

ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # its price list comes from GitHub
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGSMITH_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "*",
}


class WithoutPackages(pytest.Module):
    """A test module that is not even imported, because what it imports is not installed."""

    def collect(self) -> NoReturn:
        pytest.skip(
            "needs LangChain's provider packages: see tests/providers/environment.py",
            allow_module_level=True,
        )


def pytest_pycollect_makemodule(module_path: Any, parent: pytest.Collector) -> pytest.Module | None:
    # The page is made of the table alone.
    if module_path.name != "test_page.py" and not all(map(importlib.util.find_spec, NEEDED)):
        return WithoutPackages.from_parent(parent, path=module_path)
    return None


# Of the package: the tests of other folders that come after these have the environment back.
@pytest.fixture(scope="package", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Take the developer's own keys and addresses away: the packages look for them.

    Each client loads the certificates of all authorities, and nothing here speaks TLS: so there
    are none.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.upper().endswith(KEYS):
                patch.delenv(name)
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("authorities")))
        yield


@pytest.fixture(autouse=True)
def _no_request_leaves_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse each name and address of other machines, and fail the test that asked for it."""
    asked: list[str] = []
    connect, connect_ex, getaddrinfo = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def check(host: Any) -> None:
        if not _is_local(host):
            asked.append(str(host))
            raise ConnectionRefusedError(f"a test may not leave this machine: {host}")

    def checked_connect(self: socket.socket, address: Any) -> None:
        check(address[0] if isinstance(address, tuple) else None)
        connect(self, address)

    def checked_connect_ex(self: socket.socket, address: Any) -> int:
        check(address[0] if isinstance(address, tuple) else None)
        return connect_ex(self, address)

    def checked_getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        check(host)
        return getaddrinfo(host, *args, **options)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", checked_connect_ex)
    monkeypatch.setattr(socket, "getaddrinfo", checked_getaddrinfo)
    yield
    assert not asked, f"asked for other machines: {asked}"


def _is_local(host: Any) -> bool:
    if host is None or host in ("", "localhost", b"localhost"):  # a path of a socket, or any
        return True
    try:
        name = host.decode() if isinstance(host, bytes) else host
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for all clients' formats."""
    with Server({client.wire.name: client.wire for client in CLIENTS}.values()) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let pass what is no fault of ours, in this directory only."""
    for item in items:
        if "providers" in item.path.parts:
            for warning in WARNINGS:
                item.add_marker(pytest.mark.filterwarnings(warning))


WARNINGS = (
    # `stream_events(version="v3")` is in beta, and says so whenever it is called.
    "ignore::langchain_core._api.beta_decorator.LangChainBetaWarning",
    # litellm makes and reads its types in ways that this pydantic warns of.
    "ignore:Items? '.*' on TypedDict class:UserWarning",
    "ignore:Accessing the 'model_(computed_)?fields' attribute on the instance:DeprecationWarning",
    # The peers' tracers write litellm's own objects with pydantic.
    "ignore:Pydantic serializer warnings:UserWarning",
    # google-genai makes its own class of aiohttp's session.
    "ignore:Inheritance class AiohttpClientSession:DeprecationWarning",
    # google-genai does not await what aiohttp has of an error's body.
    "ignore:coroutine 'ClientResponse.json' was never awaited:RuntimeWarning",
)
