"""A broker that can't be used, each in its way: one sentence, and what a person must do."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import nats.errors
import pytest
import trustme

from arthur_relay.broker.errors import BrokerAwayError
from arthur_relay.broker.link import Link
from arthur_relay.broker.monitoring import NoMonitoringError, check_sync
from arthur_relay.broker.nats.connection import Connection
from arthur_relay.broker.nats.reasons import _of_opening
from arthur_relay.broker.provision import Provision
from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import differences, shared_stream, stream_settings
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError, SettingsError
from tests.broker.servers import NatsServer, Options, ReservedPort
from tests.waiting import turn_until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.one_python

SCOPE = (Product.SCOPE,)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def settings(server: NatsServer, **values: Any) -> BrokerSettings:
    """Return the settings of a fleet on one server."""
    given = {"url": server.url, "replicas": 1, "allow_unreplicated": True, "bytes": 1 << 20}
    return BrokerSettings(**{**given, **values})


@asynccontextmanager
async def opened(broker: BrokerSettings) -> AsyncIterator[Connection]:
    """Yield an open connection."""
    connection = Connection(broker, "a test")
    await connection.open()
    try:
        yield connection
    finally:
        await connection.close()


async def ask(connection: Connection, question: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the broker's API directly, as an operator's tools do."""
    content = json.dumps(body).encode() if body is not None else b""
    return json.loads(await connection.ask(f"$JS.API.{question}", content))


async def config_of(connection: Connection) -> dict[str, Any]:
    """Return how the stream of rows is configured."""
    found = await StoredStream(connection, connection.settings.stream).describe()
    assert found is not None
    return dict(found["config"])


async def refusal_of(broker: BrokerSettings) -> str:
    """Return why a start is refused."""
    with pytest.raises(ConfigurationError) as found:
        async with opened(broker) as connection:
            await Provision(connection, SCOPE).prepare()
    return str(found.value)


@pytest.mark.anyio
async def test_a_broker_that_is_not_there_is_waited_for() -> None:
    port = ReservedPort()
    broker = BrokerSettings(url=f"nats://127.0.0.1:{port.number}")
    link = Link(Connection(broker, "a test"), SCOPE)
    running = asyncio.create_task(link.run())
    try:
        await link.look()
        assert "the broker can't be reached" in link.trouble
        assert "onnect" in link.trouble
        assert not link.ready.is_set()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        port.close()


@pytest.mark.anyio
async def test_a_host_that_does_not_exist_is_waited_for() -> None:
    with pytest.raises(BrokerAwayError):
        await Connection(BrokerSettings(url="nats://nowhere.invalid:4222"), "a test").open()


@asynccontextmanager
async def old_server(version: str) -> AsyncIterator[str]:
    """Yield the address of a server of a version, which does nothing but greet."""
    info = {"server_id": "x", "version": version, "max_payload": 1 << 20, "jetstream": True}

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.anyio
@pytest.mark.parametrize("version", ["2.9.10", "2.13.4", "1.4.1"])
async def test_an_old_broker_is_refused(version: str) -> None:
    async with old_server(version) as url:
        found = await refusal_of(BrokerSettings(url=url))
    assert found == f"The broker's version is {version}; it has to be 2.14 or newer."


@pytest.mark.anyio
async def test_an_account_without_jetstream_is_refused(tmp_path: Path) -> None:
    more = "accounts { A { users: [{ user: a, password: b }] } }"
    with NatsServer(tmp_path, options=Options(more=more)) as server:
        found = await refusal_of(settings(server, url=server.url.replace("//", "//a:b@")))
    assert found.startswith("JetStream is off at the broker, for its server or for our account")


@pytest.mark.anyio
async def test_wrong_credentials_are_refused(tmp_path: Path) -> None:
    options = Options(more="authorization { user: relay, password: right }")
    with NatsServer(tmp_path, options=options) as server:
        for who in ("", "relay:wrong@", "other:right@"):
            broker = settings(server, url=server.url.replace("//", f"//{who}"))
            found = await refusal_of(broker)
            assert found.startswith("The broker refuses our credentials"), found
            assert "wrong" not in found
        right = settings(server, url=server.url.replace("//", "//relay:right@"))
        async with opened(right) as connection:
            await Provision(connection, SCOPE).prepare()


@pytest.mark.anyio
async def test_a_reset_behind_a_refusal_does_not_hide_it() -> None:
    connection = Connection(BrokerSettings(url="nats://127.0.0.1:1"), "a test")
    for error in (
        ConnectionResetError(104, "reset"),
        nats.errors.AuthorizationError(),
        ConnectionResetError(104, "reset"),
    ):
        await connection._on_error(error)
    assert connection.trouble == "it refuses our credentials"


