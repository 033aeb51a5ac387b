"""One product in the daemon: its pipeline, its state and its routes, from start to end."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING

from starlette.routing import Route

from arthur_relay.accounting import ModelLedger
from arthur_relay.daemon.api import Api
from arthur_relay.daemon.intake import Handover, Intake
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

LAST_SECONDS = 2.0
LAST_SHARE = 0.4
"""The last part of the shutdown, in seconds at most and as a share of its time: requests to Arthur
that are in flight end in it, and no other one starts."""


class ProductService:
    """Takes rows for one product and delivers them. For the daemon's loop only.

    Two services share nothing but the listeners and the loop, so that a product that is away does
    not delay the other.

    Args:
        configuration: Its settings and credentials.
        current: The daemon's current settings.
        connections: Counts open connections, by listener.
        log: Writes the log, if that is the daemon's own.

    Attributes:
        state: What the views read of it.
    """

    def __init__(
        self,
        configuration: ProductConfiguration,
        current: Current,
        connections: Counter[str],
        log: LogWriter | None,
    ) -> None:
        relay = configuration.relay
        self._logging = partial(logging_for, configuration.product)
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
            )
        self.state = DaemonState(
            current,
            relay,
            self.pipeline,
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
        """Return the routes of the product's API."""
        routes = self._routes()
        for route in routes:
            if isinstance(route, Route):
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
        worker = Handover(self.pipeline.ingest)
        models = Models(self.pipeline, self._connect_timeout_seconds)
        if self.state.product is Product.ENGINE:
            traces = TracesIntake(worker, current, counts, Tasks(models), self._known_spans)
            return TracesApi(current, traces).routes()
        return Api(current, Intake(worker, current, counts, models), models).routes()

    def check_loop(self) -> None:
        """Have the worker's loop say that it runs."""
        self.pipeline.call(self._beat)

    def renew(self, credentials: Credentials) -> None:
        """Use other credentials for the same Arthur from now on, and new connections."""
        with self._logging():
            self.pipeline.call(partial(self._destination.renew, credentials))

    async def drain(self, deadline: float) -> None:
        """Deliver what waits, as far as there is time; what is left stays in the spool.

        Args:
            deadline: When to give up, on `time.monotonic()`'s scale.
        """
        with self._logging():
            await self._drain(deadline)

    async def _drain(self, deadline: float) -> None:
        pipeline = self.pipeline
        flushed = asyncio.wrap_future(pipeline.begin_flush(urgent=True))
        last = min(LAST_SECONDS, (deadline - time.monotonic()) * LAST_SHARE)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - last - time.monotonic())):
                await asyncio.shield(flushed)
        # A request that is cut off may have arrived, and its rows would be sent again. This is also
        # for the rows of earlier processes, because the flush does not wait for those.
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await asyncio.wrap_future(pipeline.begin_pause())
        pipeline.begin_shutdown()
        if flushed.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    await asyncio.shield(asyncio.wrap_future(pipeline.closing.done))

    def _beat(self) -> None:
        self.state.beat_at = time.monotonic()


__all__ = ["ProductService"]
