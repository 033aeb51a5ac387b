"""One product in the daemon: its pipeline, its state and its routes, from start to end."""

from __future__ import annotations

import time
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from starlette.routing import Route

from arthur_relay.accounting import ModelLedger
from arthur_relay.daemon.api import Api
from arthur_relay.daemon.intake import Intake
from arthur_relay.daemon.known_spans import KnownSpans
from arthur_relay.daemon.logs import logging_for
from arthur_relay.daemon.measurements import IntakeCounts
from arthur_relay.daemon.models import InquiryLog, Models
from arthur_relay.daemon.state import DaemonState
from arthur_relay.daemon.tasks import Tasks
from arthur_relay.daemon.traces_api import TracesApi
from arthur_relay.daemon.traces_intake import TracesIntake
from arthur_relay.destinations.engine.client import EngineDestination
from arthur_relay.destinations.scope.client import ScopeDestination
from arthur_relay.encoding.product import Product
from arthur_relay.errors import ConfigurationError
from arthur_relay.worker.host import StandingHost
from arthur_relay.worker.pipeline import Pipeline

if TYPE_CHECKING:
    from collections import Counter

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

    from arthur_relay.credentials import Credentials
    from arthur_relay.daemon.configuration import ProductConfiguration
    from arthur_relay.daemon.current import Current
    from arthur_relay.daemon.log_writer import LogWriter
    from arthur_relay.daemon.roles import Station


class ProductService:
    """Takes rows for one product and delivers them. For the daemon's loop only.

    Two services share nothing but the listeners and the loop, so that a product that is away does
    not delay the other.

    Args:
        configuration: Its settings and credentials.
        current: The daemon's current settings.
        connections: Counts open connections, by listener.
        log: Writes the log, if that is the daemon's own.
        station: What the daemon's role does with rows.

    Attributes:
        state: What the views read of it.
    """

    def __init__(
        self,
        configuration: ProductConfiguration,
        current: Current,
        connections: Counter[str],
        log: LogWriter | None,
        station: Station,
    ) -> None:
        relay = configuration.relay
        self._logging = partial(logging_for, configuration.product)
        self._station = station
        self._connect_timeout_seconds = relay.connect_timeout_seconds
        self._current = current
        self._known_spans = KnownSpans()
        self._destination: ScopeDestination | EngineDestination  # used by the worker's loop
        if configuration.product is Product.ENGINE:
            relay = relay.model_copy(update={"on_dead_letter": self._known_spans.on_dead_letter})
            self._destination = EngineDestination.of(configuration.credentials, relay)
        else:
            self._destination = ScopeDestination.of(configuration.credentials, relay)
        with self._logging():
            self.pipeline = Pipeline.build(
                relay,
                self._destination,
                host=StandingHost(),
                by_model=ModelLedger(),
                context=copy_context(),
                storage=station.storage(relay, self._destination),
            )
        self.state = DaemonState(
            current,
            relay,
            self.pipeline,
            station,
            self._destination.name,
            log,
            counts=IntakeCounts(connections=connections),
            product=configuration.product,
        )
        self.pipeline.inquiries.observers.append(InquiryLog(self.state.seen.questions))

    def start(self) -> None:
        """Start the pipeline, and wait until it is ready.

        Raises:
            ConfigurationError: It can't start.
        """
        self.pipeline.start()
        error = self.pipeline.wait_until_ready()
        if isinstance(error, ConfigurationError):
            raise error
        if error is not None:
            raise ConfigurationError(f"The daemon can't start: {type(error).__name__}: {error}")

    def end(self) -> None:
        """End the worker at once, if it has not ended already."""
        with self._logging():
            self.pipeline.begin_shutdown()
            self.pipeline.finish_shutdown(time.monotonic())

    def api_routes(self) -> list[BaseRoute]:
        """Return the routes of the product's API; none where no rows are taken."""
        routes = self._routes()
        for route in routes:
            # A context for each request costs, and with one product no line has to name it.
            if isinstance(route, Route) and self._current.products > 1:
                route.app = self._logged(route.app)
        return routes

    def _logged(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose log lines are of the product."""

        async def logged(scope: Scope, receive: Receive, send: Send) -> None:
            with self._logging():
                await app(scope, receive, send)

        return logged

    def _routes(self) -> list[BaseRoute]:
        current, counts = self._current, self.state.counts
        worker = self._station.handover(self.pipeline)
        if worker is None:
            return []
        models = Models(self.pipeline, self._connect_timeout_seconds, self._station.models)
        if self.state.product is Product.ENGINE:
            traces = TracesIntake.of(worker, current, counts, Tasks(models), self._known_spans)
            return TracesApi(current, traces).routes()
        return Api(current, Intake.of(worker, current, counts, models), models).routes()

    def check_loop(self) -> None:
        """Have the worker's loop say that it runs."""
        self.pipeline.call(self._beat)

    def renew(self, credentials: Credentials) -> None:
        """Use other credentials for the same Arthur from now on, and new connections."""
        with self._logging():
            self.pipeline.call(partial(self._destination.renew, credentials))

    async def drain(self, deadline: float) -> None:
        """Do what is left to do; see `Station.drain`."""
        with self._logging():
            await self._station.drain(self.pipeline, deadline)

    def _beat(self) -> None:
        self.state.beat_at = time.monotonic()


__all__ = ["ProductService"]
