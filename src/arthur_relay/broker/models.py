"""What the daemons of a fleet have learnt of models, for each other: kept in the fleet's bucket.

A gateway that was started while Arthur is away can answer its clients by it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from arthur_relay.broker.errors import BrokerAwayError, BrokerFullError
from arthur_relay.broker.packets import model_token
from arthur_relay.broker.stored import StoredStream
from arthur_relay.broker.topology import shared_bucket, shared_stream

if TYPE_CHECKING:
    from arthur_relay.broker.link import Link
    from arthur_relay.encoding.product import Product

logger = logging.getLogger("arthur_relay.broker")


@dataclass(slots=True, eq=False)
class SharedModels:
    """Reads and writes descriptions of the models of one product. For the link's loop only.

    Attributes:
        link: The way to the broker.
        product: The product.
    """

    link: Link
    product: Product
    _kept: dict[str, str] = field(default_factory=dict, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)

    async def find(self, name: str, *, by_partner_id: bool) -> dict[str, Any] | None:
        """Return what Arthur has said of a model; None when nobody knows. Never raises."""
        connection = self.link.connection
        subject = self._subject(name, by_partner_id=by_partner_id)
        try:
            found = await StoredStream(connection, shared_stream(connection.settings).name).last(
                subject
            )
            document = None if found is None else json.loads(found.body)
        except (BrokerAwayError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def keep(self, name: str, document: dict[str, Any], *, by_partner_id: bool) -> None:
        """Keep what Arthur says of a model, soon; nobody waits for it."""
        subject, text = self._subject(name, by_partner_id=by_partner_id), json.dumps(document)
        if self._kept.get(subject) == text:
            return
        self._kept[subject] = text
        task = asyncio.create_task(self._keep(subject, text))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, subject: str, text: str) -> None:
        connection = self.link.connection
        stream = shared_stream(connection.settings).name
        try:
            await connection.publish(subject, text.encode(), {}, stream=stream)
        except (BrokerAwayError, BrokerFullError) as error:
            self._kept.pop(subject, None)  # with the next answer
            logger.debug("a model can't be kept: %s", error)

    def _subject(self, name: str, *, by_partner_id: bool) -> str:
        what = "partner" if by_partner_id else "id"
        bucket = shared_bucket(self.link.connection.settings)
        return f"$KV.{bucket}.models.{self.product.name.lower()}.{what}.{model_token(name)}"
