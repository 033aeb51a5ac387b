"""One server for all tests of a process, and a stream for each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from arthur_relay.broker.settings import BrokerSettings
from tests.broker.servers import NatsServer, single

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that stays."""
    with single(tmp_path_factory.mktemp("nats")) as found:
        yield found


@pytest.fixture
def broker(server: NatsServer) -> BrokerSettings:
    """The settings for a stream of the test's own."""
    return BrokerSettings(
        url=server.url,
        stream=f"ROWS_{next(_numbers)}",
        replicas=1,
        allow_unreplicated=True,
        bytes=64 << 20,
        ack_wait_seconds=2.0,
    )