@pytest.mark.anyio
async def test_what_another_daemon_makes_meanwhile_is_made(
    server: NatsServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    ask = Connection.ask_api

    async def ask_late(self: Connection, question: str, body: Any = None) -> Any:
        found = await ask(self, question, body)
        if ".CREATE." in question and len(made) < 3:
            made.append(question)
            raise ConfigurationError("it exists already")
        return found

    monkeypatch.setattr(Connection, "ask_api", ask_late)
    async with opened(settings(server, stream=stream)) as connection:
        await Provision(connection, SCOPE).prepare()
    assert len(made) == 3


def test_a_handshake_that_ends_is_no_refusal() -> None:
    assert isinstance(_of_opening(ssl.SSLEOFError(8, "EOF occurred")), BrokerAwayError)
    assert isinstance(_of_opening(ssl.SSLError(1, "wrong version")), ConfigurationError)


@pytest.mark.anyio
async def test_an_account_that_may_not_ask_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arthur_relay.broker.nats.connection.REQUEST_SECONDS", 0.5)
    more = (
        "authorization { users: [{ user: a, password: b, permissions: {"
        ' publish: { deny: "$JS.API.STREAM.>" } } }] }'
    )
    with NatsServer(tmp_path, options=Options(more=more)) as server:
        found = await refusal_of(settings(server, url=server.url.replace("//", "//a:b@")))
    assert found.startswith("The broker's account does not let us do what we have to"), found
    assert "$JS.API.STREAM.INFO" in found.replace("$js.api.stream.info", "$JS.API.STREAM.INFO")


@pytest.mark.anyio
@pytest.mark.parametrize("content", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nxx\n", "SUA"])
async def test_a_file_without_credentials_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "relay.creds"
    path.write_text(content)
    broker = BrokerSettings(url="nats://127.0.0.1:1", credentials_file=path)
    with pytest.raises(SettingsError, match="neither a user's credentials nor the seed"):
        await Connection(broker, "a test").open()


@pytest.mark.anyio
async def test_an_nkey_is_used(tmp_path: Path) -> None:
    nkeys = pytest.importorskip("nkeys")
    pair = nkeys.from_seed(bytearray(nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)))
    options = Options(more=f"authorization {{ users: [{{ nkey: {pair.public_key.decode()} }}] }}")
    path = tmp_path / "relay.nk"
    path.write_bytes(bytes(pair.seed) + b"\n")
    with NatsServer(tmp_path, options=options) as server:
        async with opened(settings(server, credentials_file=path)) as connection:
            await Provision(connection, SCOPE).prepare()


def certificate_of_a_server(directory: Path) -> tuple[Path, Path, Path]:
    """Write a certificate for 127.0.0.1; returns its path, its key's, and its authority's."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    paths = directory / "cert", directory / "key", directory / "ca"
    paths[0].write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(paths[1])
    authority.cert_pem.write_to_path(paths[2])
    return paths


@pytest.mark.anyio
async def test_tls_is_what_was_asked_for(tmp_path: Path) -> None:
    certificate, key, authority = certificate_of_a_server(tmp_path)
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    with NatsServer(tmp_path, options=Options(more=tls, scheme="tls")) as server:
        found = await refusal_of(settings(server))
        assert found.startswith("The broker's certificate can't be trusted"), found
        async with opened(settings(server, ca_file=authority)) as connection:
            await Provision(connection, SCOPE).prepare()
    with NatsServer(tmp_path, "plain") as server:
        broker = settings(server, url=server.url.replace("nats:", "tls:"), ca_file=authority)
        found = await refusal_of(broker)
        assert found.startswith("ARTHUR_RELAY_BROKER_URL has tls://, and the broker has no TLS")


@pytest.mark.anyio
async def test_a_client_without_its_certificate_is_refused(tmp_path: Path) -> None:
    certificate, key, authority = certificate_of_a_server(tmp_path)
    tls = (
        f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority}",'
        " verify: true }"
    )
    with NatsServer(tmp_path, options=Options(more=tls, scheme="tls")) as server:
        found = await refusal_of(settings(server, ca_file=authority))
    assert found.startswith("There is no TLS with the broker"), found


@pytest.mark.anyio
async def test_one_server_can_t_keep_three_copies(server: NatsServer, stream: str) -> None:
    found = await refusal_of(settings(server, stream=stream, replicas=3))
    assert found.startswith(f"The broker refuses to make the stream {stream}: replicas"), found


@pytest.mark.anyio
async def test_what_is_missing_is_not_made_unless_it_may_be(
    server: NatsServer, stream: str
) -> None:
    found = await refusal_of(settings(server, stream=stream, create=False))
    assert found.startswith(f"The broker has no stream {stream}, and ARTHUR_RELAY_BROKER_CREATE")
    async with opened(settings(server, stream=stream)) as connection:
        await Provision(connection, SCOPE).prepare()
    async with opened(settings(server, stream=stream, create=False)) as connection:
        await Provision(connection, SCOPE).prepare()


@pytest.mark.anyio
async def test_each_difference_is_said(server: NatsServer, stream: str) -> None:
    broker = settings(server, stream=stream)
    async with opened(broker) as connection:
        await Provision(connection, SCOPE).prepare()
        config = await config_of(connection)
        await ask(
            connection, f"STREAM.UPDATE.{stream}", {**config, "max_msgs": 10, "max_age": 10**12}
        )
    found = await refusal_of(settings(server, stream=stream, in_flight=90, ack_wait_seconds=7))
    for each in (
        f"stream {stream}: max_age is 1000 s, not 0 s (ARTHUR_RELAY_BROKER_MAX_AGE_SECONDS)",
        "max_msgs is 10, not -1",
        "consumer scope-inf-0, consumer scope-inf-1",
        "ack_wait is 60 s, not 7 s (ARTHUR_RELAY_BROKER_ACK_WAIT_SECONDS)",
        "max_ack_pending is 128, not 10 (ARTHUR_RELAY_BROKER_IN_FLIGHT)",
    ):
        assert each in found
    assert found.count("ack_wait") == 1


@pytest.mark.anyio
async def test_a_difference_names_the_setting_that_it_comes_from(
    server: NatsServer, stream: str
) -> None:
    async with opened(settings(server, stream=stream)) as connection:
        await Provision(connection, SCOPE).prepare()
        with pytest.raises(ConfigurationError) as found:
            await Provision(connection, SCOPE, dead_letter_bytes=1 << 20).prepare()
    assert "ARTHUR_RELAY_DEAD_LETTER_BYTES" in str(found.value)
    assert "BROKER_BYTES" not in str(found.value)
    shared = shared_stream(settings(server, stream=stream))
    (difference,) = differences({"max_bytes": 1}, {"max_bytes": 2}, stream_settings(shared))
    assert difference == "max_bytes is 2, not 1"


@pytest.mark.anyio
async def test_a_foreign_stream_with_our_subjects_is_said(server: NatsServer, stream: str) -> None:
    async with opened(settings(server, stream=stream)) as connection:
        theirs = {"name": f"{stream}_THEIRS", "subjects": [f"{stream}.scope.>"], "storage": "file"}
        await ask(connection, f"STREAM.CREATE.{stream}_THEIRS", theirs)
    found = await refusal_of(settings(server, stream=stream))
    assert found.startswith(f"The broker refuses to make the stream {stream}: subjects overlap")


@pytest.mark.anyio
async def test_a_broker_that_syncs_later_is_refused(server: NatsServer, tmp_path: Path) -> None:
    await check_sync([server.monitoring_url])
    with NatsServer(tmp_path, options=Options(sync="2m")) as lazy:
        with pytest.raises(ConfigurationError, match="sync_interval: always"):
            await check_sync([server.monitoring_url, lazy.monitoring_url])
        link = Link(Connection(settings(lazy, monitoring_url=lazy.monitoring_url), "a test"), SCOPE)
        running = asyncio.create_task(link.run())
        try:
            with pytest.raises(ConfigurationError, match="minutes before they are on its disks"):
                await link.look()
            assert not link.ready.is_set()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await link.connection.close()
    with pytest.raises(NoMonitoringError, match="can't be asked"):
        await check_sync([server.monitoring_url, lazy.monitoring_url])


@pytest.mark.anyio
async def test_a_change_is_noticed_after_the_connection_was_lost(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        broker = settings(server)
        link = Link(Connection(broker, "a test"), SCOPE)
        running = asyncio.create_task(link.run())
        try:
            await link.look()
            assert link.trouble == ""
            config = await config_of(link.connection)
            changed = {**config, "max_msgs": 10}
            await ask(link.connection, f"STREAM.UPDATE.{broker.stream}", changed)
            await asyncio.to_thread(server.restart)
            await turn_until(lambda: "max_msgs is 10, not -1" in link.trouble)
            assert not link.ready.is_set()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await link.connection.close()


def test_plain_text_leaves_no_machine_unless_it_may() -> None:
    broker = BrokerSettings(url="nats://127.0.0.1:1,nats://broker.example:4222")
    with pytest.raises(SettingsError, match="nats://broker.example"):
        broker.check(allow_insecure=False)
    broker.check(allow_insecure=True)
    BrokerSettings(url="tls://broker.example:4222,nats://[::1]:4222").check(allow_insecure=False)
