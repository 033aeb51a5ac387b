"""The daemon: composes the pipeline with a spool and listeners, runs them, and shuts them down."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from arthur_relay.accounting import ModelLedger
from arthur_relay.daemon.api import Api, create_app
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
from arthur_relay.daemon.directory_lock import hold_directory
from arthur_relay.daemon.intake import Handover, Intake
from arthur_relay.daemon.known_spans import KnownSpans
from arthur_relay.daemon.logs import set_level
from arthur_relay.daemon.models import InquiryLog, Models
from arthur_relay.daemon.other_routes import ALL, FOR_ENGINE, FOR_SCOPE, OF_ENGINE, other_routes
from arthur_relay.daemon.self_delivery import refuse_own_address
from arthur_relay.daemon.settings import read_address
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
from arthur_relay.daemon.state import BEAT_SECONDS, DaemonState, Phase
from arthur_relay.daemon.systemd import Notifier, passed_sockets, watchdog_seconds
from arthur_relay.daemon.tasks import Tasks
from arthur_relay.daemon.traces_api import TracesApi
from arthur_relay.daemon.traces_intake import TracesIntake
from arthur_relay.daemon.views import probe_routes, view_routes
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.errors import ConfigurationError, SettingsError
from arthur_relay.http_server.server import HttpServer
from arthur_relay.worker.host import StandingHost
from arthur_relay.worker.pipeline import Pipeline

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from starlette.routing import BaseRoute

    from arthur_relay.daemon.configuration import Configuration
    from arthur_relay.daemon.log_writer import LogWriter
    from arthur_relay.daemon.settings import DaemonSettings

logger = logging.getLogger("arthur_relay.daemon")

STATUS_SECONDS = 10.0

ANSWER_SECONDS = 5.0
"""How long the shutdown waits for requests in progress."""

LAST_SECONDS = 2.0
LAST_SHARE = 0.4
"""The last part of the shutdown, in seconds at most and as a share of its time: requests to Arthur
that are in flight end in it, and no other one starts."""


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
        self._current = Current(configuration.daemon, self._read_access(configuration.daemon))
        self._tls = load_tls(configuration.daemon)
        self._pipeline: Pipeline
        self._most_connections: int
        self._destination: ScopeDestination | EngineDestination  # used by the worker's loop
        self._known_spans = KnownSpans()
        self._passed_tcp: list[tuple[str, str]] = []
        self.state: DaemonState

    async def run(self) -> int:
        """Serve until a signal asks to stop. Returns the process's exit status.

        Raises:
            ConfigurationError: The spool, a socket or a file can't be used.
        """
        settings, relay = self._configuration.daemon, self._configuration.relay
        assert relay.spool_dir is not None, "the configuration sees to it"
        with ExitStack() as stack, Signals() as signals:
            for lock in hold_directory(relay.spool_dir):
                stack.callback(lock.release)
            unix, tcp, views = self._listen(settings, stack)
            self._start_pipeline(stack)
            servers = self._servers(unix, tcp, views)
            for server in servers.values():
                server.start()
            beat = asyncio.create_task(self._beat())
            self.state.phase = Phase.RUNNING
            self._report_start(unix, tcp, views)
            try:
                await self._serve(signals)
                return await self._shut_down(servers, unix, signals)
            finally:
                beat.cancel()
                with suppress(asyncio.CancelledError):
                    await beat

    def _start_pipeline(self, stack: ExitStack) -> None:
        relay = self._configuration.relay
        destination: ScopeDestination | EngineDestination
        if self._configuration.is_for_engine:
            relay = relay.model_copy(update={"on_dead_letter": self._known_spans.on_dead_letter})
            destination = EngineDestination.of(self._configuration.credentials, relay)
        else:
            destination = ScopeDestination.of(self._configuration.credentials, relay)
        self._destination = destination
        pipeline = self._pipeline = Pipeline.build(
            relay, destination, host=StandingHost(), by_model=ModelLedger()
        )
        self.state = DaemonState(
            self._current,
            self._configuration.relay,
            pipeline,
            destination.name,
            self._log,
        )
        stack.enter_context(self.state.seen.recent_errors.listening())
        pipeline.inquiries.observers.append(InquiryLog(self.state.seen.questions))
        pipeline.start()
        stack.callback(self._end_pipeline)
        error = pipeline.wait_until_ready()
        if isinstance(error, ConfigurationError):
            raise error
        if error is not None:
            raise ConfigurationError(f"The daemon can't start: {type(error).__name__}: {error}")

    def _end_pipeline(self) -> None:
        """End the worker at once, if it has not ended already."""
        self._pipeline.begin_shutdown()
        self._pipeline.finish_shutdown(time.monotonic())

    def _listen(
        self, settings: DaemonSettings, stack: ExitStack
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
            assert self._configuration.relay.spool_dir is not None, "the configuration sees to it"
            refuse_in_spool(settings.socket, self._configuration.relay.spool_dir)
            unix.append(
                listen_unix(settings.socket, mode=settings.socket_mode, group=settings.socket_group)
            )
        for one in unix:
            stack.callback(one.listener.close)
            stack.callback(one.remove)
        if not (unix or tcp):
            raise SettingsError(f"The daemon has nothing to listen on: {NOTHING_TO_LISTEN_ON}.")
        refuse_own_address(
            self._configuration.credentials.url,
            [one.path or one.listener.getsockname() for one in unix],
            [each.getsockname()[:2] for each in (*tcp, *views)],
            variable=self._configuration.address_variable,
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
        state = self.state
        self._most_connections = connections_that_fit(
            self._configuration.daemon.max_connections,
            listeners=sum(map(bool, (unix, tcp, views))),
        )
        api = self._api_routes()
        probes, others = probe_routes(state), view_routes(state)
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
        """Return the routes of the API whose rows are delivered."""
        pipeline, counts = self._pipeline, self.state.counts
        worker = Handover(pipeline.ingest)
        models = Models(pipeline, self._configuration.relay.connect_timeout_seconds)
        if self._configuration.is_for_engine:
            traces = TracesIntake(worker, self._current, counts, Tasks(models), self._known_spans)
            return [*TracesApi(self._current, traces).routes(), *other_routes(ALL, FOR_ENGINE)]
        intake = Intake(worker, self._current, counts, models)
        return [*Api(self._current, intake, models).routes(), *other_routes(OF_ENGINE, FOR_SCOPE)]

    def _server(
        self,
        endpoint: Endpoint,
        routes: Sequence[BaseRoute],
        sockets: Sequence[socket.socket],
        tls: ssl.SSLContext | None = None,
    ) -> HttpServer:
        slots = ConnectionSlots(endpoint, self._most_connections, self.state.counts)
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
        self.state.phase = Phase.DRAINING
        self._notifier.stopping("Stopping: no more rows are taken.")
        logger.info("stopping: no more rows are taken, what waits is delivered until the deadline")
        pipeline = self._pipeline
        drain = asyncio.create_task(self._drain(servers, unix, deadline))
        again = asyncio.create_task(signals.again.wait())
        await asyncio.wait((drain, again), return_when=asyncio.FIRST_COMPLETED)
        forced = not drain.done()
        for task in (drain, again):
            task.cancel()
        await asyncio.gather(drain, again, return_exceptions=True)
        if forced:
            logger.warning("stopping at once: told so a second time")
            for server in servers.values():
                server.stop_accepting()
        await asyncio.to_thread(pipeline.finish_shutdown, time.monotonic())
        for server in servers.values():
            server.stop_accepting()
            await server.finish(0.0 if forced else 0.5)
        totals = pipeline.ledger.totals()
        logger.info(
            "stopped: %d rows were delivered, %d rejected, %d stay in the spool",
            totals.delivered,
            totals.rejected,
            totals.pending,
        )
        return 1 if forced else 0

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
        flushed = asyncio.wrap_future(self._pipeline.begin_flush(urgent=True))
        last = min(LAST_SECONDS, (deadline - time.monotonic()) * LAST_SHARE)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - last - time.monotonic())):
                await asyncio.shield(flushed)
        # A request that is cut off may have arrived, and its rows would be sent again. This is also
        # for the rows of earlier processes, because the flush does not wait for those.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await asyncio.wrap_future(self._pipeline.begin_pause())
        self._pipeline.begin_shutdown()
        if flushed.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await asyncio.shield(asyncio.wrap_future(self._pipeline.closing.done))

    async def _beat(self) -> None:
        """Check both loops, and notify the service manager while they run."""
        state = self.state
        interval = watchdog_seconds(self._environment, os.getpid())
        pause = BEAT_SECONDS if interval is None else min(BEAT_SECONDS, interval)
        reported_at = time.monotonic()

        def beat() -> None:
            state.beat_at = time.monotonic()

        while True:
            before = time.monotonic()
            self._pipeline.call(beat)
            await asyncio.sleep(pause)
            now = time.monotonic()
            state.lag_seconds = max(0.0, now - before - pause)
            state.take_point()
            if interval is not None and state.liveness()[0]:
                self._notifier.watchdog()
            if now - reported_at >= STATUS_SECONDS and state.phase is Phase.RUNNING:
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
        credentials = merged.credentials
        # Connections too, whether or not the credentials differ.
        self._pipeline.call(partial(self._destination.renew, credentials))
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
        totals = self._pipeline.ledger.totals()
        return f"{totals.pending} rows wait, {totals.delivered} are delivered."

    def _report_start(
        self,
        unix: Sequence[UnixSocket],
        tcp: Sequence[socket.socket],
        views: Sequence[socket.socket],
    ) -> None:
        totals = self._pipeline.ledger.totals()
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
        logger.info(
            "ready: %d rows of earlier processes wait in the spool, all go to %s",
            totals.pending,
            self.state.destination,
        )
        self._notifier.ready(self._status())
