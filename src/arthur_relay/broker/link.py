"""The link to the broker: opened and prepared in the background, for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from arthur_relay.broker.errors import BrokerAwayError
from arthur_relay.broker.monitoring import NoMonitoringError, check_sync
from arthur_relay.broker.nats.connection import Connection
from arthur_relay.broker.provision import DEAD_LETTER_BYTES, Provision
from arthur_relay.broker.settings import BROKER_PREFIX
from arthur_relay.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arthur_relay.broker.settings import BrokerSettings
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")

RETRY_SECONDS: Final = 1.0
"""How long to wait before the broker is tried again when it is away."""

REFUSED_SECONDS: Final = 10.0
"""The same when a person has to change something."""

GRACE_SECONDS: Final = 3.0
"""How long the broker may be away before that is trouble: an election is often over sooner, and
another node takes a lost connection at once."""


def end_if_cancelled() -> None:
    """Raise when the task was cancelled: `asyncio.wait_for` of Python 3.11 may pass over it.

    The library waits by it, so that a task that goes on for ever would miss its end.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


UNANSWERED_SECONDS: Final = 2.5
"""How long a question may be open before the broker counts as away. A server that hangs loses no
connection for six seconds, and it is asked every two: so that is seen within five."""


@dataclass(slots=True, eq=False)
class Link:
    """Opens a connection and sees that the broker is as it should be. One event loop.

    After each time that the connection was made anew, it looks again: somebody may have changed the
    broker, or it is another one.

    Attributes:
        connection: The connection; to be used once `ready` is set.
        products: The products whose rows go through this fleet.
        dead_letter_bytes: The size of the stream of dead letters.
        ready: Set while the broker is as it should be, as far as is known.
    """

    connection: Connection
    products: Sequence[Product]
    dead_letter_bytes: int = DEAD_LETTER_BYTES
    ready: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _refusal: ConfigurationError | None = field(default=None, init=False)
    _away: str = field(default="", init=False)
    _away_since: float | None = field(default=None, init=False)
    _asked_at: float | None = field(default=None, init=False)
    _looked: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    @property
    def provision(self) -> Provision:
        """What the broker should have."""
        return Provision(self.connection, self.products, self.dead_letter_bytes)

    @property
    def trouble(self) -> str:
        """Why the broker can't be used now, or "". Any thread."""
        if self._refusal is not None:
            return str(self._refusal).rstrip(".")
        if not self.ready.is_set():
            reason = self._away or self.connection.trouble
            return (
                f"the broker can't be reached ({reason})" if reason else "the broker is looked at"
            )
        now, since, asked_at = time.monotonic(), self._away_since, self._asked_at
        if since is not None and now - since >= GRACE_SECONDS:
            return f"the broker can't be reached ({self._away})"
        if asked_at is not None and now - asked_at >= UNANSWERED_SECONDS:
            return "the broker can't be reached (it does not answer)"
        return ""

    def note_question(self) -> None:
        """Note that the broker is asked now: either of the two below is to follow."""
        self._asked_at = time.monotonic()

    def note_away(self, reason: str) -> None:
        """Note that the broker did not answer a question."""
        self._away = reason
        if self._away_since is None:
            self._away_since = time.monotonic() if self._asked_at is None else self._asked_at
        self._asked_at = None

    def note_answer(self) -> None:
        """Note that it answered one."""
        self._away, self._away_since, self._asked_at = "", None, None

    def look_again(self) -> None:
        """Have the broker looked at again: something there is not as it was."""
        self.connection.note_change()

    async def run(self) -> None:
        """Open the connection, and prepare what is behind it, as often as it takes; never ends."""
        while True:
            pause = await self._look()
            self._looked.set()
            end_if_cancelled()
            if pause is None:
                await self._until_reconnected()
            else:
                await asyncio.sleep(pause)

    async def look(self) -> None:
        """Wait until the broker was tried once.

        Raises:
            ConfigurationError: It can't be used, and a person has to change something.
        """
        await self._looked.wait()
        if self._refusal is not None:
            raise self._refusal

    async def _look(self) -> float | None:
        """Look at the broker once. Returns when to look again; None after the next change."""
        connection = self.connection
        try:
            if not connection.is_open:
                await connection.close()
                await connection.open()
            await self.provision.prepare()
            await self._check_sync()
        except BrokerAwayError as error:
            if str(error) != self._away:
                logger.warning(
                    "the broker can't be reached: %s; it is tried again, where %sURL says",
                    error,
                    BROKER_PREFIX,
                )
            self.note_away(str(error))
            return RETRY_SECONDS
        except ConfigurationError as error:
            if self._refusal is None or str(self._refusal) != str(error):
                logger.error("the broker can't be used: %s", error)  # noqa: TRY400 - the message says why
            self._refusal = error
            self.ready.clear()
            return REFUSED_SECONDS
        if self._refusal is not None or self._away:
            logger.info("the broker can be used again")
        self._refusal = None
        self.note_answer()
        self.ready.set()
        return None

    async def _check_sync(self) -> None:
        """Look whether the broker's servers write rows to their disks at once.

        Raises:
            ConfigurationError: One does not.
        """
        try:
            await check_sync(self.connection.settings.monitoring_urls)
        except NoMonitoringError as error:
            logger.warning("%s", error)

    async def _until_reconnected(self) -> None:
        """Wait until the connection was lost, and is there again or can't come back by itself."""
        while True:
            await self.connection.changed()
            if not self.connection.is_open:
                return
            if self.connection.is_connected:
                return
            self.note_away(self.connection.trouble)


@dataclass(frozen=True, slots=True)
class Links:
    """Makes links to one broker, each for a loop of its own.

    Attributes:
        settings: Where the broker is, and how rows are kept there.
        name: Says in the broker's own views who this is.
        products: The products whose rows go through the links.
        dead_letter_bytes: The size of the stream of dead letters.
    """

    settings: BrokerSettings
    name: str
    products: Sequence[Product]
    dead_letter_bytes: int = DEAD_LETTER_BYTES

    def new(self) -> Link:
        """Return a link that has not been opened."""
        connection = Connection(self.settings, self.name)
        return Link(connection, self.products, self.dead_letter_bytes)
