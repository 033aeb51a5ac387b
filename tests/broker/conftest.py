"""One server for all tests of a process, with a stream for each; a cluster for a module."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from arthur_relay.broker.settings import BrokerSettings
from tests.broker.servers import NatsCluster, NatsServer

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that stays; a test that ends it or has it hang needs one of its own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as running:
        yield running


@pytest.fixture(scope="module")
def _cluster_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster(_cluster_of_the_module: NatsCluster) -> NatsCluster:
    """Three servers, all of which work, whatever the test before did to them."""
    _cluster_of_the_module.restore()
    return _cluster_of_the_module


@pytest.fixture
def stream() -> str:
    """The name of a stream of the test's own."""
    return f"ROWS_{next(_numbers)}"


@pytest.fixture
def broker(server: NatsServer, stream: str) -> BrokerSettings:
    """The settings for that stream, on the server that stays."""
    return BrokerSettings(
        url=server.url,
        stream=stream,
        replicas=1,
        allow_unreplicated=True,
        bytes=64 << 20,
        ack_wait_seconds=2.0,
    )
