"""The daemon: composes the pipeline with a spool and listeners, runs them, and shuts them down."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from arthur_relay.daemon.api import create_app
from arthur_relay.daemon.auth import Authenticator, Endpoint, read_tokens
from arthur_relay.daemon.browsers import Browsers
from arthur_relay.daemon.clients import ClientAdmission, server_options
from arthur_relay.daemon.configuration import (
    check_listener,
    environment_unless_refused,
    unknown_variables,
)
from arthur_relay.daemon.connection_slots import ConnectionSlots
from arthur_relay.daemon.current import Current
from arthur_relay.daemon.descriptors import connections_that_fit
from arthur_relay.daemon.draining import report_draining
from arthur_relay.daemon.logs import products_named, set_level
from arthur_relay.daemon.other_routes import (
    ALL,
    FOR_BOTH,
    FOR_ENGINE,
    FOR_SCOPE,
    OF_ENGINE,
    other_routes,
)
from arthur_relay.daemon.product_service import ProductService
from arthur_relay.daemon.role_words import ROLE_WORDS
from arthur_relay.daemon.roles.host import Host
from arthur_relay.daemon.self_delivery import refuse_own_address
from arthur_relay.daemon.settings import RoleName, read_address
from arthur_relay.daemon.signals import Signals
from arthur_relay.daemon.sockets import (
    NOTHING_TO_LISTEN_ON,
    UnixSocket,
    listen_tcp,
    listen_unix,
    load_tls,
    refuse_in_spool,
    shown,
)
from arthur_relay.daemon.state import BEAT_SECONDS, DaemonState, Phase, liveness
from arthur_relay.daemon.systemd import Notifier, passed_sockets, watchdog_seconds
from arthur_relay.daemon.views import probe_routes, view_routes
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError, SettingsError
from arthur_relay.http_server.server import HttpServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from starlette.routing import BaseRoute

    from arthur_relay.daemon.configuration import Configuration
    from arthur_relay.daemon.log_writer import LogWriter
    from arthur_relay.daemon.roles import Role
    from arthur_relay.daemon.settings import DaemonSettings

logger = logging.getLogger("arthur_relay.daemon")

STATUS_SECONDS = 10.0

ANSWER_SECONDS = 5.0
"""How long the shutdown waits for requests in progress."""


class Daemon:
    """The relay of a host. Created and run in the main thread, on a loop of its own.

    Args:
        configuration: Its settings and credentials.
        reload: Reads the configuration anew, for SIGHUP.
        environment: Describes the sockets that the service manager passes.
        log: Writes the log, if that is the daemon's own.
    """

    def __init__(
        self,
        configuration: Configuration,
        reload: Callable[[], Configuration],
        environment: Mapping[str, str] = os.environ,
        log: LogWriter | None = None,
    ) -> None:
        self._configuration = configuration
        self._reload = reload
        self._environment = environment
        self._log = log
        self._notifier = Notifier.of(environment)
        self._role = _role(configuration)
        self._words = ROLE_WORDS[configuration.daemon.role]
        self._current = Current(
            configuration.daemon,
            self._read_access(configuration.daemon),
            products=len(configuration.products),
        )
        self._tls = load_tls(configuration.daemon)
        self._most_connections: int
        self._connections: Counter[str] = Counter()
        self._services: list[ProductService] = []
        self._passed_tcp: list[tuple[str, str]] = []
        self.phase = Phase.STARTING

    async def run(self) -> int:
        """Serve until a signal asks to stop. Returns the process's exit status.

        Raises:
            ConfigurationError: The spool, a socket or a file can't be used.
        """
        async with AsyncExitStack() as stack:
            signals = stack.enter_context(Signals())
            await self._role.enter(stack)
            unix, tcp, views = self._listen(self._configuration.daemon, stack)
            self._start_services(stack)
            servers = self._servers(unix, tcp, views)
            for server in servers.values():
                server.start()
            beat = asyncio.create_task(self._beat())
            self._enter(Phase.RUNNING)
            self._report_start(unix, tcp, views)
            try:
                await self._serve(signals)
                return await self._shut_down(servers, unix, signals)
            finally:
                beat.cancel()
                with suppress(asyncio.CancelledError):
                    await beat

    @property
    def _states(self) -> list[DaemonState]:
        return [service.state for service in self._services]

    def _enter(self, phase: Phase) -> None:
        """Enter a phase, which the views show."""
        self.phase = phase
        for state in self._states:
            state.phase = phase

    def _start_services(self, stack: AsyncExitStack) -> None:
        """Start the pipelines.

        Raises:
            ConfigurationError: One can't start.
        """
        if len(self._configuration.products) > 1:
            stack.enter_context(products_named())
        for each in self._configuration.products:
            station = self._role.station(each)
            service = ProductService(each, self._current, self._connections, self._log, station)
            self._services.append(service)
            stack.enter_context(service.state.seen.recent_errors.listening())
            stack.callback(service.end)
            service.start()

    def _listen(
        self, settings: DaemonSettings, stack: AsyncExitStack
    ) -> tuple[list[UnixSocket], list[socket.socket], list[socket.socket]]:
        """Open the listeners' sockets: Unix, TCP, views."""
        passed, tcp = passed_sockets(self._environment, os.getpid())
        for each in (*passed, *tcp):
            stack.callback(each.close)
        # TCP needs tokens and a certificate, whoever opened the socket.
        self._passed_tcp = [
            (each.getsockname()[0], f"A socket that is passed is {shown([each])}") for each in tcp
        ]
        self._check_passed(settings)
        unix = [UnixSocket(each) for each in passed]
        views: list[socket.socket] = []
        for name, value in (
            ("LISTEN", settings.listen),
            ("METRICS_LISTEN", settings.metrics_listen),
        ):
            if value is not None:
                found = listen_tcp(*read_address(value))
                (tcp if name == "LISTEN" else views).extend(found)
                for each in found:
                    stack.callback(each.close)
        if not unix and settings.socket is not None:
            if (spool_dir := self._configuration.spool_dir) is not None:
                refuse_in_spool(settings.socket, spool_dir)
            unix.append(
                listen_unix(settings.socket, mode=settings.socket_mode, group=settings.socket_group)
            )
        for one in unix:
            stack.callback(one.listener.close)
            stack.callback(one.remove)
        takes_rows = settings.role is not RoleName.WORKER
        if not (unix or tcp) and (takes_rows or not views):
            raise SettingsError(f"The daemon has nothing to listen on: {NOTHING_TO_LISTEN_ON}.")
        for product in self._configuration.products:
            refuse_own_address(
                product.credentials.url,
                [one.path or one.listener.getsockname() for one in unix],
                [each.getsockname()[:2] for each in (*tcp, *views)],
                variable=product.address_variable,
            )
        return unix, tcp, views

    def _check_passed(self, settings: DaemonSettings) -> None:
        """Check the passed sockets against the settings.

        Raises:
            SettingsError: The settings do not allow to listen on one of them.
        """
        for host, what in self._passed_tcp:
            check_listener(settings, self._configuration.relay, host, what)

    def _servers(
        self,
        unix: Sequence[UnixSocket],
        tcp: Sequence[socket.socket],
        views: Sequence[socket.socket],
    ) -> dict[Endpoint, HttpServer]:
        self._most_connections = connections_that_fit(
            self._configuration.daemon.max_connections,
            listeners=sum(map(bool, (unix, tcp, views))),
        )
        api = self._api_routes()
        probes, others = probe_routes(self._states), view_routes(self._states)
        found = {}
        if unix:
            sockets = [each.listener for each in unix]
            routes = [*api, *probes, *others]
            found[Endpoint.SOCKET] = self._server(Endpoint.SOCKET, routes, sockets)
        if tcp:
            found[Endpoint.TCP] = self._server(Endpoint.TCP, [*api, *probes], tcp, self._tls)
        if views:
            found[Endpoint.VIEWS] = self._server(Endpoint.VIEWS, [*probes, *others], views)
        return found

    def _api_routes(self) -> list[BaseRoute]:
        """Return the routes of the APIs whose rows are delivered."""
        own = [route for service in self._services for route in service.api_routes()]
        match [state.product for state in self._states]:
            case [Product.SCOPE]:
                return [*own, *other_routes(OF_ENGINE, FOR_SCOPE)]
            case [Product.ENGINE]:
                return [*own, *other_routes(ALL, FOR_ENGINE)]
            case _:
                return [*own, *other_routes(OF_ENGINE, FOR_BOTH)]

    def _server(
        self,
        endpoint: Endpoint,
        routes: Sequence[BaseRoute],
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None = None,
    ) -> HttpServer:
        slots = ConnectionSlots(endpoint, self._most_connections, self._connections)
        browsers = Browsers(endpoint, self._current, socket.gethostname().lower())
        app = create_app(routes, browsers, self._current)
        return HttpServer(
            app,
            sockets,
            options=server_options(endpoint),
            admission=ClientAdmission(endpoint, slots, self._current),
            tls=tls,
        )

    async def _serve(self, signals: Signals) -> None:
        while not signals.stop.is_set():
            await signals.any()
            if signals.take_reload() and not signals.stop.is_set():
                self._notifier.reloading()
                self._apply_reload()
                self._notifier.ready(self._status())

    async def _shut_down(
        self, servers: Mapping[Endpoint, HttpServer], unix: Sequence[UnixSocket], signals: Signals
    ) -> int:
        """Become unready, close the intake, then end deliveries. Returns the exit status."""
        deadline = time.monotonic() + self._configuration.relay.shutdown_timeout_seconds
        self._enter(Phase.DRAINING)
        self._notifier.stopping("Stopping: no more rows are taken.")
        logger.info("stopping: no more rows are taken, what waits is delivered until the deadline")
        drain = asyncio.create_task(self._drain(servers, unix, deadline))
        progress = asyncio.create_task(
            report_draining(
                self._rows_left,
                deadline=deadline,
                limit_seconds=self._configuration.relay.shutdown_timeout_seconds,
                log=self._log,
            )
        )
        again = asyncio.create_task(signals.again.wait())
        await asyncio.wait((drain, again), return_when=asyncio.FIRST_COMPLETED)
        forced = not drain.done()
        for task in (drain, again, progress):
            task.cancel()
        await asyncio.gather(drain, again, progress, return_exceptions=True)
        if forced:
            logger.warning("stopping at once: told so a second time")
            for server in servers.values():
                server.stop_accepting()
        await asyncio.gather(*(asyncio.to_thread(service.end) for service in self._services))
        for server in servers.values():
            server.stop_accepting()
            await server.finish(0.0 if forced else 0.5)
        for state, of_product in self._named_states():
            totals = state.pipeline.ledger.totals()
            logger.info(
                "stopped: %d rows%s were delivered, %d rejected, %s",
                totals.delivered,
                of_product,
                totals.rejected,
                state.station.describe_rest(totals),
            )
        return 1 if forced else 0

    def _rows_left(self) -> int:
        return sum(state.pipeline.ledger.totals().pending for state in self._states)

    async def _drain(
        self, servers: Mapping[Endpoint, HttpServer], unix: Sequence[UnixSocket], deadline: float
    ) -> None:
        intake = [server for endpoint, server in servers.items() if endpoint is not Endpoint.VIEWS]
        for one in unix:
            one.remove()
        for server in intake:
            server.stop_accepting()
        # The worker keeps running, because the answers to these requests wait for its commits.
        seconds = min(ANSWER_SECONDS, (deadline - time.monotonic()) / 2)
        await asyncio.gather(*(server.finish(seconds) for server in intake))
        await asyncio.gather(*(service.drain(deadline) for service in self._services))

    async def _beat(self) -> None:
        """Check all loops, and notify the service manager while they run."""
        interval = watchdog_seconds(self._environment, os.getpid())
        pause = BEAT_SECONDS if interval is None else min(BEAT_SECONDS, interval)
        reported_at = time.monotonic()

        while True:
            before = time.monotonic()
            for service in self._services:
                service.check_loop()
            await asyncio.sleep(pause)
            now = time.monotonic()
            for state in self._states:
                state.lag_seconds = max(0.0, now - before - pause)
                state.take_point()
            if interval is not None and liveness(self._states)[0]:
                self._notifier.watchdog()
            if now - reported_at >= STATUS_SECONDS and self.phase is Phase.RUNNING:
                reported_at = now
                self._notifier.status(self._status())

    def _apply_reload(self) -> None:
        """Apply the changes that a reload can make; a bad configuration changes nothing."""
        old = self._configuration
        try:
            # Proxies and certificate authorities are read from the environment later on.
            with environment_unless_refused():
                new = self._reload()
                merged = old.with_reloaded(new)
                self._check_passed(merged.daemon)
                access = self._read_access(merged.daemon)
                load_tls(merged.daemon, into=self._tls)
        except ConfigurationError as error:
            logger.error("nothing is reloaded, all goes on as it was: %s", error)  # noqa: TRY400 - the message says why
            return
        fixed = old.needs_restart(new)
        self._configuration = merged
        self._current.settings, self._current.access = merged.daemon, access
        for service, product in zip(self._services, merged.products, strict=True):
            # Connections too, whether or not the credentials differ.
            service.renew(product.credentials)
        set_level(self._configuration.daemon.log_level)
        logger.info(
            "reloaded: tokens, certificate, credentials, limits and log level are those of now"
        )
        if fixed:
            logger.warning("a restart is needed for the changes of: %s", ", ".join(fixed))
        for unknown in unknown_variables(os.environ):
            logger.warning("%s", unknown.sentence)

    def _read_access(self, settings: DaemonSettings) -> Authenticator:
        path = settings.tokens_file
        return Authenticator(
            None if path is None else read_tokens(path),
            allowed_uids=settings.allowed_uids,
        )

    def _status(self) -> str:
        if self._configuration.daemon.role is RoleName.GATEWAY:
            accepted = sum(state.counts.rows["accepted"] for state in self._states)
            return f"{accepted} rows were accepted."
        found = [state.pipeline.ledger.totals() for state in self._states]
        waiting, delivered = (
            sum(each.pending for each in found),
            sum(each.delivered for each in found),
        )
        return f"{waiting} rows wait, {delivered} are delivered."

    def _named_states(self) -> list[tuple[DaemonState, str]]:
        """Return the states, each with words that say whose it is, where there are two."""
        two = len(self._services) > 1
        return [(state, f" for {state.product}" if two else "") for state in self._states]

    def _report_start(
        self,
        unix: Sequence[UnixSocket],
        tcp: Sequence[socket.socket],
        views: Sequence[socket.socket],
    ) -> None:
        for one in unix:
            logger.info("taking rows on the socket %s", one)
        if tcp:
            who = (
                "anyone on this machine"
                if self._configuration.daemon.tokens_file is None
                else ("whoever has a token")
            )
            secure = "https" if self._tls else "http"
            logger.info("taking rows on %s (%s) from %s", shown(tcp), secure, who)
        if views:
            logger.info("health and metrics are on %s", shown(views))
        for state, of_product in self._named_states():
            counts: tuple[object, ...] = of_product, state.destination
            if self._configuration.daemon.role is RoleName.HOST:
                counts = state.pipeline.ledger.totals().pending, *counts
            logger.info(self._words.ready, *counts)
        self._notifier.ready(self._status())


def _role(configuration: Configuration) -> Role:
    """Return what the daemon does with rows. A host needs no client of a broker."""
    match configuration.daemon.role:
        case RoleName.HOST:
            return Host(configuration)
        case RoleName.GATEWAY:
            from arthur_relay.daemon.roles.gateway import Gateway  # noqa: PLC0415 - see above

            return Gateway(configuration)
        case RoleName.WORKER:
            from arthur_relay.daemon.roles.worker import FleetWorker  # noqa: PLC0415 - see above

            return FleetWorker(configuration)
