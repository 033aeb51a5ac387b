"""Messages of others in the broker that no reader can nest so deeply are passed over."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import anyio

from arthur_relay.broker import shared
from arthur_relay.broker.fleet import Fleet
from arthur_relay.broker.models import SharedModels
from arthur_relay.broker.settings import BrokerSettings
from arthur_relay.encoding.product import Product

if TYPE_CHECKING:
    from arthur_relay.broker.link import Link

DEEP = b'{"id":' + b"[" * 9999 + b"]" * 9999 + b"}"


def test_a_hold() -> None:
    assert shared._read(DEEP) is None


def test_an_announcement() -> None:
    Fleet.__new__(Fleet)._hear(DEEP)  # it would need what it lacks here to note who it is


def test_a_description_of_a_model() -> None:
    async def ask_api(subject: str, question: object = None) -> dict[str, object]:
        data = base64.b64encode(DEEP).decode()
        return {"message": {"seq": 1, "time": "2026-06-07T12:00:00Z", "data": data}}

    connection = SimpleNamespace(settings=BrokerSettings(), ask_api=ask_api)
    link = cast("Link", SimpleNamespace(connection=connection))
    models = SharedModels(link, Product.SCOPE)

    async def find() -> object:
        return await models.find("m", by_partner_id=False)

    assert anyio.run(find) is None
